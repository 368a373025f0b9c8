//! Values that the tests of several operations begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Request, State, decide};
use crate::ledger::{Input, Ledger};
use crate::model::addr::Mac;
use crate::model::endpoint::{Assigned, Endpoint};
use crate::model::host::{HostInfo, Phase};
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::intent::{Attachment, Intents, NetnsRef};
use crate::model::lease::Version;
use crate::model::member::Stamp;
use crate::model::network::{Name, Network, Range, Settings};

pub(super) const ME: HostId = HostId::from_bytes([1; 16]);

pub(super) fn label(text: &str) -> Name {
    text.parse().expect("a label")
}

/// Network `net1` with 10.1.0.0/16, and so on.
pub(super) fn network(number: u8) -> Network {
    let subnet = format!("10.{number}.0.0/16").parse().expect("a subnet");
    Network {
        id: NetworkId::from_bytes([number; 16]),
        name: label(&format!("net{number}")),
        ranges: vec![Range::new(subnet, None).expect("a range")],
        created: 1,
        creator: ME,
        since: 0,
        settings: Settings::default(),
    }
}

pub(super) fn attachment(number: u8, network: NetworkId) -> Attachment {
    let address = [10, network.as_bytes()[0], 0, number + 1].into();
    let endpoint = Endpoint {
        id: EndpointId::from_bytes([number; 16]),
        network,
        name: label(&format!("web{number}")),
        aliases: BTreeSet::new(),
        addresses: vec![Assigned { address, lease: Version { epoch: 1, count: 0 } }],
        mac: Mac::of_address(address),
        created: 2,
    };
    let netns = NetnsRef { path: format!("/run/netns/c{number}").into(), cookie: number.into() };
    Attachment { endpoint, netns, ifname: "eth0".parse().expect("a name"), metric: 0, published: BTreeMap::new() }
}

pub(super) fn info() -> HostInfo {
    HostInfo {
        name: label("alpha"),
        vtep: [192, 0, 2, 1].into(),
        vxlan_port: 4789,
        peer: ([192, 0, 2, 1], 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: Stamp::default(),
        phase: Phase::Joining,
        founder: None,
    }
}

/// A host that has founded its cluster alone.
pub(super) fn founder() -> State {
    let mut state = State::new(Ledger::new(ME), Intents::default(), BTreeMap::new(), info());
    for input in [Input::Booted { nonce: 1 }, Input::Found] {
        make(&mut state, &input);
    }
    state
}

/// Decides, and makes what was decided.
pub(super) fn make<R: Request>(state: &mut State, request: &R) -> R::Answer
where
    R::Refusal: std::fmt::Debug,
{
    let decision = decide(state, request, 0).expect("nothing speaks against it");
    state.apply(&decision.changes);
    decision.answer
}

/// Puts an endpoint there without asking any rule.
pub(super) fn put(state: &mut State, attachment: Attachment) {
    let network = attachment.endpoint.network;
    let seat = state.intents.seat(network).expect("a few networks");
    let change = super::Change::Attach(Arc::new(attachment));
    state.apply(&[change, super::Change::Seat(network, Some(seat))]);
}
