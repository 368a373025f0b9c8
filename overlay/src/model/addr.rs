//! Addresses of the link and network layers, parsed once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// Why a text is not the MAC of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six hexadecimal bytes with colons.
    #[error("`{0}` is not a MAC address: expected six hexadecimal bytes like 02:42:ac:26:00:0b")]
    Malformed(String),
    /// The group bit is set, or all bytes are zero.
    #[error("`{0}` can't be the MAC of an interface, it is a group's or all zero: choose one like 02:42:ac:26:00:0b")]
    NotUnicast(String),
}

impl Mac {
    /// The address with these bytes; `None` for group addresses (IEEE 802: lowest bit of the first byte) and for zero.
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// The address's bytes.
    pub const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// What an endpoint with this address has unless told otherwise: `02:42` and the IPv4 address, as Docker does it. For
    /// IPv6 it is `06` and 40 bits of a hash: different blocks of a subnet differ in its upper bytes, which a MAC has no room
    /// for. So an address that an endpoint has alone, or asks for by number, never changes its MAC, whoever has it.
    pub fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x02, 0x42, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let hash = fnv1a(&v6.octets());
                // The upper half depends on all bytes, the lower one hardly on the first ones.
                let [a, b, c, d, e, ..] = (hash ^ (hash << 32)).to_be_bytes();
                Self([0x06, a, b, c, d, e])
            }
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        Self::new(bytes).ok_or_else(|| MacError::NotUnicast(text.to_owned()))
    }
}

/// FNV-1a, 64 bits: for what is to differ, not for what is to be secret.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// A version of the Internet Protocol (RFC 791, RFC 8200).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// What means all addresses of a host, or none in particular.
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A network prefix whose host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    prefix: IpNetwork,
}

/// Why a text is not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not an address and a prefix length.
    #[error("`{0}` is not a subnet: expected ADDRESS/PREFIX like 172.38.0.0/16")]
    Malformed(String),
    /// Host bits are set.
    #[error("`{given}` has host bits set: write the subnet as {meant}")]
    HostBits {
        /// What was given.
        given: String,
        /// The prefix it is in.
        meant: Subnet,
    },
}

impl Subnet {
    /// The subnet that `address` is in at prefix length `len`; `None` if the length is too long for the family.
    pub fn of(address: IpAddr, len: u8) -> Option<Self> {
        let network = IpNetwork::new(address, len).ok()?;
        IpNetwork::new(network.network(), len).ok().map(|prefix| Self { prefix })
    }

    /// The version of its addresses.
    pub fn version(&self) -> IpVersion {
        IpVersion::of(self.network())
    }

    /// The first address.
    pub fn network(&self) -> IpAddr {
        self.prefix.network()
    }

    /// The last address: for IPv4 the broadcast address.
    pub fn last(&self) -> IpAddr {
        self.prefix.broadcast()
    }

    /// Prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.prefix.prefix()
    }

    /// Number of bits that are not prefix.
    pub fn host_bits(&self) -> u8 {
        let width = if self.prefix.is_ipv4() { 32 } else { 128 };
        width - self.prefix.prefix()
    }

    /// Is the address in this subnet?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefix.contains(address)
    }

    /// Do the two share an address?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// How far `address` is from the first address; `None` if it is outside.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.network()))
    }

    /// Its addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let subnet = *self;
        (0..).map_while(move |offset| subnet.nth(offset))
    }

    /// The address `offset` behind the first one; `None` if that is outside.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let address = match self.network() {
            IpAddr::V4(base) => {
                let n = u128::from(u32::from(base)).checked_add(offset)?;
                IpAddr::V4(Ipv4Addr::from(u32::try_from(n).ok()?))
            }
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).checked_add(offset)?)),
        };
        self.contains(address).then_some(address)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        // `IpNetwork` takes an address without a length as a host route; a subnet always says how long it is.
        if !text.contains('/') {
            return Err(malformed());
        }
        let given: IpNetwork = text.parse().map_err(|_| malformed())?;
        let meant = Self::of(given.ip(), given.prefix()).ok_or_else(malformed)?;
        if given.ip() == meant.network() {
            Ok(meant)
        } else {
            Err(SubnetError::HostBits { given: text.to_owned(), meant })
        }
    }
}

/// The name of a network interface: 1 to 15 bytes, no `/`, no white space, not `.` or `..` (Linux `dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// A text that is not an interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an interface name: 1 to 15 characters, none of them white space, `/` or `:`")]
pub struct IfNameError(String);

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, IfNameError> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let valid = (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.contains(bad);
        if valid { Ok(Self(text.to_owned())) } else { Err(IfNameError(text.to_owned())) }
    }
}

/// An address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefixed {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
}

#[cfg(test)]
mod tests;
