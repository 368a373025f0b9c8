//! The only translator between the wire and the core's types. What comes from outside is parsed once, here, into types
//! that can't be wrong; what can't be parsed is a [`WireError`] that names the field.

use std::net::{IpAddr, SocketAddr};

use overlay::ledger::Rest;
use overlay::model::addr::{Mac, Subnet};
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::host::HostInfo;
use overlay::model::id::{IdError, NetworkId, Vni};
use overlay::model::intent::{Attachment, NetnsRef, Seat};
use overlay::model::lease::{AddressLease, BlockLease, Holder, Version};
use overlay::model::network::{BlockId, Driver, Name, Network, Range, Settings};
use overlay::model::publish::{HostPort, Protocol, Target};
use overlay::model::record::{NetworkMembership, Run, Statement};
use overlay_proto::v1 as pb;
use overlay_proto::v1::settings::Auxiliary;

mod denial;
mod keys;
mod links;
mod members;
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
            stamp: required("stamp", wire.stamp.as_ref())?,
            phase: Wire::from_wire(&wire.phase)?,
            founder: founder_from_wire(&wire.founder)?,
        })
    }
}

impl Wire<pb::Range> for Range {
    fn to_wire(&self) -> pb::Range {
        let pool = self.pool.map_or_else(String::new, |pool| pool.to_string());
        pb::Range { subnet: self.subnet.to_string(), gateway: self.gateway.to_string(), pool }
    }

    fn from_wire(wire: &pb::Range) -> Result<Self, WireError> {
        let subnet: Subnet = parse("subnet", &wire.subnet)?;
        let gateway: IpAddr = parse("gateway", &wire.gateway)?;
        let range = Self::new(subnet, Some(gateway)).map_err(|e| wrong("range")(&e))?;
        if wire.pool.is_empty() {
            return Ok(range);
        }
        range.with_pool(parse("pool", &wire.pool)?).map_err(|e| wrong("pool")(&e))
    }
}

impl Wire<pb::Network> for Network {
    fn to_wire(&self) -> pb::Network {
        pb::Network {
            id: self.id.as_bytes().to_vec(),
            name: self.name.to_string(),
            ranges: self.ranges.iter().map(Wire::to_wire).collect(),
            created: self.created,
            creator: self.creator.as_bytes().to_vec(),
            since: self.since,
            settings: Some(self.settings.to_wire()),
        }
    }

    fn from_wire(wire: &pb::Network) -> Result<Self, WireError> {
        match wire.ranges.len() {
            0 => return Err(WireError::Missing("ranges")),
            1..=MAX_RANGES => {}
            more => return Err(wrong("ranges")(&format!("{more} are more than {MAX_RANGES}"))),
        }
        Ok(Self {
            id: id("id", &wire.id)?,
            name: parse("name", &wire.name)?,
            ranges: wire.ranges.iter().map(Range::from_wire).collect::<Result<_, _>>()?,
            created: counted("created", wire.created)?,
            creator: id("creator", &wire.creator)?,
            since: Some(wire.since).filter(|since| *since <= LAST_SECOND).ok_or_else(|| wrong("since")(&wire.since))?,
            settings: wire.settings.as_ref().map_or_else(|| Ok(Settings::default()), Settings::from_wire)?,
        })
    }
}

impl Wire<pb::Settings> for Settings {
    fn to_wire(&self) -> pb::Settings {
        let driver = match self.driver {
            Driver::Vxlan => pb::Driver::Vxlan,
            Driver::Bridge => pb::Driver::Bridge,
        };
        let auxiliary =
            |(address, name): (&IpAddr, &Name)| Auxiliary { address: address.to_string(), name: name.to_string() };
        pb::Settings {
            driver: driver.into(),
            internal: self.internal,
            routed: !self.masquerade,
            mtu: self.mtu.map_or(0, u32::from),
            auxiliary: self.auxiliary.iter().map(auxiliary).collect(),
            labels: self.labels.clone().into_iter().collect(),
            isolated: !self.icc,
        }
    }

    fn from_wire(wire: &pb::Settings) -> Result<Self, WireError> {
        let driver = match wire.driver() {
            pb::Driver::Unspecified | pb::Driver::Vxlan => Driver::Vxlan,
            pb::Driver::Bridge => Driver::Bridge,
        };
        let auxiliary = |a: &Auxiliary| Ok((parse("address", &a.address)?, parse("name", &a.name)?));
        let settings = Self {
            driver,
            internal: wire.internal,
            masquerade: !wire.routed,
            icc: !wire.isolated,
            mtu: if wire.mtu == 0 { None } else { Some(narrow("mtu", wire.mtu)?) },
            auxiliary: wire.auxiliary.iter().map(auxiliary).collect::<Result<_, WireError>>()?,
            labels: wire.labels.clone().into_iter().collect(),
        };
        settings.checked().map_err(|e| wrong("settings")(&e))
    }
}

