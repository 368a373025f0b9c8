use super::*;
use crate::incarnation::announce::{self, Announcement};
use chitchat::Deserializable;
use proptest::prelude::*;

const CONFIG: LivenessConfig = LivenessConfig {
    suspect_after: Duration::from_millis(300),
    dead_after: Duration::from_millis(600),
    first_grace: Duration::from_secs(3),
};

pub fn id(node: &str, generation: u64) -> ChitchatId {
    ChitchatId::new(node, generation, ([127, 0, 0, 1], 7946).into())
}

pub fn said(pairs: &[(&str, &str)]) -> Announcement {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn texts(pairs: &[(&str, &str)]) -> Texts {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Arc::from(*value))).collect()
}

/// What chitchat knows of an incarnation that has said these, one after the other.
pub fn state(levels: &[Announcement]) -> NodeState {
    let mut state = NodeState::for_test();
    let Some((first, later)) = levels.split_first() else { return state };
    announce::first(first).into_iter().for_each(|(key, value)| state.set(key, value));
    for level in later {
        announce::write(&mut state, level);
    }
    state
}

pub struct World {
    pub roster: Roster,
    pub states: BTreeMap<ChitchatId, NodeState>,
    pub now: Duration,
    beat: u64,
}

impl World {
    pub fn new() -> Self {
        let states = BTreeMap::from([(id("self", 5), state(&[Announcement::new()]))]);
        Self { roster: Roster::new(id("self", 5), CONFIG, BTreeSet::new()), states, now: Duration::ZERO, beat: 0 }
    }

    /// A look after those `heard` have said something.
    pub fn look(&mut self, heard: &[&ChitchatId]) -> RosterChange {
        let own = id("self", 5);
        heard.iter().copied().chain([&own]).for_each(|id| self.beat(id));
        let heard = heard.iter().copied().chain([&own]).collect();
        self.roster.look(&self.states, &heard, self.now)
    }

    /// chitchat has another heartbeat of `id`.
    pub fn beat(&mut self, id: &ChitchatId) {
        if let Some(state) = self.states.get_mut(id) {
            self.beat += 1;
            let beat = Deserializable::deserialize(&mut &self.beat.to_le_bytes()[..]).expect("eight bytes");
            state.try_set_heartbeat(beat);
            assert_eq!(u64::from(state.heartbeat()), self.beat);
        }
    }

