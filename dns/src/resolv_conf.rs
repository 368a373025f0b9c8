//! The host's `resolv.conf` (resolv.conf(5)), as far as a forwarder needs it: its nameservers, and how they are to be asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

/// A `nameserver` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nameserver {
    address: IpAddr,
    // The link of an IPv6 link-local address (RFC 4007, section 11), as text: a name, or a number.
    link: Option<String>,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// The nameservers, in order; the one on the host itself if none is named.
    pub nameservers: Vec<Nameserver>,
    /// None is named.
    pub presumed: bool,
    /// They are asked by TCP alone (`options use-vc`).
    pub tcp_only: bool,
}

impl ResolvConf {
    /// Other lines, and lines that make no sense, are passed over as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut nameservers: Vec<Nameserver> = text.lines().filter_map(nameserver).collect();
        let presumed = nameservers.is_empty();
        if presumed {
            nameservers.push(Nameserver { address: Ipv4Addr::LOCALHOST.into(), link: None });
        }
        let options = text
            .lines()
            .map(str::split_whitespace)
            .filter_map(|mut words| (words.next()? == "options").then_some(words));
        let tcp_only = options.flatten().any(|option| option == "use-vc");
        Self { nameservers, presumed, tcp_only }
    }
}

fn nameserver(line: &str) -> Option<Nameserver> {
    let mut words = line.split_whitespace();
    let value = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
    let (address, link) = match value.split_once('%') {
        Some((address, link)) => (address, Some(link.to_owned())),
        None => (value, None),
    };
    Some(Nameserver { address: address.parse().ok()?, link })
}

impl Nameserver {
    /// The address to compare with others: the loopback address for "this host", IPv4 where it is IPv4 in disguise.
    pub fn meant(&self) -> IpAddr {
        match self.address.to_canonical() {
            IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
        }
    }

    /// Where to send to; `None` if the link does not exist.
    pub fn socket(&self, port: u16) -> Option<SocketAddr> {
        match (self.meant(), &self.link) {
            (IpAddr::V6(address), Some(link)) => match link.parse() {
                Ok(number) => Some(SocketAddrV6::new(address, port, 0, number).into()),
                // The C library knows the numbers of links; for a numeric address it asks nobody else.
                Err(_) => (format!("{address}%{link}").as_str(), port).to_socket_addrs().ok()?.next(),
            },
            (address, _) => Some(SocketAddr::new(address, port)),
        }
    }
}

#[cfg(test)]
mod tests;
