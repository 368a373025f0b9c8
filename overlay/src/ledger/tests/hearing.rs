//! Whom a ledger believes.

use super::world::{Luck, World, id_of};
use super::*;
use crate::model::lease::{AddressLease, BlockLease, Holder};

fn version(epoch: u64, count: u64) -> Version {
    Version { epoch, count }
}

/// Host 1 hears that; does its ledger change?
fn believes(world: &mut World, from: usize, statement: Statement) -> bool {
    let before = world.ledger(1).clone();
    world.step(
        1,
        &Input::Stated { network: world.network.id, from: id_of(from), stamp: Stamp::default(), statement },
        Luck::Good,
    );
    *world.ledger(1) != before
}

#[test]
fn a_lease_is_believed_by_the_host_that_it_names_and_by_no_other() {
    let mut world = World::new(3, "10.0.0.0/28");
    let to_two = Statement::Transfer { block: block(0), epoch: 2, to: id_of(2) };
    let lent_to_two = Statement::Delegate { address: ip("10.0.0.6"), version: version(1, 1), to: id_of(2) };
    assert!(!believes(&mut world, 0, to_two), "hearsay");
    assert!(!believes(&mut world, 0, lent_to_two), "hearsay");
}

#[test]
fn an_old_lease_is_not_believed_even_by_the_host_that_it_names() {
    let mut world = World::new(3, "10.0.0.0/28");
    let old = Statement::Transfer { block: block(0), epoch: 1, to: id_of(1) };
    assert!(!believes(&mut world, 0, old), "the epoch that the creator has");
}

#[test]
fn only_the_borrower_returns_an_address() {
    let mut world = World::new(3, "10.0.0.0/28");
    // Host 1 holds the last block and has lent an address of it to host 2.
    world.attach(1, endpoint(1), "one", None);
    let lend = Input::GiveAddress { network: world.network.id, to: id_of(2), address: ip("10.0.0.14") };
    world.step(1, &lend, Luck::Good);
    world.talk();
    let lent = world.account(1).and_then(|a| a.addresses.get(&ip("10.0.0.14")).copied()).expect("it is lent");
    let next = Version { count: lent.version.count + 1, ..lent.version };
    let back = |version| Statement::Return { address: ip("10.0.0.14"), version };
    assert!(!believes(&mut world, 0, back(next)), "another host");
    assert!(!believes(&mut world, 2, back(lent.version)), "not newer");
    assert!(!believes(&mut world, 2, back(version(lent.version.epoch + 1, 1))), "an epoch that the holder never wrote");
    assert!(!believes(&mut world, 2, Statement::Return { address: ip("10.0.0.13"), version: next }), "never lent");
}

#[test]
fn of_two_epochs_in_one_breath_the_higher_counts() {
    let mut world = World::new(2, "10.0.0.0/28");
    let run = |epoch| Run { start: block(0), len: 1, epoch };
    for runs in [[run(9), run(5)], [run(12), run(12)], [run(13), run(14)]] {
        let highest = runs.iter().map(|r| r.epoch).max();
        let input = Input::Holding {
            network: world.network.id,
            from: id_of(0),
            stamp: Stamp::default(),
            runs: runs.into(),
            borrowed: [].into(),
        };
        world.step(1, &input, Luck::Good);
        let known = world.account(1).and_then(|a| a.blocks.get(&block(0))).map(|l| l.epoch);
        assert_eq!(known, highest);
    }
}

#[test]
fn a_block_that_moves_on_outdates_what_was_delegated_before() {
    let net = network(7, "10.0.0.0/28");
    let mut ledger = founder();
    let lent = |count| AddressLease { version: version(1, count), holder: Holder::Host(host(1)) };
    let block_at = |epoch| Change::Block(net.id, block(1), BlockLease { epoch, holder: host(0) });
    ledger.apply(&[Change::Open(net.clone()), block_at(1), Change::Address(net.id, ip("10.0.0.6"), lent(3))]);
    let usable = |ledger: &Ledger| ledger.accounts()[&net.id].may_use(host(0), ip("10.0.0.6"));
    assert_eq!(usable(&ledger), None);
    ledger.apply(&[block_at(2)]);
    assert_eq!(usable(&ledger), Some(version(2, 0)));
}

