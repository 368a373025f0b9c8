use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use overlay_gossip::{Hosts, View};

const ME: u8 = 0;

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

/// What gossip can show of a host: what its lives say, and whether it is heard.
fn lives() -> impl Strategy<Value = Vec<gossip::NodeIncarnation>> {
    let said =
        btree_map("[hfx]", "[a-c]{1,2}", 0..3).prop_map(|said| said.into_iter().map(|(k, v)| (k, v.into())).collect());
    let liveness = prop_oneof![
        Just(gossip::NodeLiveness::Live),
        Just(gossip::NodeLiveness::Suspect),
        Just(gossip::NodeLiveness::Dead)
    ];
    let life =
        (0_u64..4, any::<bool>(), liveness, said, 1_u16..3).prop_map(|(generation, complete, liveness, said, port)| {
            gossip::NodeIncarnation {
                generation,
                gossip_addr: ([127, 0, 0, 1], port).into(),
                complete,
                liveness,
                entries: Arc::new(said),
            }
        });
    vec(life, 1..3).prop_map(|mut lives| {
        lives.sort_by_key(|life| std::cmp::Reverse(life.generation));
        lives.dedup_by_key(|life| life.generation);
        lives
    })
}

/// What changes between two views: of some hosts what they say, or that they are gone.
type Change = BTreeMap<u8, Option<Vec<gossip::NodeIncarnation>>>;

fn changes() -> impl Strategy<Value = Vec<(Change, BTreeSet<u8>)>> {
    vec((btree_map(ME..4, proptest::option::of(lives()), 0..3), btree_set(1_u8..4, 0..2)), 1..12)
}

/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(3600);

proptest! {
    /// Whatever came before, of those that gossip shows is heard what the last view shows, and whatever differs is told. Of
    /// those that it shows no more their last word stays.
    #[test]
    fn the_last_view_counts_and_of_those_that_are_in_none_their_last_word(changes in changes()) {
        let (mut heard, mut hosts) = (Heard::new(LONG), Hosts::new());
        for (change, absent) in changes {
            for (number, lives) in change {
                let node: Arc<str> = host(number).to_string().into();
                match lives {
                    Some(lives) => _ = hosts.insert(node, lives.into()),
                    None => _ = hosts.remove(&node),
                }
            }
            let view = Arc::new(View { synced: true, hosts: hosts.clone(), ..View::default() });
            let absent: BTreeSet<HostId> = absent.into_iter().map(host).collect();
            let before = heard.records.clone();
            let changed = heard.hear(host(ME), Arc::clone(&view), &absent, Instant::now());

            let mut afresh = Heard::new(LONG);
            afresh.hear(host(ME), view, &absent, Instant::now());
            for (id, lives) in &heard.records {
                let said = |lives: &[Incarnation]| lives.iter().map(|l| (l.generation, l.record.clone())).collect::<Vec<_>>();
                match afresh.records.get(id) {
                    Some(shown) => prop_assert_eq!(lives, shown),
                    None => {
                        let expected = if absent.contains(id) { Liveness::Dead } else { Liveness::Suspect };
                        prop_assert!(lives.iter().all(|life| life.liveness == expected));
                        prop_assert_eq!(before.get(id).map(|lives| said(lives)), Some(said(lives)), "its last word");
                    }
                }
            }
            prop_assert!(afresh.records.keys().chain(before.keys()).all(|id| heard.records.contains_key(id)));
            prop_assert!(afresh.addresses.iter().all(|(id, at)| heard.addresses.get(id) == Some(at)));
            prop_assert!(!heard.records.contains_key(&host(ME)), "of itself a host hears nothing");
            for id in before.keys().chain(heard.records.keys()) {
                prop_assert!(before.get(id) == heard.records.get(id) || changed.contains(id), "{} has changed", id.short());
            }
        }
    }
}

fn silent_life() -> gossip::NodeIncarnation {
    gossip::NodeIncarnation {
        generation: 1,
        gossip_addr: ([127, 0, 0, 1], 1).into(),
        complete: true,
        liveness: gossip::NodeLiveness::Dead,
        entries: Arc::default(),
    }
}

fn showing(lives: &[gossip::NodeIncarnation]) -> Arc<View> {
    let hosts = lives.iter().map(|life| (host(1).to_string().into(), [life.clone()].into()));
    Arc::new(View { synced: true, hosts: hosts.collect(), ..View::default() })
}

#[test]
fn a_host_that_gossip_forgets_is_remembered_as_long_as_its_machine_answers() {
    let (mut heard, start, nobody) = (Heard::new(Duration::from_secs(2)), Instant::now(), BTreeSet::new());
    heard.hear(host(ME), showing(&[silent_life()]), &nobody, start);
    assert_eq!(heard.hear(host(ME), showing(&[]), &nobody, start), [host(1)].into());
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Suspect);
    assert_eq!(heard.hear(host(ME), showing(&[]), &nobody, start + LONG), nobody, "however long");
    assert_eq!(heard.next_deadline(), None);
    assert!(heard.records.contains_key(&host(1)));

    // It is heard again: what it says now counts.
    let life = gossip::NodeIncarnation { generation: 2, liveness: gossip::NodeLiveness::Live, ..silent_life() };
    heard.hear(host(ME), showing(&[life]), &nobody, start + LONG);
    let shown = &heard.records[&host(1)];
    assert_eq!((shown.len(), shown[0].generation, shown[0].liveness), (1, 2, Liveness::Live));
}

