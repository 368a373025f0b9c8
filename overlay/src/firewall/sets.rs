//! Sets and maps of a table: what rules look packets up in, however many there are.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::Ipv4Addr;

use crate::addr::Subnet;
use crate::publish::Protocol;

/// A set, or a map if its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is, in nft's words: `map ports { type inet_proto . inet_service : ipv4_addr . inet_service;`.
    pub kind: &'static str,
    /// What is in it.
    pub elements: BTreeSet<Element>,
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The parts of its key.
    pub key: Vec<Field>,
    /// The parts of its value; none in a set.
    pub value: Vec<Field>,
}

/// A part of a key or of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// An address.
    Address(Ipv4Addr),
    /// All addresses of an IPv4 subnet.
    Within(Subnet),
    /// A protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
}

impl Set {
    /// What a look at the kernel shows of it: its elements, sorted.
    pub(super) fn marks(&self) -> (String, Vec<String>) {
        let mut elements: Vec<String> = self.elements.iter().map(Element::mark).collect();
        elements.sort();
        (format!("@{}", self.name), elements)
    }
}

impl Element {
    fn mark(&self) -> String {
        let bytes = |fields: &[Field], end: fn(&Field) -> [u8; 4]| fields.iter().flat_map(end).collect::<Vec<u8>>();
        mark(&bytes(&self.key, Field::first), &bytes(&self.key, Field::last), &bytes(&self.value, Field::first))
    }
}

/// What is seen of an element with these bytes: where its key begins and ends, and its value. Each part has four bytes, in
/// network order with zeros behind (`nft_set_pipapo`).
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

/// Four bytes of a mark's key, from the one with this number on.
pub fn key_part(mark: &str, part: usize) -> Option<[u8; 4]> {
    let digits = mark.split('-').next()?.get(8 * part..8 * part + 8)?;
    u32::from_str_radix(digits, 16).ok().map(u32::to_be_bytes)
}

impl Field {
    fn first(&self) -> [u8; 4] {
        match self {
            Self::Address(address) => address.octets(),
            Self::Within(subnet) => octets(subnet.network()),
            Self::Protocol(protocol) => [protocol.number(), 0, 0, 0],
            Self::Port(port) => {
                let [high, low] = port.to_be_bytes();
                [high, low, 0, 0]
            }
        }
    }

    fn last(&self) -> [u8; 4] {
        match self {
            Self::Within(subnet) => octets(subnet.last()),
            other => other.first(),
        }
    }
}

fn octets(address: std::net::IpAddr) -> [u8; 4] {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
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
            Self::Within(subnet) => write!(f, "{subnet}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}
