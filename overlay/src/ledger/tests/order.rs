//! In whatever order, and however often, leases are heard of: the highest wins.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::model::lease::{AddressLease, Holder};

const BLOCKS: u16 = 4;

/// A ledger that knows of the network, and of no lease in it. It is `host(0)`'s.
fn newcomer() -> (Ledger, NetworkId) {
    let mut ledger = founder();
    let network = network(7, "10.0.0.0/28");
    let step = ledger.step(&Input::Learn(network.clone()), 0);
    ledger.apply(&step.changes);
    (ledger, network.id)
}

fn hear<'a>(mut ledger: Ledger, inputs: impl IntoIterator<Item = &'a Input>) -> Ledger {
    for input in inputs {
        let step = ledger.step(input, 1_000);
        ledger.apply(&step.changes);
    }
    ledger
}

/// The leases that a block has had, one after the other, each as it is heard of first-hand: from its holder; or, where
/// it is this host's, from the one that gave it.
fn said_of_blocks(network: NetworkId, hands: &[(u16, u8)]) -> Vec<(BlockId, BlockLease, Input)> {
    let mut last: BTreeMap<u16, (u64, HostId)> = BTreeMap::new();
    let mut said = Vec::new();
    for (index, holder) in hands {
        let (epoch, giver) = last.get(index).copied().unwrap_or((0, host(9)));
        let (epoch, to, block) = (epoch + 1, host(*holder), block(*index));
        if to == giver {
            continue;
        }
        last.insert(*index, (epoch, to));
        let stamp = Stamp::default();
        let input = if to == host(0) {
            Input::Stated { network, from: giver, stamp, statement: Statement::Transfer { block, epoch, to } }
        } else {
            let runs = vec![Run { start: block, len: 1, epoch }];
            Input::Holding { network, from: to, stamp, runs, borrowed: BTreeMap::new() }
        };
        said.push((block, BlockLease { epoch, holder: to }, input));
    }
    said
}

proptest! {
    #[test]
    fn of_the_leases_of_a_block_the_highest_counts_in_whatever_order_they_are_heard(
        hands in prop::collection::vec((0..BLOCKS, 0_u8..4), 1..30),
        order in prop::collection::vec(any::<Index>(), 1..60),
    ) {
        let (ledger, network) = newcomer();
        let said = said_of_blocks(network, &hands);
        let heard: Vec<_> = order.iter().map(|at| at.get(&said)).collect();
        let after = hear(ledger, heard.iter().map(|(.., input)| input));
        let mut highest = BTreeMap::new();
        for (block, lease, _) in heard {
            let known = highest.entry(*block).or_insert(*lease);
            *known = std::cmp::max_by_key(*known, *lease, |lease| lease.epoch);
        }
        prop_assert_eq!(&after.accounts()[&network].blocks, &highest);
    }

    #[test]
    fn what_was_heard_in_another_order_comes_to_the_same(
        (said, shuffled) in prop::collection::vec((0..BLOCKS, 0_u8..4), 1..30).prop_flat_map(|hands| {
            let said: Vec<Input> =
                said_of_blocks(network(7, "10.0.0.0/28").id, &hands).into_iter().map(|(.., input)| input).collect();
            (Just(said.clone()), Just(said).prop_shuffle())
        }),
        again in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let (ledger, network) = newcomer();
        let twice: Vec<Input> = again.iter().map(|at| at.get(&said).clone()).collect();
        let one = hear(ledger.clone(), said.iter());
        let other = hear(ledger, shuffled.iter().chain(&twice));
        prop_assert_eq!(&one.accounts()[&network], &other.accounts()[&network]);
    }

    #[test]
    fn of_the_leases_of_an_address_the_highest_counts_in_whatever_order_they_are_heard(
        versions in prop::collection::vec((1_u64..4, 1_u64..6), 1..40),
    ) {
        let (ledger, network) = newcomer();
        let address = ip("10.0.0.6");
        let version = |(epoch, count): &(u64, u64)| Version { epoch: *epoch, count: *count };
        let lent = |at: &(u64, u64)| {
            let statement = Statement::Delegate { address, version: version(at), to: host(0) };
            Input::Stated { network, from: host(9), stamp: Stamp::default(), statement }
        };
        let after = hear(ledger, &versions.iter().map(lent).collect::<Vec<_>>());
        let highest = versions.iter().map(version).max().map(|version| AddressLease { version, holder: Holder::Host(host(0)) });
        prop_assert_eq!(after.accounts()[&network].addresses.get(&address).copied(), highest);
    }
}

#[test]
fn an_address_that_was_lent_in_an_epoch_that_is_over_is_not_taken() {
    let (ledger, id) = newcomer();
    let address = ip("10.0.0.6");
    let start = ledger.accounts()[&id].network.block_of(address).expect("it is in the network");
    let (stamp, runs) = (Stamp::default(), vec![Run { start, len: 1, epoch: 3 }]);
    let holding = Input::Holding { network: id, from: host(1), stamp, runs, borrowed: BTreeMap::new() };
    let lent = |epoch, count| {
        let statement = Statement::Delegate { address, version: Version { epoch, count }, to: host(0) };
        Input::Stated { network: id, from: host(1), stamp, statement }
    };
    let after = hear(ledger, &[holding, lent(2, 9)]);
    assert_eq!(after.accounts()[&id].addresses.get(&address), None, "whoever holds the block may have lent it again");
    let after = hear(after, &[lent(3, 1)]);
    assert!(after.accounts()[&id].addresses.contains_key(&address));
}
