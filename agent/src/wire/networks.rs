//! Networks, and the hosts and endpoints in them.

use std::net::IpAddr;

use overlay::model::addr::Subnet;
use overlay::model::id::Vni;
use overlay::model::network::{Driver, Name, Network, Range, Settings};
use overlay::model::record::NetworkMembership;
use overlay_proto::v1 as pb;
use overlay_proto::v1::settings::Auxiliary;

use super::{LAST_SECOND, MAX_RANGES, Wire, WireError, counted, id, narrow, parse, required, wrong};

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
