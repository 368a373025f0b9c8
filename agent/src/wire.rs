//! The translator between what agents and disks exchange and the core's types. What comes from outside is parsed once, here, into types
//! that can't be wrong; what can't be parsed is a [`WireError`] that names the field.

use std::net::{IpAddr, SocketAddr};

use overlay::model::host::HostInfo;
use overlay::model::id::{IdError, NetworkId};
use overlay::model::publish::Protocol;
use overlay_proto::v1 as pb;

mod denial;
mod endpoints;
mod keys;
mod leases;
mod links;
mod members;
mod networks;
mod parts;

pub use keys::encode_record;
pub use members::{boot_from_wire, boot_to_wire, founder_from_wire, founder_to_wire};
pub use parts::{RecordPart, assemble, decode_record};

/// A message that says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A part is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A part can't be what it should be.
    #[error("`{field}` is wrong: {why}")]
    Wrong {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// How many subnets a network may have: their numbers have to fit into a byte, and its definition into one value.
const MAX_RANGES: usize = 16;

/// The highest counter that is taken from another host. No host reaches it by counting, and one that hears it can still count on
/// without overflow.
const MAX_COUNT: u64 = 1 << 62;

/// The last second of the year 9999, since 1970: no later one can be written (RFC 3339).
const LAST_SECOND: u64 = 253_402_300_799;

/// MTUs of an underlay in bytes: every host of the internet takes a datagram of 576 (RFC 791, section 3.1), and none is
/// longer than its length can say.
const UNDERLAY_MTUS: std::ops::RangeInclusive<u32> = 576..=65_535;

fn wrong(field: &'static str) -> impl Fn(&dyn std::fmt::Display) -> WireError {
    move |why| WireError::Wrong { field, why: why.to_string() }
}

fn parse<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, WireError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| wrong(field)(&e))
}

fn id<T>(field: &'static str, bytes: &[u8]) -> Result<T, WireError>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdError>,
{
    T::try_from(bytes).map_err(|e| wrong(field)(&e))
}

fn narrow<T: TryFrom<u32>>(field: &'static str, number: u32) -> Result<T, WireError> {
    T::try_from(number).map_err(|_| wrong(field)(&format!("{number} is out of range")))
}

fn counted(field: &'static str, number: u64) -> Result<u64, WireError> {
    if number > MAX_COUNT { Err(wrong(field)(&format!("{number} is out of range"))) } else { Ok(number) }
}

fn port(field: &'static str, number: u32) -> Result<u16, WireError> {
    match narrow(field, number)? {
        0 => Err(wrong(field)(&"a port is 1 to 65535")),
        port => Ok(port),
    }
}

/// The protocol with this number in IP headers.
fn protocol(number: u32) -> Result<Protocol, WireError> {
    Protocol::numbered(number).ok_or_else(|| wrong("protocol")(&number))
}

/// Where tunnelled packets can be sent. A multicast or broadcast address would flood them, a local one would send them back to the
/// host that believes it.
fn vtep(text: &str) -> Result<IpAddr, WireError> {
    let address: IpAddr = parse("vtep", text)?;
    let meant = address.to_canonical();
    let broadcast = meant == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    if meant.is_unspecified() || meant.is_loopback() || meant.is_multicast() || broadcast {
        return Err(wrong("vtep")(&format!("{address} is not the address of another host")));
    }
    Ok(address)
}

/// A value that is on the wire as `W`.
pub trait Wire<W>: Sized {
    /// Onto the wire.
    fn to_wire(&self) -> W;
    /// From the wire.
    ///
    /// # Errors
    /// When a part is missing or wrong.
    fn from_wire(wire: &W) -> Result<Self, WireError>;
}

fn required<T: Wire<W>, W>(field: &'static str, wire: Option<&W>) -> Result<T, WireError> {
    T::from_wire(wire.ok_or(WireError::Missing(field))?)
}

impl Wire<pb::HostInfo> for HostInfo {
    fn to_wire(&self) -> pb::HostInfo {
        pb::HostInfo {
            name: self.name.to_string(),
            vtep: self.vtep.to_string(),
            vxlan_port: self.vxlan_port.into(),
            peer: self.peer.to_string(),
            underlay_mtu: self.underlay_mtu,
            routed: self.routed.iter().map(ToString::to_string).collect(),
            stamp: Some(self.stamp.to_wire()),
            phase: self.phase.to_wire(),
            founder: founder_to_wire(self.founder),
        }
    }

    fn from_wire(wire: &pb::HostInfo) -> Result<Self, WireError> {
        let peer: SocketAddr = parse("peer", &wire.peer)?;
        port("peer", peer.port().into())?;
        if !UNDERLAY_MTUS.contains(&wire.underlay_mtu) {
            return Err(wrong("underlay_mtu")(&format!("{} is out of range", wire.underlay_mtu)));
        }
        Ok(Self {
            name: parse("name", &wire.name)?,
            vtep: vtep(&wire.vtep)?,
            vxlan_port: port("vxlan_port", wire.vxlan_port)?,
            peer,
            underlay_mtu: wire.underlay_mtu,
            routed: wire.routed.iter().map(|text| parse("routed", text)).collect::<Result<_, _>>()?,
            stamp: required("stamp", wire.stamp.as_ref())?,
            phase: Wire::from_wire(&wire.phase)?,
            founder: founder_from_wire(&wire.founder)?,
        })
    }
}

/// The network that a request of a peer is about.
///
/// # Errors
/// When it is no id.
pub fn network_id(bytes: &[u8]) -> Result<NetworkId, WireError> {
    id("network", bytes)
}

#[cfg(test)]
mod tests;
