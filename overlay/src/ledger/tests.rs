//! The laws of the ledger. `world` is a few ledgers and a bad network between them; `chaos` lets anything happen in it;
//! the others are single rules.

use super::*;
use crate::model::network::{BlockId, Name, Range, Settings};

mod allocation;
mod chaos;
mod forgetting;
mod founding;
mod handover;
mod hearing;
mod model;
mod order;
mod world;

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

fn name(text: &str) -> Name {
    text.parse().expect("a label")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn block(index: u16) -> BlockId {
    BlockId { range: 0, index }
}

fn network(number: u8, subnet: &str) -> Network {
    Network {
        id: NetworkId::from_bytes([number; 16]),
        name: name("net"),
        ranges: vec![Range::new(subnet.parse().expect("a subnet"), None).expect("a range")],
        created: 1,
        creator: host(0),
        since: 0,
        settings: Settings::default(),
    }
}

/// The ledger of host 0, the first of a cluster, which knows host 1.
fn founder() -> Ledger {
    let mut ledger = Ledger::new(host(0));
    ledger.apply(&[Change::Activation(Activation::Established), Change::Member(host(1))]);
    ledger
}

/// All addresses that an endpoint can have.
fn assignable(network: &Network) -> Vec<IpAddr> {
    network.blocks().flat_map(|b| network.assignable_in(b).collect::<Vec<_>>()).collect()
}
