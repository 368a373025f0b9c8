use std::collections::HashSet;

use super::*;
use crate::roster::tests::{World, id, said, state};

const NAMED: Duration = Duration::from_secs(10);

fn standing(world: &World, of: &ChitchatId) -> Option<Standing> {
    let mut standings = world.roster.standings(world.now, NAMED);
    standings.find(|(id, _)| *id == of).map(|(_, standing)| standing)
}

#[test]
fn an_incarnation_is_hearsay_until_it_is_heard() {
    let old = id("a", 1);
    let mut world = World::new();
    world.states.insert(old.clone(), state(&[said(&[("k", "v")])]));
    world.look(&[]);
    assert_eq!(standing(&world, &old), Some(Standing::Hearsay));
    world.later(100).look(&[&old]);
    assert_eq!(standing(&world, &old), Some(Standing::Witnessed));
    world.later(5000).look(&[]);
    assert_eq!(standing(&world, &old), Some(Standing::Witnessed), "it was heard: this host tells that it died");
}

#[test]
fn a_younger_incarnation_is_told_of_at_once() {
    let new = id("a", 6);
    let mut world = World::new();
    world.states.insert(new.clone(), state(&[]));
    world.look(&[]);
    assert_eq!(standing(&world, &new), Some(Standing::Witnessed));
}

#[test]
fn what_is_silent_for_too_long_is_past_and_this_host_never_is() {
    let (heard, told, new) = (id("a", 1), id("b", 1), id("c", 6));
    let mut world = World::new();
    for id in [&heard, &told, &new] {
        world.states.insert(id.clone(), state(&[]));
    }
    world.look(&[&heard]);
    world.later(NAMED.as_millis() as u64).look(&[]);
    for id in [&heard, &told, &new] {
        assert_eq!(standing(&world, id), Some(Standing::Past), "{id:?}");
    }
    assert_eq!(standing(&world, &id("self", 5)), Some(Standing::Witnessed));
    world.later(100).look(&[&heard]);
    assert_eq!(standing(&world, &heard), Some(Standing::Witnessed), "it is back");
}

#[test]
fn a_silence_goes_on_from_where_another_host_has_counted() {
    let (before, after) = (id("a", 1), id("b", 1));
    let mut world = World::new();
    world.states.insert(before.clone(), state(&[]));
    world.look(&[]);
    let now = world.later(1000).now;
    let told = [&before, &after].map(|id| (id.clone(), Duration::from_secs(8)));
    world.roster.note_silence(told.into(), now);
    world.states.insert(after.clone(), state(&[]));
    world.look(&[]);
    world.later(1000).look(&[]);
    for id in [&before, &after] {
        assert_eq!(world.roster.silence(id, world.now), Duration::from_secs(9), "{id:?}");
        assert_eq!(standing(&world, id), Some(Standing::Hearsay));
    }
    // A later word that says less changes nothing.
    world.roster.note_silence(BTreeMap::from([(after.clone(), Duration::from_secs(1))]), world.now);
    world.later(1000).look(&[]);
    assert_eq!(standing(&world, &after), Some(Standing::Past));
}

#[test]
fn what_was_told_does_not_count_against_an_incarnation_that_is_heard() {
    let alive = id("a", 1);
    let mut world = World::new();
    world.roster.note_silence(BTreeMap::from([(alive.clone(), Duration::from_secs(60))]), world.now);
    world.states.insert(alive.clone(), state(&[]));
    world.look(&[&alive]);
    assert_eq!(standing(&world, &alive), Some(Standing::Witnessed));
    world.roster.start_over(id("self", 7), world.now);
    world.later(100);
    assert_eq!(world.roster.silence(&alive, world.now), Duration::from_millis(100));
    assert_eq!(standing(&world, &alive), Some(Standing::Hearsay), "this incarnation has not heard it");
}

#[test]
fn an_incarnation_whose_heartbeat_rises_is_told_of_before_it_is_proven() {
    let (alive, ended) = (id("a", 1), id("b", 1));
    let mut world = World::new();
    for id in [&alive, &ended] {
        world.states.insert(id.clone(), state(&[]));
    }
    // The first heartbeat may be an old one.
    for (beats, told) in [(&[&alive, &ended][..], Standing::Hearsay), (&[&alive], Standing::Witnessed)] {
        beats.iter().for_each(|id| world.beat(id));
        let own = id("self", 5);
        world.roster.look(&world.states, &HashSet::from([&own]), world.now);
        assert_eq!(standing(&world, &alive), Some(told));
        assert_eq!(standing(&world, &ended), Some(Standing::Hearsay));
    }
}
