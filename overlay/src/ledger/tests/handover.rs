//! How space and single addresses come from one host to another.

use super::world::{Body, Luck, World, id_of};
use super::*;

fn space(world: &World, to: usize, share: Share) -> Input {
    Input::GiveSpace { network: world.network.id, range: 0, to: id_of(to), share }
}

fn held(world: &World, by: usize, as_known_to: usize) -> usize {
    world.account(as_known_to).map_or(0, |a| a.held_by(id_of(by)).count())
}

fn is_granted(outcome: &Outcome, expected: &str) -> bool {
    matches!(outcome, Outcome::Granted { address, .. } if *address == ip(expected))
}

/// Blocks that a step gave away.
fn given(outcome: Option<Outcome>) -> Vec<BlockId> {
    let Some(Outcome::Given(statements)) = outcome else { return Vec::new() };
    let block = |s: &Statement| if let Statement::Transfer { block, .. } = s { Some(*block) } else { None };
    statements.iter().filter_map(block).collect()
}

#[test]
fn a_newcomer_gets_a_quarter_and_uses_it_alone() {
    let mut world = World::new(2, "10.0.0.0/24");
    assert!(is_granted(&world.attach(1, endpoint(1), "one", None), "10.0.0.192"));
    world.talk();
    for known in [0, 1] {
        assert_eq!((held(&world, 0, known), held(&world, 1, known)), (48, 16), "as host {known} knows");
    }
    let request = AddressRequest {
        network: world.network.id,
        endpoint: endpoint(2),
        name: name("two"),
        range: 0,
        address: None,
        reachable: BTreeSet::new(),
        asked: BTreeSet::new(),
    };
    let outcome = world.allocate(1, &request, Luck::Good);
    assert!(matches!(outcome, Some(Outcome::Granted { .. })), "cut off it has its own: {outcome:?}");
}

#[test]
fn a_newcomer_with_a_fixed_address_gets_space_as_well() {
    let mut world = World::new(2, "172.38.0.0/24");
    assert!(is_granted(&world.attach(1, endpoint(1), "redis", Some(ip("172.38.0.11"))), "172.38.0.11"));
    assert_eq!(held(&world, 1, 1), 16);
}

#[test]
fn six_fixed_addresses_of_one_block_live_on_six_hosts() {
    let mut world = World::new(6, "172.38.0.0/24");
    for n in 0..6 {
        let address = format!("172.38.0.{}", 11 + n);
        let number = u8::try_from(n).expect("a small world");
        assert!(is_granted(&world.attach(n, endpoint(number), "redis", Some(ip(&address))), &address));
    }
    world.settle();
}

#[test]
fn the_first_peer_gets_half_of_a_new_network() {
    let mut world = World::new(2, "10.0.0.0/24");
    let input = space(&world, 1, Share::Half);
    assert_eq!(given(world.step(0, &input, Luck::Good)).len(), 32);
    assert_eq!(held(&world, 0, 0), 32);
}

#[test]
fn asking_again_for_space_gives_the_same_until_it_has_arrived() {
    let mut world = World::new(2, "10.0.0.0/24");
    let input = space(&world, 1, Share::Quarter);
    assert_eq!(world.step(0, &input, Luck::NothingSent), None, "the answer is lost");
    let first = world.step(0, &input, Luck::Good);
    assert_eq!(given(first).len(), 16);
    assert_eq!(held(&world, 1, 0), 16);
    world.talk();
    assert_eq!(given(world.step(0, &input, Luck::Good)).len(), 12, "a quarter of the rest");
}

#[test]
fn a_transfer_lost_on_the_way_stays_posted_and_arrives_by_gossip() {
    let mut world = World::new(2, "10.0.0.0/24");
    let input = space(&world, 1, Share::Quarter);
    world.step(0, &input, Luck::NothingSent);
    world.restart(0);
    assert_eq!((held(&world, 0, 0), held(&world, 1, 1)), (48, 0), "nobody may use it");
    assert_eq!(world.account(0).map(|a| a.outbox.len()), Some(16));
    world.talk();
    assert_eq!((held(&world, 1, 0), held(&world, 1, 1)), (16, 16));
    assert_eq!(world.account(0).map(|a| a.outbox.len()), Some(0));
}

#[test]
fn a_transfer_that_was_passed_on_before_it_was_confirmed_does_not_stay_posted() {
    let mut world = World::new(3, "10.0.0.0/29");
    let to_one = world.step(0, &space(&world, 1, Share::Quarter), Luck::Good);
    let Some(Outcome::Given(statements)) = to_one else { unreachable!("{to_one:?}") };
    let stated =
        Input::Stated { network: world.network.id, from: id_of(0), stamp: Stamp::default(), statement: statements[0] };
    world.step(1, &stated, Luck::Good);
    let to_two = world.step(1, &space(&world, 2, Share::Quarter), Luck::Good);
    let Some(Outcome::Given(statements)) = to_two else { unreachable!("{to_two:?}") };
    let stated =
        Input::Stated { network: world.network.id, from: id_of(1), stamp: Stamp::default(), statement: statements[0] };
    world.step(2, &stated, Luck::Good);
    // Host 1 has died: it never confirms.
    world.gossip(2);
    world.wire.retain(|l| l.to == 0);
    world.deliver_all();
    assert_eq!(world.account(0).map(|a| a.outbox.len()), Some(0));
    assert_eq!(held(&world, 2, 0), 1);
}