impl Wire<pb::Membership> for NetworkMembership {
    fn to_wire(&self) -> pb::Membership {
        pb::Membership { network: Some(self.network.to_wire()), vni: self.vni.map_or(0, Vni::get) }
    }

    fn from_wire(wire: &pb::Membership) -> Result<Self, WireError> {
        Ok(Self { network: required("network", wire.network.as_ref())?, vni: Vni::new(wire.vni) })
    }
}

impl Wire<pb::Version> for Version {
    fn to_wire(&self) -> pb::Version {
        pb::Version { epoch: self.epoch, count: self.count }
    }

    fn from_wire(wire: &pb::Version) -> Result<Self, WireError> {
        Ok(Self { epoch: counted("epoch", wire.epoch)?, count: counted("count", wire.count)? })
    }
}

impl Wire<pb::Block> for BlockId {
    fn to_wire(&self) -> pb::Block {
        pb::Block { range: self.range.into(), index: self.index.into() }
    }

    fn from_wire(wire: &pb::Block) -> Result<Self, WireError> {
        Ok(Self { range: narrow("range", wire.range)?, index: narrow("index", wire.index)? })
    }
}

impl Wire<pb::holding::Run> for Run {
    fn to_wire(&self) -> pb::holding::Run {
        pb::holding::Run { start: Some(self.start.to_wire()), len: self.len.into(), epoch: self.epoch }
    }

    fn from_wire(wire: &pb::holding::Run) -> Result<Self, WireError> {
        Ok(Self {
            start: required("start", wire.start.as_ref())?,
            len: narrow("len", wire.len)?,
            epoch: counted("epoch", wire.epoch)?,
        })
    }
}

impl Wire<pb::Statement> for Statement {
    fn to_wire(&self) -> pb::Statement {
        use pb::statement::{Delegate, Kind, Return, Transfer};
        let kind = match self {
            Self::Transfer { block, epoch, to } => {
                Kind::Transfer(Transfer { block: Some(block.to_wire()), epoch: *epoch, to: to.as_bytes().to_vec() })
            }
            Self::Delegate { address, version, to } => Kind::Delegate(Delegate {
                address: address.to_string(),
                version: Some(version.to_wire()),
                to: to.as_bytes().to_vec(),
            }),
            Self::Return { address, version } => {
                Kind::Return(Return { address: address.to_string(), version: Some(version.to_wire()) })
            }
        };
        pb::Statement { kind: Some(kind) }
    }

    fn from_wire(wire: &pb::Statement) -> Result<Self, WireError> {
        use pb::statement::Kind;
        Ok(match wire.kind.as_ref().ok_or(WireError::Missing("kind"))? {
            Kind::Transfer(t) => Self::Transfer {
                block: required("block", t.block.as_ref())?,
                epoch: counted("epoch", t.epoch)?,
                to: id("to", &t.to)?,
            },
            Kind::Delegate(d) => Self::Delegate {
                address: parse("address", &d.address)?,
                version: required("version", d.version.as_ref())?,
                to: id("to", &d.to)?,
            },
            Kind::Return(r) => Self::Return {
                address: parse("address", &r.address)?,
                version: required("version", r.version.as_ref())?,
            },
        })
    }
}

impl Wire<pb::Endpoint> for Endpoint {
    fn to_wire(&self) -> pb::Endpoint {
        let assigned = |a: &Assigned| pb::Assigned { address: a.address.to_string(), lease: Some(a.lease.to_wire()) };
        pb::Endpoint {
            id: self.id.as_bytes().to_vec(),
            network: self.network.as_bytes().to_vec(),
            name: self.name.to_string(),
            aliases: self.aliases.iter().map(ToString::to_string).collect(),
            addresses: self.addresses.iter().map(assigned).collect(),
            mac: self.mac.as_bytes().to_vec(),
            created: self.created,
        }
    }

