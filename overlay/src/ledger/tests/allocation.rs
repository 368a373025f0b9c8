//! What an endpoint gets.

use super::world::{Luck, World, id_of};
use super::*;

fn request(world: &World, number: u8, text: &str, address: Option<&str>) -> AddressRequest {
    AddressRequest {
        network: world.network.id,
        endpoint: endpoint(number),
        name: name(text),
        range: 0,
        address: address.map(ip),
        reachable: BTreeSet::new(),
        asked: BTreeSet::new(),
    }
}

fn granted(outcome: Option<Outcome>) -> IpAddr {
    match outcome {
        Some(Outcome::Granted { address, .. }) => address,
        other => unreachable!("granted, not {other:?}"),
    }
}

/// Allocates without asking anybody.
fn get(world: &mut World, number: u8, text: &str, address: Option<&str>) -> Option<Outcome> {
    let request = request(world, number, text, address);
    world.allocate(0, &request, Luck::Good)
}

#[test]
fn a_holder_that_is_cut_off_gives_its_own_addresses_lowest_first() {
    let mut world = World::new(1, "10.0.0.0/28");
    assert_eq!(granted(get(&mut world, 1, "a", None)), ip("10.0.0.2"));
    assert_eq!(granted(get(&mut world, 2, "b", None)), ip("10.0.0.3"));
    assert_eq!(granted(get(&mut world, 3, "c", Some("10.0.0.9"))), ip("10.0.0.9"));
}

#[test]
fn only_who_asks_by_number_gets_an_address_outside_of_the_pool() {
    let mut network = network(7, "10.0.0.0/26");
    let pool: crate::model::addr::Subnet = "10.0.0.32/29".parse().expect("a subnet");
    network.ranges[0] = network.ranges[0].with_pool(pool).expect("a part of it");
    let mut world = World::of(2, network);
    // Of blocks that anybody can have addresses of, another host gets its share as well as of the rest.
    let give = Input::GiveSpace { network: world.network.id, range: 0, to: host(1), share: Share::Half };
    let Outcome::Given(given) = world.ledger(0).step(&give, 0).outcome else { unreachable!("it has space") };
    let blocks = |offered: bool| {
        let is =
            |s: &&Statement| matches!(s, Statement::Transfer { block, .. } if world.network.offers(*block) == offered);
        given.iter().filter(is).count()
    };
    assert_eq!((blocks(true), blocks(false)), (1, 7), "of 2 and 14");

    for number in 1..=8 {
        let address = granted(get(&mut world, number, &format!("n{number}"), None));
        assert!(pool.contains(address), "{address}");
    }
    assert!(matches!(get(&mut world, 9, "n9", None), Some(Outcome::Denied(Denial::Full { .. }))));
    assert_eq!(granted(get(&mut world, 10, "n10", Some("10.0.0.9"))), ip("10.0.0.9"));
}

#[test]
fn asking_again_for_the_same_endpoint_gives_the_same_answer_and_writes_nothing() {
    let mut world = World::new(1, "10.0.0.0/28");
    let first = get(&mut world, 1, "a", None);
    let before = world.ledger(0).clone();
    assert_eq!(get(&mut world, 1, "a", None), first);
    assert_eq!(world.ledger(0), &before);
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut world = World::new(1, "10.0.0.0/28");
    let lost = request(&world, 1, "a", None);
    assert_eq!(world.allocate(0, &lost, Luck::NothingSent), None);
    assert_eq!(granted(world.allocate(0, &lost, Luck::Good)), ip("10.0.0.2"));
}

#[test]
fn what_was_not_written_was_not_given() {
    let mut world = World::new(1, "10.0.0.0/28");
    let lost = request(&world, 1, "a", None);
    assert_eq!(world.allocate(0, &lost, Luck::NothingWritten), None);
    assert_eq!(granted(get(&mut world, 2, "b", None)), ip("10.0.0.2"));
}

#[test]
fn no_endpoint_gets_the_network_address_the_broadcast_or_the_gateway() {
    let mut world = World::new(1, "10.0.0.0/28");
    for address in ["10.0.0.0", "10.0.0.1", "10.0.0.15", "10.0.0.16", "fd00::1"] {
        let outcome = get(&mut world, 1, "a", Some(address));
        assert_eq!(outcome, Some(Outcome::Denied(Denial::NotAssignable(ip(address)))));
    }
}

