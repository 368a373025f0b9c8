use super::*;
use proptest::prelude::*;

fn id() -> ChitchatId {
    ChitchatId::new("0123abcd", 1_700_000_000_000, ([192, 0, 2, 1], 7946).into())
}

/// A batch of changes with the versions 11, 12, ...
fn batch(values: Vec<Option<String>>) -> Push {
    let changes: Vec<_> = (11..)
        .zip(values)
        .map(|(version, value)| (format!("e/{version}"), Stamped { version, value: value.map(Into::into) }))
        .collect();
    Push { id: id(), after: 10, upto: 11 + changes.len() as u64, whole: true, changes }
}

proptest! {
    #[test]
    fn a_push_survives_the_wire(values in proptest::collection::vec(proptest::option::of(".{0,50}"), 0..20)) {
        let push = batch(values);
        let messages = push.messages();
        prop_assert_eq!(messages.len(), 1);
        prop_assert_eq!(Push::decode(&messages[0]), Ok(push));
    }

    #[test]
    fn a_large_batch_is_split_without_its_deletes(
        values in proptest::collection::vec(proptest::option::of(10_000_usize..MAX_VALUE), 10..40)
    ) {
        let push = batch(values.into_iter().map(|length| length.map(|length| "x".repeat(length))).collect());
        let messages = push.messages();
        if messages.len() == 1 {
            return Ok(());
        }
        let mut set = Vec::new();
        for message in messages {
            prop_assert!(message.len() <= MAX_PUSH);
            let part = Push::decode(&message).expect("our own");
            prop_assert!(!part.whole);
            set.extend(part.changes);
        }
        let expected: Vec<_> = push.changes.into_iter().filter(|(_, stamped)| stamped.value.is_some()).collect();
        prop_assert_eq!(set, expected);
    }

    #[test]
    fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Push::decode(&junk);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = batch(vec![Some("value".to_owned())]);
    type Spoil = fn(&mut Push);
    let cases: [(&str, Spoil, Reason); 8] = [
        ("no host", |p| p.id.node_id = "".into(), Reason::Malformed),
        ("a range that falls", |p| p.after = p.upto + 1, Reason::Malformed),
        ("a version before overflow", |p| p.upto = u64::MAX, Reason::Malformed),
        ("a version before the batch", |p| p.changes[0].1.version = p.after, Reason::Malformed),
        ("a version after the batch", |p| p.changes[0].1.version = p.upto + 1, Reason::Malformed),
        ("the reserved key", |p| p.changes[0].0 = MARKER.to_owned(), Reason::Malformed),
        ("a long key", |p| p.changes[0].0 = "k".repeat(MAX_KEY + 1), Reason::Oversize),
        ("a large value", |p| p.changes[0].1.value = Some("v".repeat(MAX_VALUE + 1).into()), Reason::Oversize),
    ];
    for (what, spoil, reason) in cases {
        let mut push = good.clone();
        spoil(&mut push);
        assert_eq!(Push::decode(&push.encode()), Err(reason), "{what}");
    }
    let wire = WirePush { node: "x".to_owned(), address: "no address".to_owned(), ..WirePush::default() };
    assert_eq!(Push::decode(&wire.encode_to_vec()), Err(Reason::Malformed));
}