#[test]
fn a_return_confirms_the_delegation_that_it_answers() {
    let mut world = World::new(2, "10.0.0.0/28");
    let input = Input::GiveAddress { network: world.network.id, to: id_of(1), address: ip("10.0.0.6") };
    let Some(Outcome::Given(statements)) = world.step(0, &input, Luck::Good) else { unreachable!("it is free") };
    let stated =
        Input::Stated { network: world.network.id, from: id_of(0), stamp: Stamp::default(), statement: statements[0] };
    world.step(1, &stated, Luck::NothingSent);
    world.wait(REST);
    world.tick();
    let back = world.account(1).and_then(|a| a.outbox.first().copied()).expect("a return");
    assert_eq!(world.account(0).map(|a| a.outbox.len()), Some(1));
    world.step(
        0,
        &Input::Stated { network: world.network.id, from: id_of(1), stamp: Stamp::default(), statement: back },
        Luck::Good,
    );
    assert_eq!(world.account(0).map(|a| a.outbox.len()), Some(0));
}

#[test]
fn a_block_with_an_endpoint_a_delegation_or_a_rest_in_it_is_never_transferred() {
    type Spoil = fn(&mut World);
    let spoil: [(&str, Spoil); 3] = [
        ("endpoint", |world| drop(world.attach(0, endpoint(1), "a", Some(ip("10.0.0.5"))))),
        ("rest", |world| {
            world.attach(0, endpoint(1), "a", Some(ip("10.0.0.5")));
            world.release(0, endpoint(1), &name("a"), Luck::Good);
            world.wait(REST - 1);
        }),
        ("delegation", |world| {
            let input = Input::GiveAddress { network: world.network.id, to: id_of(2), address: ip("10.0.0.5") };
            world.step(0, &input, Luck::Good);
        }),
    ];
    for (what, spoil) in spoil {
        let mut world = World::new(3, "10.0.0.0/28");
        spoil(&mut world);
        let mut gone = Vec::new();
        for to in [1, 2, 1, 2, 1, 2] {
            let input = space(&world, to, Share::Quarter);
            gone.extend(given(world.step(0, &input, Luck::Good)));
            world.talk();
        }
        assert_eq!(gone, [block(3), block(2), block(0)], "all but the one with the {what}");
    }
}

#[test]
fn where_no_block_is_free_a_single_address_is_given() {
    let mut world = World::new(2, "10.0.0.0/29");
    for (n, address) in ["10.0.0.2", "10.0.0.5"].into_iter().enumerate() {
        world.attach(0, endpoint(u8::try_from(n).expect("two")), "a", Some(ip(address)));
    }
    assert!(is_granted(&world.attach(1, endpoint(9), "b", None), "10.0.0.3"));
    assert_eq!((held(&world, 1, 0), held(&world, 0, 0)), (0, 2));
}

#[test]
fn a_host_takes_no_more_than_it_needs_from_those_who_have_no_block_to_spare() {
    let mut world = World::new(4, "10.0.0.0/28");
    for n in 0..3 {
        world.attach(n, endpoint(u8::try_from(n).expect("three")), "a", None);
    }
    for (n, address) in ["10.0.0.2", "10.0.0.5", "10.0.0.9", "10.0.0.13"].into_iter().enumerate() {
        world.attach(n % 3, endpoint(10 + u8::try_from(n).expect("four")), "b", Some(ip(address)));
    }
    assert!(matches!(world.attach(3, endpoint(9), "c", None), Outcome::Granted { .. }));
    assert_eq!(world.account(3).map(|a| a.borrowed(id_of(3)).len()), Some(1));
}

#[test]
fn a_borrowed_address_goes_home_after_its_rest_and_can_be_borrowed_again() {
    let mut world = World::new(3, "10.0.0.0/28");
    world.attach(0, endpoint(0), "zero", Some(ip("10.0.0.5")));
    let wanted = Some(ip("10.0.0.6"));
    assert!(is_granted(&world.attach(1, endpoint(1), "one", wanted), "10.0.0.6"));
    let refused = world.attach(2, endpoint(2), "two", wanted);
    assert!(
        matches!(refused, Outcome::Denied(Denial::Unreachable { holder, .. }) if holder == id_of(0)),
        "{refused:?}"
    );
    world.release(1, endpoint(1), &name("one"), Luck::Good);
    world.wait(REST - 1);
    world.tick();
    assert!(matches!(world.attach(2, endpoint(2), "two", wanted), Outcome::Denied(_)), "it rests");
    world.wait(1);
    world.tick();
    world.talk();
    assert!(is_granted(&world.attach(2, endpoint(2), "two", wanted), "10.0.0.6"));
    world.settle();
}