#[test]
fn an_address_in_use_is_refused_and_says_by_whom() {
    let mut world = World::new(1, "10.0.0.0/28");
    get(&mut world, 1, "a", Some("10.0.0.5"));
    let denial = Denial::Bound { address: ip("10.0.0.5"), endpoint: endpoint(1) };
    assert_eq!(get(&mut world, 2, "b", Some("10.0.0.5")), Some(Outcome::Denied(denial)));
}

#[test]
fn a_name_gets_back_what_it_had() {
    let mut world = World::new(1, "10.0.0.0/28");
    get(&mut world, 1, "a", None);
    get(&mut world, 2, "b", None);
    world.release(0, endpoint(1), &name("a"), Luck::Good);
    world.release(0, endpoint(2), &name("b"), Luck::Good);
    world.wait(REST / 2);
    assert_eq!(granted(get(&mut world, 3, "b", None)), ip("10.0.0.3"), "within the rest");
    world.wait(10 * REST);
    assert_eq!(granted(get(&mut world, 4, "a", None)), ip("10.0.0.2"), "and long after it");
}

#[test]
fn a_released_address_rests_while_another_one_is_free() {
    let mut world = World::new(1, "10.0.0.0/29");
    for number in 2..=5 {
        get(&mut world, number, &format!("n{number}"), None);
    }
    world.release(0, endpoint(4), &name("n4"), Luck::Good);
    world.wait(REST - 1);
    assert_eq!(granted(get(&mut world, 9, "new", None)), ip("10.0.0.6"));
    world.wait(1);
    assert_eq!(granted(get(&mut world, 10, "newer", None)), ip("10.0.0.4"));
}

#[test]
fn where_all_that_is_free_rests_the_one_that_has_rested_longest_is_given() {
    let mut world = World::new(1, "10.0.0.0/29");
    for number in 2..=6 {
        get(&mut world, number, &format!("n{number}"), None);
    }
    assert_eq!(
        get(&mut world, 9, "new", None),
        Some(Outcome::Denied(Denial::Full { holders: [(id_of(0), 2)].into() }))
    );
    world.release(0, endpoint(4), &name("n4"), Luck::Good);
    world.wait(1);
    world.release(0, endpoint(3), &name("n3"), Luck::Good);
    assert_eq!(granted(get(&mut world, 9, "new", None)), ip("10.0.0.4"));
    assert_eq!(granted(get(&mut world, 10, "newer", None)), ip("10.0.0.3"));
}

#[test]
fn a_host_whose_free_addresses_all_rest_gives_another_host_the_one_that_has_rested_longest() {
    let mut world = World::new(2, "10.0.0.0/29");
    for number in 2..=6 {
        get(&mut world, number, &format!("n{number}"), None);
    }
    world.release(0, endpoint(4), &name("n4"), Luck::Good);
    world.wait(1);
    world.release(0, endpoint(3), &name("n3"), Luck::Good);
    let give = Input::GiveSpace { network: world.network.id, range: 0, to: host(1), share: Share::Quarter };
    let Outcome::Given(given) = world.ledger(0).step(&give, world.clock(0)).outcome else {
        unreachable!("one is free")
    };
    assert!(matches!(given[..], [Statement::Delegate { address, .. }] if address == ip("10.0.0.4")), "{given:?}");
}

#[test]
fn a_resting_address_is_given_to_whoever_asks_for_it_by_number() {
    let mut world = World::new(1, "10.0.0.0/28");
    get(&mut world, 1, "a", None);
    world.release(0, endpoint(1), &name("a"), Luck::Good);
    assert_eq!(granted(get(&mut world, 2, "b", Some("10.0.0.2"))), ip("10.0.0.2"));
}

