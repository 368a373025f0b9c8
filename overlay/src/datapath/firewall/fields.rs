//! The parts of keys and values: how `nft` writes them, and how the kernel stores them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sets::Field;
use crate::model::addr::{IpVersion, Mac, Subnet};
use crate::model::publish::Protocol;

/// The bytes that the kernel has for the name of an interface (`linux/if.h`).
const IFNAMSIZ: usize = 16;

/// The type of a part of a key or of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// An address, or a subnet in a set of ranges.
    Address(IpVersion),
    /// An IPv6 address as bytes of a packet.
    Bytes,
    /// A protocol over IP.
    Protocol,
    /// A port.
    Port,
    /// The name of an interface.
    Interface,
    /// A MAC.
    Mac,
}

impl FieldType {
    /// How many bytes a part takes. Each is in network order, with zeros behind up to a multiple of four bytes
    /// (`nft_set_pipapo`).
    pub(super) fn stored_len(self) -> usize {
        match self {
            Self::Protocol | Self::Port | Self::Address(IpVersion::V4) => 4,
            Self::Mac => 8,
            Self::Address(IpVersion::V6) | Self::Bytes | Self::Interface => 16,
        }
    }

    /// The part that is stored as a range of bytes from `first` to `last`.
    pub(super) fn read(self, first: &[u8], last: &[u8]) -> Option<Field> {
        if first != last {
            return self.range(first, last);
        }
        let field = match self {
            Self::Address(_) => Field::Address(self.address(first)?),
            Self::Bytes => Field::Bytes(Ipv6Addr::from(*first.first_chunk::<16>()?)),
            Self::Protocol => Field::Protocol(Protocol::numbered(u32::from(*first.first()?))?),
            Self::Port => Field::Port(u16::from_be_bytes(*first.first_chunk()?)),
            Self::Interface => {
                let end = first.iter().position(|byte| *byte == 0)?;
                Field::Interface(std::str::from_utf8(&first[..end]).ok()?.parse().ok()?)
            }
            Self::Mac => Field::Mac(Mac::new(*first.first_chunk()?)?),
        };
        // What stands behind the part has to be nothing.
        (field.first() == first).then_some(field)
    }

    /// A subnet; of other ranges there are none.
    fn range(self, first: &[u8], last: &[u8]) -> Option<Field> {
        let (first, last) = (self.address(first)?, self.address(last)?);
        let bits: u8 = if first.is_ipv4() { 32 } else { 128 };
        let ends_there = |subnet: &Subnet| subnet.network() == first && subnet.last() == last;
        let subnet = (0..bits).filter_map(|len| Subnet::of(first, len)).find(ends_there)?;
        Some(Field::Within(subnet))
    }

    fn address(self, bytes: &[u8]) -> Option<IpAddr> {
        match self {
            Self::Address(IpVersion::V4) => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
            Self::Address(IpVersion::V6) => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
            Self::Bytes | Self::Protocol | Self::Port | Self::Interface | Self::Mac => None,
        }
    }

    /// How nft calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Address(IpVersion::V4) => "ipv4_addr",
            Self::Address(IpVersion::V6) => "ipv6_addr",
            Self::Bytes => "integer",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Interface => "ifname",
            Self::Mac => "ether_addr",
        }
    }

    /// A part of a packet that has it, in nft's words. Bytes are those that neighbour discovery is about (RFC 4861, section 4.4).
    pub(super) fn expression(&self) -> &'static str {
        match self {
            Self::Address(IpVersion::V4) => "ip saddr",
            Self::Address(IpVersion::V6) => "ip6 saddr",
            Self::Bytes => "@th,64,128",
            Self::Protocol => "meta l4proto",
            Self::Port => "th dport",
            Self::Interface => "iifname",
            Self::Mac => "ether saddr",
        }
    }
}

impl Field {
    /// Its type.
    pub fn kind(&self) -> FieldType {
        match self {
            Self::Address(address) => FieldType::Address(IpVersion::of(*address)),
            Self::Within(subnet) => FieldType::Address(subnet.version()),
            Self::Bytes(_) => FieldType::Bytes,
            Self::Protocol(_) => FieldType::Protocol,
            Self::Port(_) => FieldType::Port,
            Self::Interface(_) => FieldType::Interface,
            Self::Mac(_) => FieldType::Mac,
        }
    }

    /// The bytes of the least that it stands for.
    pub(super) fn first(&self) -> Vec<u8> {
        let mut bytes = match self {
            Self::Address(address) => octets(*address),
            Self::Bytes(address) => address.octets().to_vec(),
            Self::Within(subnet) => octets(subnet.network()),
            Self::Protocol(protocol) => vec![protocol.number()],
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::Interface(name) => {
                let mut name = name.as_str().as_bytes().to_vec();
                name.resize(IFNAMSIZ, 0);
                name
            }
            Self::Mac(mac) => mac.as_bytes().to_vec(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The bytes of the greatest.
    pub(super) fn last(&self) -> Vec<u8> {
        if let Self::Within(subnet) = self { octets(subnet.last()) } else { self.first() }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Bytes(address) => write!(f, "0x{:032x}", u128::from(*address)),
            Self::Within(subnet) => write!(f, "{subnet}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Mac(mac) => write!(f, "{mac}"),
        }
    }
}
