//! Names that stand for addresses: `in-addr.arpa.` (RFC 1035, section 3.5) and `ip6.arpa.` (RFC 3596, section 2.5).

use std::net::IpAddr;

use hickory_proto::rr::Name as DnsName;
use overlay::model::addr::Subnet;

/// What a reverse name is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reverse {
    first: IpAddr,
    len: u8,
    // Labels before the numbers, as service discovery puts them there: `lb._dns-sd._udp.0.38.172.in-addr.arpa.`
    prefixed: bool,
}

/// What kind of node a reverse name is in the tree of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// An address's own name.
    Address(IpAddr),
    /// A name above those of addresses.
    Above,
    /// A name beside or below those of addresses: nothing is ever there.
    Astray,
}

/// Labels in the longest reverse name: 32 nibbles, `ip6` and `arpa`.
const DEEPEST: usize = 34;

impl Reverse {
    /// Reads a reverse name; `None` if it is none.
    pub fn parse(name: &DnsName) -> Option<Self> {
        if !name.iter().next_back()?.eq_ignore_ascii_case(b"arpa") {
            return None;
        }
        let labels = name.iter().count();
        (2..=labels.min(DEEPEST)).rev().find_map(|count| {
            let net = name.trim_to(count).parse_arpa_name().ok()?;
            Some(Self { first: net.addr(), len: net.prefix_len(), prefixed: count < labels })
        })
    }

    /// Is everything that the name can be about in this subnet?
    pub fn is_within(&self, subnet: &Subnet) -> bool {
        subnet.contains(self.first) && self.len >= subnet.prefix_len()
    }

    /// Is it about addresses that mean something else on each link (RFC 3927, RFC 4291)?
    pub fn is_link_local(&self) -> bool {
        match self.first {
            IpAddr::V4(v4) => v4.is_link_local() && self.len >= 16,
            IpAddr::V6(v6) => v6.is_unicast_link_local() && self.len >= 12,
        }
    }

    /// Where the name is in the tree.
    pub fn node(&self) -> Node {
        let width = if self.first.is_ipv4() { 32 } else { 128 };
        match (self.prefixed, self.len == width) {
            (true, _) => Node::Astray,
            (false, true) => Node::Address(self.first),
            (false, false) => Node::Above,
        }
    }
}

#[cfg(test)]
mod tests;
