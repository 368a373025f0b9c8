use super::*;
use proptest::prelude::*;

fn announcement() -> impl Strategy<Value = Announcement> {
    proptest::collection::btree_map("[a-e]", "[x-z]{0,2}", 0..5)
}

fn said(state: &NodeState) -> Announcement {
    state.key_values().filter(|(key, _)| *key != MARKER).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn started_with(wanted: &Announcement) -> NodeState {
    let mut state = NodeState::for_test();
    first(wanted).into_iter().for_each(|(key, value)| state.set(key, value));
    state
}

proptest! {
    #[test]
    fn what_is_wanted_is_said_and_the_marker_comes_last(levels in proptest::collection::vec(announcement(), 1..8)) {
        let mut state = started_with(&levels[0]);
        for wanted in &levels {
            let before = said(&state);
            let written = write(&mut state, wanted);
            prop_assert_eq!(&said(&state), wanted);
            prop_assert_eq!(written.changes.is_empty(), &before == wanted);
            prop_assert_eq!(state.get_versioned(MARKER).map(|v| v.version), Some(state.max_version()));
            prop_assert_eq!(written.upto, state.max_version());
        }
    }

    #[test]
    fn writing_twice_writes_nothing(from in announcement(), to in announcement()) {
        let mut state = started_with(&from);
        write(&mut state, &to);
        let version = state.max_version();
        let again = write(&mut state, &to);
        prop_assert_eq!(again, Written { after: version, upto: version, ..Written::default() });
    }

    #[test]
    fn the_changes_are_in_order_sets_before_deletes(from in announcement(), to in announcement()) {
        let mut state = started_with(&from);
        let written = write(&mut state, &to);
        let versions: Vec<_> = written.changes.iter().map(|(_, stamped)| stamped.version).collect();
        let expected: Vec<_> = (written.after + 1..).take(versions.len()).collect();
        prop_assert_eq!(versions, expected);
        prop_assert!(written.changes.is_sorted_by_key(|(_, stamped)| stamped.value.is_none()));
        for (key, stamped) in written.changes {
            prop_assert_eq!(stamped.value.as_deref(), to.get(&key).map(String::as_str));
        }
    }
}

#[test]
fn what_cannot_be_said_is_refused_and_what_was_said_of_it_stands() {
    let mut state = started_with(&Announcement::from([("big".to_owned(), "small".to_owned())]));
    let wanted = Announcement::from([
        ("big".to_owned(), "x".repeat(MAX_VALUE + 1)),
        ("k".repeat(MAX_KEY + 1), String::new()),
        (MARKER.to_owned(), "forged".to_owned()),
        ("good".to_owned(), "x".repeat(MAX_VALUE)),
    ]);
    let written = write(&mut state, &wanted);
    assert_eq!(written.refused.len(), 3);
    assert_eq!(state.get("big"), Some("small"));
    assert_eq!(state.get("good").map(str::len), Some(MAX_VALUE));
    assert_eq!(first(&wanted).iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["good", MARKER]);
}