#[test]
fn a_host_that_gossip_forgets_is_forgotten_when_its_machine_has_been_absent_for_as_long() {
    let remembered = Duration::from_secs(2);
    let (mut heard, start, nobody) = (Heard::new(remembered), Instant::now(), BTreeSet::new());
    let absent: BTreeSet<HostId> = [host(1)].into();
    let after = |seconds| start + Duration::from_secs(seconds);
    heard.hear(host(ME), showing(&[silent_life()]), &nobody, start);
    heard.hear(host(ME), showing(&[]), &nobody, start);
    assert_eq!(heard.hear(host(ME), showing(&[]), &absent, after(10)), absent);
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Dead);
    assert_eq!(heard.next_deadline(), Some(after(12)));

    // A network that is down for a moment takes nothing away.
    assert_eq!(heard.hear(host(ME), showing(&[]), &nobody, after(11)), absent);
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Suspect);

    heard.hear(host(ME), showing(&[]), &absent, after(20));
    assert_eq!(heard.hear(host(ME), showing(&[]), &absent, after(21)), nobody);
    assert_eq!(heard.hear(host(ME), showing(&[]), &absent, after(22)), absent);
    assert!(heard.records.is_empty() && heard.addresses.is_empty() && heard.kept.is_empty());
    assert_eq!(heard.next_deadline(), None);
}

#[test]
fn a_host_that_was_off_before_gossip_forgot_it_is_forgotten_with_that() {
    let (mut heard, start) = (Heard::new(Duration::from_secs(2)), Instant::now());
    let absent: BTreeSet<HostId> = [host(1)].into();
    heard.hear(host(ME), showing(&[silent_life()]), &absent, start);
    heard.hear(host(ME), showing(&[silent_life()]), &absent, start + LONG);
    assert!(heard.records.contains_key(&host(1)), "gossip still tells of it");
    assert_eq!(heard.hear(host(ME), showing(&[]), &absent, start + LONG), absent);
    assert!(heard.records.is_empty());
}

#[test]
fn a_host_that_the_operator_forgot_is_let_go_with_gossip() {
    let (mut heard, start, nobody) = (Heard::new(LONG), Instant::now(), BTreeSet::new());
    heard.hear(host(ME), showing(&[silent_life()]), &nobody, start);
    heard.release(&[host(1)]);
    assert!(heard.records.contains_key(&host(1)), "gossip still tells of it");
    heard.hear(host(ME), showing(&[]), &nobody, start);
    heard.release(&[host(1)]);
    assert!(heard.records.is_empty());
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let life = |liveness| gossip::NodeIncarnation {
        generation: 1,
        gossip_addr: ([127, 0, 0, 1], 1).into(),
        complete: true,
        liveness,
        entries: Arc::default(),
    };
    let (mut heard, node) = (Heard::new(LONG), Arc::<str>::from(host(1).to_string()));
    let shown: Arc<[gossip::NodeIncarnation]> = [life(gossip::NodeLiveness::Live)].into();
    let view = |lives: &Arc<[gossip::NodeIncarnation]>| {
        let hosts = Hosts::from([(Arc::clone(&node), Arc::clone(lives))]);
        Arc::new(View { synced: true, hosts, ..View::default() })
    };
    assert_eq!(heard.hear(host(ME), view(&shown), &BTreeSet::new(), Instant::now()), [host(1)].into());
    let record = Arc::clone(&heard.records[&host(1)][0].record);
    assert_eq!(heard.hear(host(ME), view(&shown), &BTreeSet::new(), Instant::now()), BTreeSet::new());

    // It falls silent: that is news, but what it says is the same.
    let silent =
        [gossip::NodeIncarnation { entries: Arc::clone(&shown[0].entries), ..life(gossip::NodeLiveness::Dead) }].into();
    assert_eq!(heard.hear(host(ME), view(&silent), &BTreeSet::new(), Instant::now()), [host(1)].into());
    assert!(Arc::ptr_eq(&record, &heard.records[&host(1)][0].record));
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Suspect);

    assert_eq!(heard.hear(host(ME), view(&silent), &[host(1)].into(), Instant::now()), [host(1)].into());
    assert_eq!(heard.records[&host(1)][0].liveness, Liveness::Dead);
    assert!(Arc::ptr_eq(&record, &heard.records[&host(1)][0].record));
}

#[test]
fn of_texts_that_have_changed_only_the_changed_ones_are_read() {
    let texts = |all: &[(&str, &str)]| -> Arc<gossip::Texts> {
        Arc::new(all.iter().map(|(key, text)| ((*key).to_owned(), (*text).into())).collect())
    };
    let read = |texts, before| ReadTexts::read(host(1), texts, before);
    let (one, two) = (
        texts(&[("a", "1"), ("c", "1"), ("d", "1"), ("f", "1")]),
        texts(&[("b", "1"), ("c", "1"), ("d", "2"), ("e", "1"), ("f", "1")]),
    );
    let first = read(&one, None);
    let second = read(&two, Some(&first));
    let kept = |n: usize| first.parts.iter().any(|part| Arc::ptr_eq(part, &second.parts[n]));
    assert_eq!([0, 1, 2, 3, 4].map(kept), [false, true, false, false, true]);
}
