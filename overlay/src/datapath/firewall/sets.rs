//! Sets and maps of a table: what rules look packets up in, however many there are.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, Marks};
use crate::model::addr::{IfName, Mac, Subnet};
use crate::model::publish::Protocol;

/// A set, or a map if its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is, in nft's words: `map ports { type inet_proto . inet_service : ipv4_addr . inet_service;`.
    pub kind: &'static str,
    /// What is in it; nothing in one that packets fill.
    pub elements: BTreeSet<Element>,
}

/// The bytes that the kernel has for the name of an interface (`linux/if.h`).
const IFNAMSIZ: usize = 16;

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The parts of its key.
    pub key: Vec<Field>,
    /// The parts of its value; none in a set.
    pub value: Vec<Field>,
}

/// A part of a key or of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// An address.
    Address(IpAddr),
    /// An IPv6 address where it is compared as the bytes that it is.
    Bytes(Ipv6Addr),
    /// All addresses of a subnet.
    Within(Subnet),
    /// A protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
    /// An interface.
    Interface(IfName),
    /// A MAC.
    Mac(Mac),
}

impl Set {
    /// What a look at the kernel shows of it: its elements, sorted.
    pub(crate) fn marks(&self) -> (String, Vec<String>) {
        let mut elements: Vec<String> = self.elements.iter().map(Element::mark).collect();
        elements.sort();
        (format!("@{}", self.name), elements)
    }

    /// Lines for `nft -f` that give it just its elements, in our table of this family.
    pub fn script(&self, family: Family) -> String {
        let (kind, name) = (self.kind.split(' ').next().unwrap_or("set"), self.name);
        let elements: Vec<String> = self.elements.iter().map(Element::to_string).collect();
        let flushed = format!("flush {kind} {family} overlay {name}\n");
        match elements.as_slice() {
            [] => flushed,
            all => flushed + &format!("add element {family} overlay {name} {{ {} }}\n", all.join(", ")),
        }
    }

    /// The same set with what is seen of it in the kernel besides and is worth keeping, if it is one of addresses, protocols and
    /// ports.
    pub(super) fn with(&self, seen: &Marks, is_kept: impl Fn(&Element) -> bool) -> Self {
        let name = format!("@{}", self.name);
        let marks = seen.iter().filter(|(seen, _)| *seen == name).flat_map(|(_, marks)| marks);
        let kept = marks.filter_map(|mark| self.element(mark)).filter(is_kept);
        Self { elements: self.elements.iter().cloned().chain(kept).collect(), ..*self }
    }

    /// The element that is seen like that.
    fn element(&self, mark: &str) -> Option<Element> {
        let kinds = self.kind.split_once("type ")?.1.split_once(';')?.0.split(" . ");
        let mut parts = (0..).map_while(|n| key_part(mark, n));
        let part = |kind: &str| {
            let bytes = parts.next()?;
            let [first, second, ..] = bytes;
            match kind {
                "ipv4_addr" => Some(Field::Address(Ipv4Addr::from(bytes).into())),
                "ipv6_addr" => {
                    let [b, c, d] = [parts.next()?, parts.next()?, parts.next()?];
                    let octets: [u8; 16] = [bytes, b, c, d].concat().try_into().ok()?;
                    Some(Field::Address(Ipv6Addr::from(octets).into()))
                }
                "inet_proto" => Protocol::numbered(first.into()).map(Field::Protocol),
                "inet_service" => Some(Field::Port(u16::from_be_bytes([first, second]))),
                _ => None,
            }
        };
        let key: Vec<Field> = kinds.map(part).collect::<Option<_>>()?;
        let element = Element::of(key);
        (element.mark() == mark).then_some(element)
    }
}

impl Element {
    /// One of a set.
    pub fn of(key: impl IntoIterator<Item = Field>) -> Self {
        Self { key: key.into_iter().collect(), value: Vec::new() }
    }

    fn mark(&self) -> String {
        let bytes = |fields: &[Field], end: fn(&Field) -> Vec<u8>| fields.iter().flat_map(end).collect::<Vec<u8>>();
        mark(&bytes(&self.key, Field::first), &bytes(&self.key, Field::last), &bytes(&self.value, Field::first))
    }
}

/// What is seen of an element with these bytes: where its key begins and ends, and its value. Each part is in network order, with
/// zeros behind up to a multiple of four bytes (`nft_set_pipapo`).
pub fn mark(first: &[u8], last: &[u8], value: &[u8]) -> String {
    let mut text = String::new();
    for (n, bytes) in [first, last, value].into_iter().enumerate() {
        if n > 0 {
            text.push('-');
        }
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a String takes all");
        }
    }
    text
}

/// Four bytes of a mark's key: one part, if all before it have four as well.
pub fn key_part(mark: &str, part: usize) -> Option<[u8; 4]> {
    let digits = mark.split('-').next()?.get(8 * part..8 * part + 8)?;
    u32::from_str_radix(digits, 16).ok().map(u32::to_be_bytes)
}

impl Field {
    fn first(&self) -> Vec<u8> {
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

    fn last(&self) -> Vec<u8> {
        match self {
            Self::Within(subnet) => octets(subnet.last()),
            other => other.first(),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |fields: &[Field]| fields.iter().map(Field::to_string).collect::<Vec<_>>().join(" . ");
        f.write_str(&joined(&self.key))?;
        if self.value.is_empty() { Ok(()) } else { write!(f, " : {}", joined(&self.value)) }
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