    pub fn later(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    fn host(&mut self, node: &str) -> Vec<(u64, bool, NodeLiveness)> {
        let hosts = self.roster.hosts();
        hosts
            .get(node)
            .into_iter()
            .flat_map(|incarnations| incarnations.iter())
            .map(|i| (i.generation, i.complete, i.liveness))
            .collect()
    }
}

#[test]
fn a_host_of_which_nothing_has_changed_is_shared_from_look_to_look() {
    let (a, b) = (id("a", 1), id("b", 1));
    let mut world = World::new();
    world.states.insert(a.clone(), state(&[said(&[("k", "v")])]));
    world.states.insert(b.clone(), state(&[said(&[("k", "v")])]));
    world.look(&[&a, &b]);
    let before = world.roster.hosts();
    world.states.insert(b.clone(), state(&[said(&[("k", "v")]), said(&[("k", "w")])]));
    world.look(&[&a, &b]);
    let after = world.roster.hosts();
    assert!(Arc::ptr_eq(&before["a"], &after["a"]));
    assert_ne!(before["b"], after["b"]);
}

#[test]
fn a_restart_takes_nothing_away() {
    let (old, new) = (id("a", 1), id("a", 2));
    let mut world = World::new();
    world.states.insert(old.clone(), state(&[said(&[("k", "v")])]));
    world.look(&[&old]);
    assert_eq!(world.host("a"), [(1, true, NodeLiveness::Live)]);

    world.states.insert(new.clone(), state(&[]));
    world.later(400).look(&[]);
    assert_eq!(world.host("a"), [(2, false, NodeLiveness::Live), (1, true, NodeLiveness::Suspect)]);

    world.states.insert(new.clone(), state(&[said(&[("k", "v")])]));
    assert!(world.later(100).look(&[&new]).changed);
    assert_eq!(world.host("a"), [(2, true, NodeLiveness::Live)]);
    assert_eq!(*world.roster.hosts()["a"][0].entries, texts(&[("k", "v")]), "the marker is not shown");
}

#[test]
fn a_copy_of_a_host_that_goes_on_is_not_listened_to() {
    let at = |generation, last| ChitchatId::new("a", generation, ([192, 0, 2, last], 7946).into());
    let (host, copy) = (at(1, 1), at(2, 9));
    let mut world = World::new();
    world.states.insert(host.clone(), state(&[said(&[("k", "v")])]));
    world.look(&[&host]);
    world.states.insert(copy.clone(), state(&[said(&[("k", "other")])]));
    for _ in 0..5 {
        world.later(200).look(&[&host, &copy]);
        assert_eq!(world.host("a"), [(1, true, NodeLiveness::Live)]);
    }
    // It may have started anew where it was.
    world.later(400).look(&[&copy]);
    assert_eq!(world.host("a"), [(1, true, NodeLiveness::Suspect)]);
    // It moved.
    world.later(300).look(&[&copy]);
    assert_eq!(world.host("a"), [(2, true, NodeLiveness::Live)]);
}

#[test]
fn a_state_that_is_fetched_again_stays_in_view_until_it_is_complete() {
    let a = id("a", 1);
    let mut world = World::new();
    world.states.insert(a.clone(), state(&[said(&[("k", "v"), ("l", "w")])]));
    world.look(&[&a]);

    let mut partial = NodeState::for_test();
    partial.set("k", "v");
    world.states.insert(a.clone(), partial);
    world.look(&[&a]);
    assert_eq!(*world.roster.hosts()["a"][0].entries, texts(&[("k", "v"), ("l", "w")]));

    world.states.insert(a.clone(), state(&[said(&[("k", "v")]), said(&[("k", "new")])]));
    world.look(&[&a]);
    assert_eq!(*world.roster.hosts()["a"][0].entries, texts(&[("k", "new")]));
}

#[test]
fn a_host_comes_goes_and_comes_back_and_each_is_told_once() {
    let (a, node) = (id("a", 1), Arc::<str>::from("a"));
    let mut world = World::new();
    world.states.insert(a.clone(), state(&[Announcement::new()]));
    let appeared = Event::Appeared { node: node.clone(), addr: a.gossip_advertise_addr };
    assert_eq!(world.look(&[&a]).events, [appeared]);
    assert_eq!(world.later(400).look(&[]), RosterChange { changed: true, events: vec![] });
    assert_eq!(world.roster.peers().len(), 1, "a suspect is still told of changes");
    assert_eq!(world.later(200).look(&[]).events, [Event::Gone { node: node.clone() }]);
    assert_eq!(world.roster.peers().len(), 0);
    assert!(!world.later(1000).look(&[]).changed, "nothing new");
    assert_eq!(world.later(100).look(&[&a]).events, [Event::Back { node }]);

    world.states.remove(&a);
    assert!(world.look(&[]).changed);
    assert_eq!(world.host("a"), []);
}

#[test]
fn a_push_is_shown_at_once_and_chitchat_changes_nothing_when_it_catches_up() {
    let a = id("a", 1);
    let mut world = World::new();
    let push = |after, upto, changes: &[(&str, u64, Option<&str>)]| Push {
        id: id("a", 1),
        after,
        upto,
        whole: true,
        changes: changes
            .iter()
            .map(|(key, version, value)| {
                ((*key).to_owned(), Stamped { version: *version, value: value.map(Arc::from) })
            })
            .collect(),
    };
    let first = push(2, 5, &[("l", 3, Some("w")), ("k", 4, None)]);
    assert_eq!(world.roster.receive(&first), None, "not known yet");

    world.states.insert(a.clone(), state(&[said(&[("k", "v")])]));
    world.look(&[&a]);
    assert_eq!(world.roster.receive(&first), Some(Fit::Contiguous));
    assert!(world.look(&[&a]).changed);
    assert_eq!(*world.roster.hosts()["a"][0].entries, texts(&[("l", "w")]));

    world.states.insert(a.clone(), state(&[said(&[("k", "v")]), said(&[("l", "w")])]));
    world.look(&[&a]);
    assert_eq!(*world.roster.hosts()["a"][0].entries, texts(&[("l", "w")]));
    assert_eq!(world.roster.receive(&push(9, 10, &[("m", 10, Some("x"))])), Some(Fit::Gap));
}

#[test]
fn who_starts_over_gives_all_the_benefit_of_the_doubt() {
    let a = id("a", 1);
    let mut world = World::new();
    world.states.insert(a.clone(), state(&[Announcement::new()]));
    world.look(&[&a]);
    world.roster.start_over(id("self", 6), world.now);
    assert_eq!(world.later(2000).look(&[]).events, []);
    assert_eq!(world.host("a"), [(1, true, NodeLiveness::Live)]);
}

#[test]
fn the_census_counts_hosts_and_not_incarnations() {
    let mut world = World::new();
    world.states.insert(id("a", 1), state(&[Announcement::new()]));
    world.states.insert(id("a", 2), state(&[]));
    world.states.insert(id("b", 1), state(&[Announcement::new()]));
    world.look(&[&id("b", 1)]);
    let census = world.roster.census();
    assert_eq!(census, Census { complete: 1, lacking: 1 });
    world.later(3000).look(&[&id("b", 1)]);
    let census = world.roster.census();
    assert_eq!(census, Census { complete: 1, lacking: 0 }, "who is dead is not waited for");
}

#[test]
fn another_with_our_id_is_told_once() {
    let rival = id("self", 6);
    let mut world = World::new();
    world.states.insert(id("self", 4), state(&[Announcement::new()]));
    world.states.insert(rival.clone(), state(&[Announcement::new()]));
    assert_eq!(world.look(&[]).events, [], "hearsay");
    assert_eq!(world.look(&[&rival]).events, [Event::Rival { addr: rival.gossip_advertise_addr }]);
    assert_eq!(world.look(&[&rival]).events, []);
}

proptest! {
    /// A host says one thing after the other; each moment of it is seen, or not, in any order of pushes and states.
    #[test]
    fn all_pushes_and_states_end_in_what_was_said_last(
        levels in proptest::collection::vec(proptest::collection::btree_map("[a-d]", "[x-z]", 0..4), 1..6),
        order in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..20),
    ) {
        let a = id("a", 1);
        let mut full = state(&levels[..1]);
        let mut states = vec![full.clone()];
        let mut pushes = Vec::new();
        for level in &levels[1..] {
            let announce::Written { after, upto, changes, .. } = announce::write(&mut full, level);
            pushes.push(Push { id: a.clone(), after, upto, whole: true, changes });
            states.push(full.clone());
        }
        let mut world = World::new();
        let mut reached = 0;
        for (at, pushed) in order {
            if pushed && !pushes.is_empty() {
                world.roster.receive(at.get(&pushes));
            } else {
                reached = reached.max(at.index(states.len())); // chitchat never goes back
                world.states.insert(a.clone(), states[reached].clone());
                world.look(&[&a]);
            }
        }
        world.states.insert(a.clone(), full.clone());
        world.look(&[&a]);
        let last: Texts = levels.last().into_iter().flatten().map(|(k, v)| (k.clone(), Arc::from(v.as_str()))).collect();
        prop_assert_eq!(&*world.roster.hosts()["a"][0].entries, &last);
    }
}

