use super::*;
use crate::member::{Boot, Seal};

/// Host 0 of so many members.
fn member(of: u8) -> Ledger {
    let mut ledger = Ledger::new(host(0));
    let members = (1..of).map(|number| Change::Member(host(number)));
    ledger.apply(&members.chain([Change::Standing(Standing::Established)]).collect::<Vec<_>>());
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
