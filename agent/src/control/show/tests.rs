use std::net::IpAddr;

use overlay::ledger::{Change, Ledger};
use overlay::model::id::NetworkId;
use overlay::model::lease::{AddressLease, BlockLease, Holder, Version};
use overlay::model::network::{Network, Range, Settings};

use super::*;

const ME: HostId = HostId::from_bytes([1; 16]);
const OTHER: HostId = HostId::from_bytes([2; 16]);

fn shown(cluster: &Cluster) -> Shown<'_> {
    Shown { cluster, intents: Arc::default(), me: ME }
}

#[test]
fn an_address_that_was_lent_in_an_earlier_epoch_of_its_block_is_not_shown_as_lent() {
    let range = Range::new("172.38.0.0/16".parse().expect("a subnet"), None).expect("a good one");
    let id = NetworkId::from_bytes([7; 16]);
    let name = "net".parse().expect("a label");
    let network =
        Network { id, name, ranges: vec![range], created: 1, creator: ME, since: 0, settings: Settings::default() };
    let address = |last| IpAddr::from([172, 38, 0, last]);
    let block = network.blocks().next().expect("it has some");
    let lent = |epoch| AddressLease { version: Version { epoch, count: 1 }, holder: Holder::Host(OTHER) };
    let mut ledger = Ledger::new(ME);
    ledger.apply(&[
        Change::Open(network),
        Change::Block(id, block, BlockLease { epoch: 2, holder: ME }),
        Change::Address(id, address(11), lent(1)),
        Change::Address(id, address(12), lent(2)),
    ]);
    let cluster = Cluster::default();
    let rows = shown(&cluster).leases(&ledger.accounts()[&id]);
    let rows: Vec<(&str, &str)> = rows.iter().map(|row| (row.kind.as_str(), row.first.as_str())).collect();
    assert_eq!(rows, [("block", "172.38.0.0"), ("address", "172.38.0.12")]);
}

#[test]
fn a_member_that_was_never_heard_is_not_said_to_be_silent_since_the_start() {
    let cluster = Cluster::default();
    let rows = shown(&cluster).hosts(&[OTHER].into(), &BTreeMap::new(), &LastSeen::default());
    assert_eq!(rows.len(), 1);
    assert!(rows[0].silent_since_start && rows[0].state == "gone", "{rows:?}");
}

#[test]
fn each_limit_of_gossip_is_shown_with_its_use() {
    use overlay_gossip::{Limit, Usage};
    let shown = Limit::ALL.map(|limit| gossip_limit(Usage { limit, used: limit.most() * 4 / 5 }));
    assert_eq!(
        shown.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["digest_bytes", "incarnations", "value_bytes"]
    );
    assert_eq!(shown[0], pb::GossipLimit { name: "digest_bytes".to_owned(), used: 48_000, limit: 60_000, near: true });
    assert!(!gossip_limit(Usage { limit: Limit::Digest, used: 47_999 }).near);
}
