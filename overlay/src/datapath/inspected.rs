//! What the kernel has for a network or an endpoint, for people to read: more than a plan needs to know, and nothing is decided by it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::desired::Prefixed;
use super::firewall::Element;
use crate::model::addr::Mac;
use crate::model::id::Vni;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// What it is, in the kernel's word: `veth`, `bridge`, `vxlan`; empty for one of hardware or the loopback interface.
    pub kind: String,
    /// Of a veth pair the number of the other end, in its namespace.
    pub peer: Option<u32>,
    /// The bridge that it is a port of.
    pub controller: Option<u32>,
    /// Its MAC, if it has one.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Is it up?
    pub up: bool,
    /// Its addresses, sorted.
    pub addresses: Vec<Prefixed>,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// What has passed an interface since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// A row of a forwarding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is forwarded.
    pub mac: Mac,
    /// By which interface.
    pub interface: String,
    /// Of the tunnel's table: to which VTEP, and under which VNI and port if not its own. `None` for the bridge's table.
    pub tunnel: Option<(Option<IpAddr>, Option<u16>, Option<Vni>)>,
    /// The interface's own MAC, not one behind it.
    pub local: bool,
}

/// What is in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspected {
    /// All interfaces, by their numbers.
    pub interfaces: Vec<InterfaceInfo>,
    /// Both forwarding tables.
    pub entries: Vec<Entry>,
    /// What ARP is answered from.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// The rules, with what they have counted, as `nft` lists them.
    pub rules: String,
    /// The elements of the sets and maps of our tables.
    pub elements: Vec<ShownElement>,
}

/// An element of a set or map, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownElement {
    /// The set or map that it is in, as nft calls it: `map published`.
    pub set: String,
    /// The element.
    pub element: Element,
    /// How long it stays; `None` for one that stays until it is removed.
    pub expires: Option<Duration>,
}

/// As `nft` lists it.
impl fmt::Display for ShownElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.set, self.element)?;
        self.expires.map_or(Ok(()), |left| write!(f, " expires {}s", left.as_secs()))
    }
}

/// The end of a veth pair with this number, if it is one of these.
pub fn other_end<'a>(interfaces: &'a [InterfaceInfo], of: &InterfaceInfo) -> Option<&'a InterfaceInfo> {
    interfaces.iter().find(|other| Some(other.index) == of.peer && other.peer == Some(of.index))
}
