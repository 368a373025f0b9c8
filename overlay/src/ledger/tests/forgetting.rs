use super::*;
use crate::model::member::{Boot, Seal, Stamp};

/// Host 0 of so many members.
fn member(of: u8) -> Ledger {
    let mut ledger = Ledger::new(host(0));
    let members = (1..of).map(|number| Change::Member(host(number)));
    ledger.apply(&members.chain([Change::Activation(Activation::Established)]).collect::<Vec<_>>());
    ledger
}

fn forget(ledger: &mut Ledger, numbers: &[u8], force: bool) -> Outcome {
    let hosts = numbers.iter().map(|number| (host(*number), Boot::default())).collect();
    let step = ledger.step(&Input::Forget { hosts, force }, 0);
    ledger.apply(&step.changes);
    step.outcome
}

#[test]
fn more_than_half_of_the_members_are_forgotten_at_once_only_by_force() {
    assert_eq!(forget(&mut member(5), &[1, 2, 3], false), Outcome::Denied(Denial::TooMany));
    assert_eq!(forget(&mut member(5), &[1, 2, 3], true), Outcome::Done);
    assert_eq!(forget(&mut member(4), &[1, 2], false), Outcome::Done);
    assert_eq!(forget(&mut member(2), &[1], false), Outcome::Done, "the last one is left");
}

#[test]
fn whoever_is_off_is_named_with_those_that_are_being_forgotten() {
    let mut heir = member(6);
    assert_eq!(forget(&mut heir, &[1], false), Outcome::Done);
    assert_eq!(heir.missing(host(1)), [2, 3, 4, 5].map(host).into());
    let unnamed = Denial::Unnamed { hosts: [host(1)].into() };
    assert_eq!(forget(&mut heir, &[2], false), Outcome::Denied(unnamed));
    assert_eq!(forget(&mut heir, &[1, 2], false), Outcome::Done);
    assert_eq!(heir.missing(host(1)), [3, 4, 5].map(host).into(), "those that are off together seal nobody");
    assert_eq!(forget(&mut heir, &[7], false), Outcome::Denied(Denial::Stranger { host: host(7) }));
    assert_eq!(forget(&mut heir, &[0, 1, 2], false), Outcome::Denied(Denial::Stranger { host: host(0) }));
}

/// So many members that know each other.
fn members(of: u8) -> Vec<Ledger> {
    let others = |me: u8| (0..of).filter(move |number| *number != me).map(|number| Change::Member(host(number)));
    let member = |me: u8| {
        let mut ledger = Ledger::new(host(me));
        ledger.apply(&others(me).chain([Change::Activation(Activation::Established)]).collect::<Vec<_>>());
        ledger
    };
    (0..of).map(member).collect()
}

fn write(ledger: &mut Ledger, input: &Input) -> Outcome {
    let step = ledger.step(input, 0);
    ledger.apply(&step.changes);
    step.outcome
}

/// The heir asks a member to seal a host, and hears the answer.
fn asks(heir: &mut Ledger, member: &mut Ledger, number: u8) {
    let seal_request = heir.seal_request(host(number)).expect("it is its heir");
    let sealed = write(member, &Input::Seal { from: heir.me(), host: host(number), seal_request });
    let Outcome::Sealed(ledger_snapshot) = sealed else { unreachable!("it is a member: {sealed:?}") };
    write(heir, &Input::Sealed { by: member.me(), host: host(number), ledger_snapshot });
}

/// What a host says that it holds, told to another.
fn holds(teller: &Ledger, listener: &mut Ledger, network: NetworkId) {
    let (from, runs) = (teller.me(), teller.accounts()[&network].runs(teller.me()));
    assert!(!runs.is_empty(), "it holds some");
    write(listener, &Input::Holding { network, from, stamp: teller.stamp(), runs, borrowed: [].into() });
}

#[test]
fn what_a_living_host_has_borrowed_it_keeps_when_the_holder_and_its_heir_die() {
    let mut all = members(4);
    let [dead, heir, borrower, last] = all.as_mut_slice() else { unreachable!("there are four") };
    let (net, address) = (network(7, "10.20.0.0/28"), ip("10.20.0.5"));
    write(dead, &Input::Create(net.clone()));
    for other in [&mut *heir, borrower, last] {
        write(other, &Input::Learn(net.clone()));
        holds(dead, other, net.id);
    }
    let lent = write(dead, &Input::GiveAddress { network: net.id, to: host(2), address });
    let Outcome::Given(statements) = lent else { unreachable!("it is free: {lent:?}") };
    for statement in statements {
        write(borrower, &Input::Stated { network: net.id, from: host(0), stamp: dead.stamp(), statement });
    }
    assert_eq!(forget(heir, &[0], false), Outcome::Done);
    asks(heir, borrower, 0);
    asks(heir, last, 0);
    // What the heir holds is heard, and what it confirms to the borrower is not, before it dies as well.
    holds(heir, last, net.id);
    let seals = heir.membership().seals.clone();
    write(last, &Input::Belongs { from: host(1), founder: None, seals });
    assert_eq!(forget(last, &[1], false), Outcome::Done);
    asks(last, borrower, 1);
    assert!(last.membership().is_forgotten(host(1)));
    let account = &last.accounts()[&net.id];
    assert_eq!(account.block_lease(address).map(|lease| lease.holder), Some(host(3)));
    assert_eq!(account.may_use(host(3), address), None, "it is in use by the borrower");
    assert_eq!(account.addresses[&address].holder, crate::model::lease::Holder::Host(host(2)));
}