#[test]
fn a_borrowed_address_that_came_too_late_goes_home_too() {
    let mut world = World::new(2, "10.0.0.0/28");
    let input = Input::GiveAddress { network: world.network.id, to: id_of(1), address: ip("10.0.0.6") };
    world.step(0, &input, Luck::NothingSent);
    world.talk();
    assert_eq!(world.account(1).map(|a| a.borrowed(id_of(1)).len()), Some(1));
    world.settle();
}

#[test]
fn a_delegation_is_repeated_to_the_borrower_and_refused_to_others() {
    let mut world = World::new(3, "10.0.0.0/28");
    let ask = |world: &mut World, to| {
        let input = Input::GiveAddress { network: world.network.id, to: id_of(to), address: ip("10.0.0.6") };
        world.step(0, &input, Luck::Good)
    };
    let first = ask(&mut world, 1);
    assert!(matches!(first, Some(Outcome::Given(_))), "{first:?}");
    let before = world.ledger(0).clone();
    assert_eq!(ask(&mut world, 1), first);
    let denial = Denial::Delegated { address: ip("10.0.0.6"), to: id_of(1) };
    assert_eq!(ask(&mut world, 2), Some(Outcome::Denied(denial)));
    assert_eq!(world.ledger(0), &before);
}

#[test]
fn only_the_holder_of_its_block_delegates_an_address_and_only_a_free_one() {
    let mut world = World::new(2, "10.0.0.0/28");
    world.attach(0, endpoint(1), "a", Some(ip("10.0.0.5")));
    let mut ask = |of, to, address| {
        let input = Input::GiveAddress { network: world.network.id, to: id_of(to), address: ip(address) };
        world.step(of, &input, Luck::Good)
    };
    let denied = |denial| Some(Outcome::Denied(denial));
    assert_eq!(ask(1, 0, "10.0.0.6"), denied(Denial::NotHolder { holder: Some(id_of(0)) }));
    assert_eq!(ask(0, 1, "10.0.0.5"), denied(Denial::Bound { address: ip("10.0.0.5"), endpoint: endpoint(1) }));
    assert_eq!(ask(0, 1, "10.0.0.1"), denied(Denial::NotAssignable(ip("10.0.0.1"))));
    assert_eq!(ask(0, 0, "10.0.0.6"), Some(Outcome::Given(Vec::new())), "to itself it need not");
}

#[test]
fn a_request_that_nobody_can_serve_comes_to_an_end() {
    let mut world = World::new(3, "10.0.0.0/29");
    for (n, address) in ["10.0.0.2", "10.0.0.5", "10.0.0.3", "10.0.0.4", "10.0.0.6"].into_iter().enumerate() {
        let outcome = world.attach(n % 2, endpoint(u8::try_from(n).expect("five")), "a", Some(ip(address)));
        assert!(is_granted(&outcome, address), "{outcome:?}");
    }
    let full = Denial::Full { holders: [(id_of(0), 1), (id_of(1), 1)].into() };
    assert_eq!(world.attach(2, endpoint(9), "b", None), Outcome::Denied(full));
}

#[test]
fn nothing_is_asked_of_hosts_that_can_not_be_reached() {
    let mut world = World::new(2, "10.0.0.0/28");
    let mut request = AddressRequest {
        network: world.network.id,
        endpoint: endpoint(1),
        name: name("a"),
        range: 0,
        address: Some(ip("10.0.0.6")),
        reachable: BTreeSet::new(),
        asked: BTreeSet::new(),
    };
    let unreachable = Denial::Unreachable { address: ip("10.0.0.6"), holder: id_of(0) };
    assert_eq!(world.allocate(1, &request, Luck::Good), Some(Outcome::Denied(unreachable)));
    request.address = None;
    let full = Denial::Full { holders: [(id_of(0), 4)].into() };
    assert_eq!(world.allocate(1, &request, Luck::Good), Some(Outcome::Denied(full)));
    assert!(world.wire.is_empty());
}

#[test]
fn a_lease_that_was_delivered_to_the_wrong_host_is_not_confirmed() {
    let mut world = World::new(3, "10.0.0.0/28");
    let input = Input::GiveAddress { network: world.network.id, to: id_of(1), address: ip("10.0.0.6") };
    world.step(0, &input, Luck::Good);
    world.talk();
    world.wait(REST);
    world.tick();
    world.gossip(1);
    let returned = |l: &super::world::Letter| l.to == 2 && matches!(l.body, Body::Stated(Statement::Return { .. }));
    let letter = world.wire.iter().find(|l| returned(l)).cloned().expect("a return");
    world.wire.clear();
    world.deliver(letter, Luck::Good);
    assert!(world.wire.is_empty(), "host 2 confirms nothing");
    world.settle();
}
