//! Sets and maps of a table: what rules look packets up in, however many there are.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::Family;
use super::fields::FieldType;
use super::observed::{ObservedTable, StoredElement};
use crate::model::addr::{IfName, Mac, Subnet};
use crate::model::publish::Protocol;

/// What a set or map is: its name, and what its elements are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetDefinition {
    /// Its name in the table.
    pub name: &'static str,
    /// The parts of each key.
    pub key: &'static [FieldType],
    /// The parts of each value; none in a set.
    pub value: &'static [FieldType],
    /// How it holds its elements.
    pub holds: Holding,
}

/// How a set or map holds its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Each key is looked up as it is.
    Keys,
    /// A part of a key may stand for a range.
    Ranges,
    /// Packets put elements into it.
    FromPackets {
        /// How many it takes.
        size: u32,
        /// How long each stays.
        timeout: Duration,
    },
}

/// A set, or a map if its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it is.
    pub definition: SetDefinition,
    /// What is in it; nothing in one that packets fill.
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

impl SetDefinition {
    /// A set of keys.
    pub const fn set(name: &'static str, key: &'static [FieldType]) -> Self {
        Self { name, key, value: &[], holds: Holding::Keys }
    }

    /// A map from keys to values.
    pub const fn map(name: &'static str, key: &'static [FieldType], value: &'static [FieldType]) -> Self {
        Self { name, key, value, holds: Holding::Keys }
    }

    /// The same, with ranges in its keys.
    pub const fn interval(self) -> Self {
        Self { holds: Holding::Ranges, ..self }
    }

    /// The same, filled by packets: so many elements, each for so long.
    pub const fn dynamic(self, size: u32, timeout: Duration) -> Self {
        Self { holds: Holding::FromPackets { size, timeout }, ..self }
    }

    /// A set or map like this with these elements.
    pub fn with(self, elements: impl IntoIterator<Item = Element>) -> Set {
        let set = Set { definition: self, elements: elements.into_iter().collect() };
        debug_assert!(set.elements.iter().all(|element| self.fits(element)), "{self} has other elements: {set:?}");
        set
    }

    /// Are the parts of an element of these types?
    fn fits(&self, element: &Element) -> bool {
        let are = |fields: &[Field], types: &[FieldType]| fields.iter().map(Field::kind).eq(types.iter().copied());
        are(&element.key, self.key) && are(&element.value, self.value)
    }

    /// The element that the kernel stores like this, if it is one that this program makes.
    pub fn element(&self, stored: &StoredElement) -> Option<Element> {
        stored.element(self.key, self.value)
    }

    fn noun(&self) -> &'static str {
        if self.value.is_empty() { "set" } else { "map" }
    }
}

impl Set {
    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        self.definition.name
    }

    /// Its elements as the kernel stores them.
    pub(crate) fn stored(&self) -> BTreeSet<StoredElement> {
        self.elements.iter().map(Element::stored).collect()
    }

    /// Lines for `nft -f` that give it just its elements, in our table of this family.
    pub fn script(&self, family: Family) -> String {
        let (noun, name) = (self.definition.noun(), self.name());
        let flushed = format!("flush {noun} {family} overlay {name}\n");
        if self.elements.is_empty() {
            return flushed;
        }
        flushed + &format!("add element {family} overlay {name} {{ {} }}\n", self.list())
    }

    /// Its elements, as `nft -f` takes them.
    pub(super) fn list(&self) -> String {
        self.elements.iter().map(Element::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The same set with those elements besides that the kernel has and that are worth keeping.
    pub(super) fn with(&self, observed: &ObservedTable, is_kept: impl Fn(&Element) -> bool) -> Self {
        let stored = observed.sets.get(self.name()).into_iter().flatten();
        let kept = stored.filter_map(|stored| self.definition.element(stored)).filter(is_kept);
        self.definition.with(self.elements.iter().cloned().chain(kept))
    }
}

impl Element {
    /// One of a set.
    pub fn of(key: impl IntoIterator<Item = Field>) -> Self {
        Self { key: key.into_iter().collect(), value: Vec::new() }
    }

    /// As the kernel stores it.
    pub fn stored(&self) -> StoredElement {
        let bytes = |fields: &[Field], end: fn(&Field) -> Vec<u8>| fields.iter().flat_map(end).collect();
        StoredElement {
            first: bytes(&self.key, Field::first),
            last: bytes(&self.key, Field::last),
            value: bytes(&self.value, Field::first),
        }
    }

    /// All its parts.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.key.iter().chain(&self.value)
    }
}

/// As `nft` takes it, without its elements: `map ports { type inet_proto . inet_service : ipv4_addr . inet_service;`.
impl fmt::Display for SetDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |name: fn(&FieldType) -> &'static str| {
            let joined = |types: &[FieldType]| types.iter().map(name).collect::<Vec<_>>().join(" . ");
            if self.value.is_empty() { joined(self.key) } else { [self.key, self.value].map(joined).join(" : ") }
        };
        write!(f, "{} {} {{ ", self.noun(), self.name)?;
        // Bytes are a type that has a name only by what has it.
        match self.key.contains(&FieldType::Bytes) {
            true => write!(f, "typeof {};", joined(FieldType::expression))?,
            false => write!(f, "type {};", joined(FieldType::name))?,
        }
        match self.holds {
            Holding::Keys => Ok(()),
            Holding::Ranges => f.write_str(" flags interval;"),
            Holding::FromPackets { size, timeout } => {
                write!(f, " size {size}; flags dynamic,timeout; timeout {}s;", timeout.as_secs())
            }
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |fields: &[Field]| fields.iter().map(Field::to_string).collect::<Vec<_>>().join(" . ");
        f.write_str(&joined(&self.key))?;
        if self.value.is_empty() { Ok(()) } else { write!(f, " : {}", joined(&self.value)) }
    }
}