/// It had given a half away, and died before anybody had heard of the rest.
#[test]
fn what_nobody_has_heard_of_goes_to_the_heir_of_its_creator_when_all_have_said_what_they_know() {
    let net = network(7, "10.20.0.0/24");
    for force in [false, true] {
        let mut all = members(5);
        let [dead, heir, half, third, _] = all.as_mut_slice() else { unreachable!("there are five") };
        write(dead, &Input::Create(net.clone()));
        let given = write(dead, &Input::GiveSpace { network: net.id, range: 0, to: half.me(), share: Share::Half });
        let Outcome::Given(statements) = given else { unreachable!("it is a member: {given:?}") };
        for other in [&mut *heir, half, third] {
            write(other, &Input::Learn(net.clone()));
        }
        for statement in statements {
            write(half, &Input::Stated { network: net.id, from: dead.me(), stamp: dead.stamp(), statement });
        }
        let hosts = if force { vec![0] } else { vec![0, 4] };
        assert_eq!(forget(heir, &hosts, force), Outcome::Done);
        asks(heir, third, 0);
        asks(heir, half, 0);
        assert!(
            heir.membership().is_forgotten(host(0)) == force,
            "of two hosts both have to be sealed, of one three of four"
        );
        if !force {
            asks(heir, third, 4);
            asks(heir, half, 4);
        }
        let holders = heir.accounts()[&net.id].holders(0);
        let rest = net.blocks().count() - holders[&half.me()];
        // By force it may be that of one that has not been asked.
        assert_eq!(holders.get(&heir.me()).copied(), (!force).then_some(rest));
    }
}

#[test]
fn two_boots_of_one_generation_do_not_keep_a_host_from_being_forgotten() {
    let mut all = members(3);
    let [heir, witness, _] = all.as_mut_slice() else { unreachable!("there are three") };
    let boot = |nonce| Boot { generation: 6, nonce };
    // The heir has dealt with the host, and the witness alone with one that ran on a copy of its disk.
    for (member, nonce) in [(&mut *heir, 1), (witness, 2)] {
        member.apply(&[Change::Dealt(host(2), Stamp { boot: boot(nonce), revision: 1 })]);
    }
    let hosts = [(host(2), boot(1))].into();
    assert_eq!(write(heir, &Input::Forget { hosts, force: false }), Outcome::Done);
    asks(heir, witness, 2);
    assert!(heir.membership().is_forgotten(host(2)));
}

/// The check had nobody to tell that there was a later boot.
#[test]
fn a_host_that_acts_and_hears_of_a_later_boot_of_itself_gives_itself_up() {
    let acts = |boot| {
        let mut ledger = member(3);
        ledger.apply(&[Change::Boot(boot)]);
        ledger
    };
    let stale =
        |generation, nonce| Input::Refused { by: host(1), denial: Denial::Stale { known: Boot { generation, nonce } } };
    let restored = Fencing::Restored { by: host(1), evidence: Evidence::LaterBoot };
    for known in [stale(6, 2), stale(7, 3)] {
        let mut ledger = acts(Boot { generation: 6, nonce: 1 });
        write(&mut ledger, &known);
        assert_eq!(ledger.membership().activation, Activation::Fenced(restored));
    }
    // An answer to what it said before it booted, or what says nothing new.
    for known in [stale(5, 9), stale(6, 1)] {
        let mut ledger = acts(Boot { generation: 6, nonce: 1 });
        write(&mut ledger, &known);
        assert!(ledger.is_established());
    }
    // Before it is checked, it asks again.
    let mut unchecked = acts(Boot { generation: 5, nonce: 0 });
    write(&mut unchecked, &Input::Booted { nonce: 1 });
    write(&mut unchecked, &stale(9, 3));
    assert_eq!(unchecked.membership().boot, Boot { generation: 10, nonce: 1 });
    assert!(matches!(unchecked.membership().activation, Activation::Unchecked { .. }));
}