#[test]
fn a_reboot_starts_the_rest_again_and_a_restart_remembers_that() {
    let mut world = World::new(1, "10.0.0.0/29");
    for number in 2..=5 {
        get(&mut world, number, &format!("n{number}"), None);
    }
    world.release(0, endpoint(4), &name("n4"), Luck::Good);
    world.wait(REST / 2);
    world.reboot(0);
    world.restart(0);
    world.wait(REST - 1);
    assert_eq!(granted(get(&mut world, 9, "new", None)), ip("10.0.0.6"));
    world.wait(1);
    assert_eq!(granted(get(&mut world, 10, "newer", None)), ip("10.0.0.4"));
}

#[test]
fn releasing_twice_does_not_start_the_rest_again() {
    let mut world = World::new(1, "10.0.0.0/28");
    get(&mut world, 1, "a", None);
    world.release(0, endpoint(1), &name("a"), Luck::Good);
    let before = world.ledger(0).clone();
    world.wait(1);
    world.release(0, endpoint(1), &name("a"), Luck::Good);
    assert_eq!(world.ledger(0), &before);
}

#[test]
fn exhaustion_says_who_holds_how_many_blocks() {
    let mut world = World::new(2, "10.0.0.0/28");
    world.attach(1, endpoint(1), "one", None);
    world.talk();
    for number in 2..=15 {
        get(&mut world, number, &format!("n{number}"), None);
    }
    let denial = Denial::Full { holders: [(id_of(0), 3), (id_of(1), 1)].into() };
    assert_eq!(get(&mut world, 99, "last", None), Some(Outcome::Denied(denial)));
}

#[test]
fn a_network_that_nobody_told_of_is_not_known() {
    let ledger = founder();
    let release = Input::Release { network: network(9, "10.0.0.0/28").id, endpoint: endpoint(1), name: name("a") };
    assert_eq!(ledger.step(&release, 0).outcome, Outcome::Denied(Denial::UnknownNetwork));
}

#[test]
fn an_address_that_came_to_nothing_rests_for_no_name() {
    let mut world = World::new(1, "10.0.0.0/28");
    for number in [1, 2] {
        get(&mut world, number, "a", None);
    }
    let mut ledger = world.ledger(0).clone();
    ledger.apply(&ledger.release_unused(|id| id == endpoint(1), 7));
    let account = &ledger.accounts()[&world.network.id];
    assert_eq!(account.bound.values().copied().collect::<Vec<_>>(), [endpoint(1)]);
    let rests: Vec<_> = account.resting.values().map(|rest| (rest.name.clone(), rest.since)).collect();
    assert_eq!(rests, [(None, 7)]);
    assert_eq!(ledger.release_unused(|id| id == endpoint(1), 8), []);
}

#[test]
fn of_a_closed_network_nothing_stays_and_of_the_other_everything() {
    let (one, two) = (network(1, "10.0.0.0/28"), network(2, "10.0.0.0/28"));
    let mut ledger = founder();
    let run = |ledger: &mut Ledger, input: Input| {
        let step = ledger.step(&input, 0);
        ledger.apply(&step.changes);
        step.outcome
    };
    let give = |network: &Network| Input::GiveAddress { network: network.id, to: host(1), address: ip("10.0.0.6") };
    let allocate = |network: &Network, n: u8| {
        Input::Allocate(AddressRequest {
            network: network.id,
            endpoint: endpoint(n),
            name: name("a"),
            range: 0,
            address: None,
            reachable: BTreeSet::new(),
            asked: BTreeSet::new(),
        })
    };
    run(&mut ledger, Input::Create(two.clone()));
    run(&mut ledger, allocate(&two, 1));
    run(&mut ledger, give(&two));
    let only_two = ledger.clone();
    run(&mut ledger, Input::Create(one.clone()));
    run(&mut ledger, allocate(&one, 2));
    run(&mut ledger, give(&one));
    run(&mut ledger, Input::Release { network: one.id, endpoint: endpoint(2), name: name("a") });
    assert_ne!(ledger, only_two);
    run(&mut ledger, Input::Close(one.id));
    assert_eq!(ledger.accounts(), only_two.accounts());
    assert_eq!(run(&mut ledger, allocate(&one, 3)), Outcome::Denied(Denial::Deleted));
    run(&mut ledger, Input::Learn(one.clone()));
    run(&mut ledger, Input::Create(one.clone()));
    assert_eq!(ledger.accounts(), only_two.accounts(), "what is deleted does not come back");
    assert_eq!(ledger.step(&Input::Close(one.id), 0).changes, []);
}

