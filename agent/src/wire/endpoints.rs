//! Endpoints, what is published of them, and what a host keeps for them.

use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::id::Vni;
use overlay::model::intent::{Attachment, NetnsRef, Seat};
use overlay::model::publish::{HostPort, Target};
use overlay_proto::v1 as pb;

use super::{Wire, WireError, counted, id, narrow, parse, port, protocol, required, wrong};

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
