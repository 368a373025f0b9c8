//! Links.

use overlay::model::links::{Link, LinkDecision, Links, Service};
use overlay_proto::v1 as pb;

use super::{Wire, WireError, counted, parse, port, protocol};

impl Wire<pb::Link> for (Link, LinkDecision) {
    fn to_wire(&self) -> pb::Link {
        let (link, decision) = self;
        pb::Link {
            from: link.from.to_string(),
            to: link.to.to_string(),
            protocol: link.service.map_or(0, |service| service.protocol.number().into()),
            port: link.service.map_or(0, |service| service.port.into()),
            at: decision.at,
            removed: decision.removed,
        }
    }

    fn from_wire(wire: &pb::Link) -> Result<Self, WireError> {
        let service = match (wire.protocol, wire.port) {
            (0, 0) => None,
            (number, at) => Some(Service { protocol: protocol(number)?, port: port("port", at)? }),
        };
        let link = Link { from: parse("from", &wire.from)?, to: parse("to", &wire.to)?, service };
        Ok((link, LinkDecision { at: counted("at", wire.at)?, removed: wire.removed }))
    }
}

impl Wire<pb::Links> for Links {
    fn to_wire(&self) -> pb::Links {
        pb::Links { links: self.decisions().map(|(link, decision)| (link.clone(), *decision).to_wire()).collect() }
    }

    fn from_wire(wire: &pb::Links) -> Result<Self, WireError> {
        wire.links.iter().map(<(Link, LinkDecision)>::from_wire).collect()
    }
}