#[test]
fn a_deleted_network_drains() {
    let mut world = World::new(2, "10.0.0.0/28");
    get(&mut world, 1, "a", None);
    get(&mut world, 2, "b", None);
    let network = world.network.id;
    world.step(0, &Input::Close(network), Luck::Good);
    let bound = |world: &World| world.account(0).map(|a| a.bound.len());
    assert_eq!(bound(&world), Some(2), "who is in it stays");
    world.release(0, endpoint(1), &name("a"), Luck::Good);
    assert_eq!(bound(&world), Some(1));
    world.release(0, endpoint(2), &name("b"), Luck::Good);
    assert_eq!(bound(&world), None, "the last one leaves, and the network is forgotten");
    assert!(world.ledger(0).tombstones().contains(&network));
}

#[test]
fn learning_of_a_network_or_creating_it_twice_changes_nothing() {
    let mut world = World::new(2, "10.0.0.0/28");
    let before = (world.ledger(0).clone(), world.ledger(1).clone());
    for member in [0, 1] {
        world.step(member, &Input::Learn(world.network.clone()), Luck::Good);
        world.step(member, &Input::Create(world.network.clone()), Luck::Good);
    }
    assert_eq!((world.ledger(0), world.ledger(1)), (&before.0, &before.1));
}

#[test]
fn an_endpoint_has_an_address_of_each_range() {
    let mut world = World::new(2, "10.0.0.0/28");
    world.network.ranges.push(Range::new("fd00::/64".parse().expect("a subnet"), None).expect("a range"));
    let network = world.network.clone();
    let mut alone = founder();
    let mut run = |input: &Input| {
        let step = alone.step(input, 0);
        alone.apply(&step.changes);
        step.outcome
    };
    run(&Input::Create(network.clone()));
    let of = |n: u8, range: u8, address: Option<&str>| {
        Input::Allocate(AddressRequest {
            endpoint: endpoint(n),
            range,
            ..request(&world, n, &format!("c{n}"), address)
        })
    };
    for (input, expected) in [
        (of(1, 0, None), "10.0.0.2"),
        (of(1, 1, None), "fd00::2"),
        (of(2, 1, None), "fd00::3"),
        // Asked again, the same; the other range has nothing to do with it.
        (of(1, 1, None), "fd00::2"),
        (of(2, 0, None), "10.0.0.3"),
        (of(3, 1, Some("fd00::ffff:0:0:9")), "fd00::ffff:0:0:9"),
    ] {
        assert!(matches!(run(&input), Outcome::Granted { address, .. } if address == ip(expected)), "{expected}");
    }
    // An address is of one range only.
    let wrong = run(&of(4, 0, Some("fd00::9")));
    assert_eq!(wrong, Outcome::Denied(Denial::NotAssignable(ip("fd00::9"))));
    // Who has another one is not given that for the one that is asked for.
    let other = run(&of(1, 1, Some("fd00::77")));
    assert!(matches!(other, Outcome::Granted { address, .. } if address == ip("fd00::77")), "{other:?}");
    // Half of one range is nothing of the other, and of a block of 2^54 addresses what is free is known at once.
    let id = network.id;
    let given = run(&Input::GiveSpace { network: id, range: 1, to: host(1), share: Share::Half });
    let Outcome::Given(statements) = given else { unreachable!("it is given: {given:?}") };
    assert!(
        statements.len() > 400
            && statements.iter().all(|s| matches!(s, Statement::Transfer { block, .. } if block.range == 1))
    );
    let account = &alone.accounts()[&id];
    assert_eq!(account.holders(0), [(host(0), 4)].into());
    assert_eq!(account.holders(1).len(), 2);
    let (first, epoch) = account.held_in(1, host(0)).next().expect("the first block");
    assert_eq!(account.count_free_in(first, epoch), (1 << 54) - 2 - 3);
    alone.apply(&alone.step(&Input::Release { network: id, endpoint: endpoint(1), name: name("c1") }, 0).changes);
    assert!(alone.accounts()[&id].bound.values().all(|e| *e != endpoint(1)), "both are let go");
}