    fn from_wire(wire: &pb::Endpoint) -> Result<Self, WireError> {
        let assigned = |a: &pb::Assigned| -> Result<Assigned, WireError> {
            Ok(Assigned { address: parse("address", &a.address)?, lease: required("lease", a.lease.as_ref())? })
        };
        if wire.addresses.is_empty() {
            return Err(WireError::Missing("addresses"));
        }
        let mac: [u8; 6] = wire.mac.as_slice().try_into().map_err(|_| wrong("mac")(&"not six bytes"))?;
        Ok(Self {
            id: id("id", &wire.id)?,
            network: id("network", &wire.network)?,
            name: parse("name", &wire.name)?,
            aliases: wire.aliases.iter().map(|a| parse("alias", a)).collect::<Result<_, _>>()?,
            addresses: wire.addresses.iter().map(assigned).collect::<Result<_, _>>()?,
            mac: Mac::new(mac).ok_or_else(|| wrong("mac")(&"not unicast"))?,
            created: counted("created", wire.created)?,
        })
    }
}

impl Wire<pb::Attachment> for Attachment {
    fn to_wire(&self) -> pb::Attachment {
        pb::Attachment {
            endpoint: Some(self.endpoint.to_wire()),
            netns_path: self.netns.path.to_string_lossy().into_owned(),
            netns_cookie: self.netns.cookie,
            ifname: self.ifname.to_string(),
            published: self.published.iter().map(|(host, target)| (*host, target.clone()).to_wire()).collect(),
            metric: self.metric,
        }
    }

    fn from_wire(wire: &pb::Attachment) -> Result<Self, WireError> {
        Ok(Self {
            endpoint: required("endpoint", wire.endpoint.as_ref())?,
            netns: NetnsRef { path: wire.netns_path.clone().into(), cookie: wire.netns_cookie },
            ifname: parse("ifname", &wire.ifname)?,
            published: wire.published.iter().map(<(HostPort, Target)>::from_wire).collect::<Result<_, _>>()?,
            metric: wire.metric,
        })
    }
}

impl Wire<pb::Published> for (HostPort, Target) {
    fn to_wire(&self) -> pb::Published {
        let (host, target) = self;
        pb::Published {
            protocol: host.protocol.number().into(),
            address: host.address.map_or_else(String::new, |address| address.to_string()),
            host_port: host.port.into(),
            port: target.port.into(),
            via: target.via.into(),
            allowed: target.allowed.iter().map(ToString::to_string).collect(),
        }
    }

    fn from_wire(wire: &pb::Published) -> Result<Self, WireError> {
        let host = HostPort {
            protocol: protocol(wire.protocol)?,
            address: if wire.address.is_empty() { None } else { Some(parse("address", &wire.address)?) },
            port: port("host_port", wire.host_port)?,
        };
        let target = Target {
            port: port("port", wire.port)?,
            via: port("via", wire.via)?,
            allowed: wire.allowed.iter().map(|text| parse("allowed", text)).collect::<Result<_, _>>()?,
        };
        Ok((host, target))
    }
}

impl Wire<pb::Seat> for Seat {
    fn to_wire(&self) -> pb::Seat {
        pb::Seat { vni: self.vni.get(), transit: self.transit.into() }
    }

    fn from_wire(wire: &pb::Seat) -> Result<Self, WireError> {
        let vni = Vni::new(wire.vni).ok_or_else(|| wrong("vni")(&wire.vni))?;
        Ok(Self { vni, transit: narrow("transit", wire.transit)? })
    }
}

impl Wire<pb::Lease> for BlockLease {
    fn to_wire(&self) -> pb::Lease {
        let version = Version { epoch: self.epoch, count: 0 };
        pb::Lease { version: Some(version.to_wire()), holder: self.holder.as_bytes().to_vec() }
    }

    fn from_wire(wire: &pb::Lease) -> Result<Self, WireError> {
        let version: Version = required("version", wire.version.as_ref())?;
        Ok(Self { epoch: version.epoch, holder: id("holder", &wire.holder)? })
    }
}

impl Wire<pb::Lease> for AddressLease {
    fn to_wire(&self) -> pb::Lease {
        let holder = match self.holder {
            Holder::Home => Vec::new(),
            Holder::Host(host) => host.as_bytes().to_vec(),
        };
        pb::Lease { version: Some(self.version.to_wire()), holder }
    }

    fn from_wire(wire: &pb::Lease) -> Result<Self, WireError> {
        let holder = if wire.holder.is_empty() { Holder::Home } else { Holder::Host(id("holder", &wire.holder)?) };
        Ok(Self { version: required("version", wire.version.as_ref())?, holder })
    }
}

impl Wire<pb::Rest> for Rest {
    fn to_wire(&self) -> pb::Rest {
        pb::Rest { name: self.name.as_ref().map_or_else(String::new, Name::to_string), since: self.since }
    }

    fn from_wire(wire: &pb::Rest) -> Result<Self, WireError> {
        let name = if wire.name.is_empty() { None } else { Some(parse("name", &wire.name)?) };
        Ok(Self { name, since: wire.since })
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