#[test]
fn of_two_who_act_under_one_identity_the_one_that_booted_first_gives_up() {
    let boot = |generation, nonce| Boot { generation, nonce };
    let hears = |mine, other| {
        let mut ledger = member(3);
        ledger.apply(&[Change::Boot(mine)]);
        write(&mut ledger, &Input::Duplicate { boot: other });
        ledger.membership().activation.clone()
    };
    let gives_up = Activation::Fenced(Fencing::Restored { by: host(0), evidence: Evidence::LaterBoot });
    assert_eq!(hears(boot(6, 1), boot(7, 2)), gives_up);
    assert_eq!(hears(boot(6, 1), boot(6, 2)), gives_up, "neither is the newer one");
    assert_eq!(hears(boot(7, 2), boot(6, 1)), Activation::Established);
    assert_eq!(hears(boot(7, 2), boot(7, 2)), Activation::Established, "an earlier life of the agent");
}

#[test]
fn an_heir_that_has_withdrawn_is_in_the_way_of_no_other() {
    let mut all = members(4);
    let [heir, other, witness, _] = all.as_mut_slice() else { unreachable!("there are four") };
    let back = Stamp { boot: Boot { generation: 1, nonce: 7 }, revision: 1 };
    witness.apply(&[Change::Dealt(host(3), back)]);
    assert_eq!(forget(heir, &[3], false), Outcome::Done);
    asks(heir, other, 3);
    let seal_request = heir.seal_request(host(3)).expect("it is its heir");
    let refused = write(witness, &Input::Seal { from: host(0), host: host(3), seal_request });
    let Outcome::Denied(denial) = refused else { unreachable!("it has let the host in: {refused:?}") };
    write(heir, &Input::Refused { by: host(2), denial });
    assert!(heir.membership().forgets.is_empty(), "the operator has to look again");

    // It is off by now, and the operator says so elsewhere: of a boot that is heard of by then.
    let hosts = [(host(3), back.boot)].into();
    assert_eq!(write(witness, &Input::Forget { hosts, force: false }), Outcome::Done);
    asks(witness, heir, 3);
    asks(witness, other, 3);
    assert!(witness.membership().is_forgotten(host(3)));
}

#[test]
fn an_heir_does_not_take_what_it_is_said_to_have_and_does_not_know_of() {
    let mut all = members(3);
    let [heir, witness, _] = all.as_mut_slice() else { unreachable!("there are three") };
    let net = network(1, "172.28.0.0/24");
    for ledger in [&mut *heir, &mut *witness] {
        write(ledger, &Input::Learn(net.clone()));
    }
    let [given, left] = [0, 1].map(|nth| net.blocks().nth(nth).expect("there are some"));
    let lease = |epoch, number| BlockLease { epoch, holder: host(number) };
    witness.apply(&[Change::Block(net.id, given, lease(2, 0)), Change::Block(net.id, left, lease(1, 2))]);
    assert_eq!(forget(heir, &[2], false), Outcome::Done);
    asks(heir, witness, 2);
    let blocks = &heir.accounts()[&net.id].blocks;
    assert_eq!(blocks.get(&given), None, "it may have given it on, and have lost that with its disk");
    assert_eq!(blocks.get(&left), Some(&lease(2, 0)));
}

#[test]
fn a_host_that_is_forgotten_after_the_statement_is_waited_for_until_it_is_made_again() {
    let mut heir = member(5);
    assert_eq!(forget(&mut heir, &[1], false), Outcome::Done);
    let seals = [(host(2), Seal { heir: host(3), done: true })].into();
    let heard = heir.step(&Input::Belongs { from: host(3), founder: None, seals }, 0);
    heir.apply(&heard.changes);
    assert!(heir.missing(host(1)).contains(&host(2)), "it may have let the first one in");
    assert_eq!(forget(&mut heir, &[1], false), Outcome::Done);
    assert_eq!(heir.missing(host(1)), [3, 4].map(host).into());
}

/// Two were heirs at once, and the one with the lower id went on. Its answer to the other may arrive after the news that all is done.
#[test]
fn a_late_answer_of_a_rival_does_not_undo_what_is_done() {
    let mut loser = Ledger::new(host(1));
    let members = [0, 2, 3].map(|number| Change::Member(host(number)));
    loser.apply(&members.into_iter().chain([Change::Activation(Activation::Established)]).collect::<Vec<_>>());
    assert_eq!(forget(&mut loser, &[3], false), Outcome::Done);
    let seal = |done| Seal { heir: host(0), done };
    let seals = [(host(3), seal(true))].into();
    assert_eq!(write(&mut loser, &Input::Belongs { from: host(0), founder: None, seals }), Outcome::Done);
    assert!(loser.membership().is_forgotten(host(3)));
    let late = Denial::Rival { host: host(3), seal: seal(false) };
    write(&mut loser, &Input::Refused { by: host(0), denial: late });
    assert_eq!(loser.membership().seals[&host(3)], seal(true));
}