#[test]
fn a_host_that_was_there_before_is_waited_for_until_it_is_known() {
    let mut world = World::new();
    world.roster = Roster::new(id("self", 5), CONFIG, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    world.states.insert(id("a", 1), state(&[Announcement::new()]));
    world.look(&[&id("a", 1)]);
    assert_eq!(world.roster.census(), Census { complete: 1, lacking: 1 });
    world.states.insert(id("b", 1), state(&[Announcement::new()]));
    world.look(&[&id("a", 1)]);
    assert_eq!(world.roster.census(), Census { complete: 1, lacking: 0 }, "known by hearsay is enough");
}

#[test]
fn a_new_incarnation_of_ours_does_not_raise_the_dead() {
    let (a, b) = (id("a", 1), id("b", 1));
    let mut world = World::new();
    for id in [&a, &b] {
        world.states.insert(id.clone(), state(&[Announcement::new()]));
    }
    world.look(&[&a, &b]);
    world.later(300).look(&[&b]);
    world.later(300).look(&[&b]);
    assert_eq!(world.host("a"), [(1, true, NodeLiveness::Dead)]);

    world.roster.start_over(id("self", 5), world.now);
    let look = world.later(100).look(&[]);
    assert_eq!(look.events, []);
    assert_eq!(world.host("a"), [(1, true, NodeLiveness::Dead)]);
    assert_eq!(world.host("b"), [(1, true, NodeLiveness::Live)], "it gets the time to be heard");
    assert_eq!(world.look(&[&a]).events, [Event::Back { node: "a".into() }]);
}