#[test]
fn blocks_and_addresses_that_the_network_does_not_have_are_not_taken() {
    let mut world = World::new(2, "10.0.0.0/28");
    let none = BlockId { range: 1, index: 0 };
    for block in [none, block(4), block(u16::MAX)] {
        assert!(!believes(&mut world, 0, Statement::Transfer { block, epoch: 7, to: id_of(1) }), "{block:?}");
        let runs = vec![Run { start: block, len: u16::MAX, epoch: 7 }];
        let input = Input::Holding {
            network: world.network.id,
            from: id_of(0),
            stamp: Stamp::default(),
            runs,
            borrowed: [].into(),
        };
        let before = world.ledger(1).clone();
        world.step(1, &input, Luck::Good);
        assert_eq!(world.ledger(1), &before, "{block:?}");
    }
    for address in ["10.0.0.0", "10.0.0.1", "10.0.0.15", "10.0.1.2"] {
        let statement = Statement::Delegate { address: ip(address), version: version(1, 1), to: id_of(1) };
        assert!(!believes(&mut world, 0, statement), "{address}");
    }
}

#[test]
fn what_a_host_holds_is_told_in_as_few_runs_as_there_are_gaps() {
    let mut world = World::new(2, "10.0.0.0/28");
    let input = Input::Holding {
        network: world.network.id,
        from: id_of(0),
        stamp: Stamp::default(),
        runs: vec![Run { start: block(1), len: 1, epoch: 4 }],
        borrowed: [].into(),
    };
    world.step(1, &input, Luck::Good);
    let run = |start, len, epoch| Run { start: block(start), len, epoch };
    assert_eq!(world.account(1).map(|a| a.runs(id_of(0))), Some(vec![run(0, 1, 1), run(1, 1, 4), run(2, 2, 1)]));
    assert_eq!(world.account(0).map(|a| a.runs(id_of(0))), Some(vec![run(0, 4, 1)]));
}

#[test]
fn two_networks_on_one_subnet_have_nothing_in_common() {
    let (one, two) = (network(1, "10.0.0.0/28"), network(2, "10.0.0.0/28"));
    let mut ledger = founder();
    for input in [Input::Create(one.clone()), Input::Learn(two.clone())] {
        let step = ledger.step(&input, 0);
        ledger.apply(&step.changes);
    }
    assert!(ledger.accounts()[&one.id].may_use(host(0), ip("10.0.0.5")).is_some());
    assert!(ledger.accounts()[&two.id].may_use(host(0), ip("10.0.0.5")).is_none());
}

/// The one to which it went has given it back and was never heard of again, so it can't say that it once arrived.
#[test]
fn a_block_that_comes_back_is_owed_to_nobody() {
    let world = World::new(2, "10.0.0.0/28");
    let network = world.network.id;
    let to_one = Statement::Transfer { block: block(0), epoch: 2, to: id_of(1) };
    let mut giver = world.ledger(0).clone();
    let given = BlockLease { epoch: 2, holder: id_of(1) };
    giver.apply(&[Change::Block(network, block(0), given), Change::Enqueue(network, to_one)]);
    let back = Statement::Transfer { block: block(0), epoch: 3, to: id_of(0) };
    let heard = Input::Stated { network, from: id_of(1), stamp: Stamp::default(), statement: back };
    giver.apply(&giver.step(&heard, 0).changes);
    let account = &giver.accounts()[&network];
    assert_eq!(account.blocks[&block(0)], BlockLease { epoch: 3, holder: id_of(0) });
    assert!(account.outbox.is_empty(), "{:?}", account.outbox);
}
