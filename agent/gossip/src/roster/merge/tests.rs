use std::sync::Arc;

use super::*;
use chitchat::ChitchatId;
use proptest::prelude::*;

fn entries() -> impl Strategy<Value = Entries> {
    let stamped = (0_u64..6, proptest::option::of("[xy]"))
        .prop_map(|(version, value)| Stamped { version, value: value.map(Arc::from) });
    proptest::collection::btree_map("[a-d]", stamped, 0..5)
}

proptest! {
    #[test]
    fn join_is_commutative(a in entries(), b in entries()) {
        prop_assert_eq!(join(a.clone(), &b), join(b, &a));
    }

    #[test]
    fn join_is_associative(a in entries(), b in entries(), c in entries()) {
        prop_assert_eq!(join(join(a.clone(), &b), &c), join(a, &join(b, &c)));
    }

    #[test]
    fn join_is_idempotent_and_loses_no_key(a in entries(), b in entries()) {
        let both = join(a.clone(), &b);
        prop_assert_eq!(join(both.clone(), &b), both.clone());
        prop_assert_eq!(join(both.clone(), &a), both.clone());
        prop_assert!(a.keys().chain(b.keys()).all(|key| both.contains_key(key)));
    }

    /// A host moves an item from key to key: it sets the new key, and in the next batch deletes the old one. Whatever pushes are lost,
    /// late or twice, and however far chitchat has come, a receiver sees the item at every moment.
    #[test]
    fn an_item_that_moves_is_never_out_of_sight(
        steps in proptest::collection::vec((0_usize..12, prop_oneof![Just(None), (0_usize..12).prop_map(Some)]), 1..40)
    ) {
        let log = moves(6);
        let mut pushed = PushedEntries::default();
        let mut caught_up = 1; // The receiver has the first set already.
        for (arrived, chitchat) in steps {
            pushed.receive(&log[arrived], caught_up);
            if let Some(reached) = chitchat {
                caught_up = caught_up.max(log[reached].upto);
                pushed.prune(caught_up);
            }
            let shown = join(state_at(&log, caught_up), pushed.entries());
            prop_assert!(shown.values().any(|stamped| stamped.value.is_some()), "{:?}", shown);
        }
    }
}

/// Pushes of a host that has set key 0 as version 1 and moves on key by key, two batches a move.
fn moves(moves: u64) -> Vec<Push> {
    (0..moves)
        .flat_map(|n| {
            let after = 1 + 2 * n;
            let set = Stamped { version: after + 1, value: Some("item".into()) };
            let delete = Stamped { version: after + 2, value: None };
            [
                push(after, after + 1, vec![((n + 1).to_string(), set)]),
                push(after + 1, after + 2, vec![(n.to_string(), delete)]),
            ]
        })
        .collect()
}

/// What chitchat has at a version: all keys with their last change up to then.
fn state_at(log: &[Push], version: Version) -> Entries {
    let first = Stamped { version: 1, value: Some("item".into()) };
    let mut state = Entries::from([("0".to_owned(), first)]);
    for (key, stamped) in log.iter().flat_map(|push| &push.changes).filter(|(_, s)| s.version <= version) {
        put(&mut state, key, stamped);
    }
    state
}

fn push(after: Version, upto: Version, changes: Vec<(String, Stamped)>) -> Push {
    let id = ChitchatId::new("host", 1, ([127, 0, 0, 1], 7946).into());
    Push { id, after, upto, whole: true, changes }
}

fn set(version: Version) -> Stamped {
    Stamped { version, value: Some("value".into()) }
}

#[test]
fn a_gap_holds_back_deletes_and_nothing_else() {
    let mut pushed = PushedEntries::default();
    let changes = vec![("new".to_owned(), set(6)), ("old".to_owned(), Stamped { version: 7, value: None })];
    assert_eq!(pushed.receive(&push(5, 7, changes.clone()), 3), Fit::Gap);
    assert_eq!(pushed.entries().keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(pushed.receive(&push(3, 5, vec![("between".to_owned(), set(5))]), 3), Fit::Contiguous);
    assert_eq!(pushed.receive(&push(5, 7, changes), 3), Fit::Contiguous);
    assert_eq!(pushed.entries().keys().collect::<Vec<_>>(), ["between", "new", "old"]);
}

#[test]
fn what_chitchat_has_is_neither_kept_nor_taken() {
    let mut pushed = PushedEntries::default();
    pushed.receive(&push(0, 2, vec![("a".to_owned(), set(1)), ("b".to_owned(), set(2))]), 0);
    pushed.prune(1);
    assert_eq!(pushed.entries().keys().collect::<Vec<_>>(), ["b"]);
    pushed.receive(&push(0, 2, vec![("a".to_owned(), set(1))]), 1);
    assert_eq!(pushed.entries().keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn the_number_of_keys_ahead_is_bounded() {
    let mut pushed = PushedEntries::default();
    let changes = (1..=MAX_PUSHED as u64 + 10).map(|n| (format!("{n:06}"), set(n))).collect();
    pushed.receive(&push(0, MAX_PUSHED as u64 + 10, changes), 0);
    assert_eq!(pushed.entries().len(), MAX_PUSHED);
}
