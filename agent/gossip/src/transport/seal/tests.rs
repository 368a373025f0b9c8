use super::*;
use crate::transport::datagram::MAX_DATAGRAM;
use proptest::prelude::*;

struct Pair {
    sealer: Sealer,
    opener: Opener,
}

impl Pair {
    fn new() -> Self {
        Self::with_keys(&key(1), key(1))
    }

    fn with_keys(seal: &ClusterKey, open: ClusterKey) -> Self {
        let sealer = Sealer::new(seal).expect("randomness");
        Self { sealer, opener: Opener::new(open, [0; 16]) }
    }

    fn seal_one(&mut self, message: &[u8]) -> Vec<u8> {
        let mut datagrams = self.sealer.seal(message).expect("a small message");
        assert_eq!(datagrams.len(), 1);
        datagrams.remove(0)
    }
}

fn key(seed: u8) -> ClusterKey {
    use base64::prelude::{BASE64_STANDARD, Engine};
    ClusterKey::parse(&BASE64_STANDARD.encode([seed; 32])).expect("32 bytes")
}

proptest! {
    #[test]
    fn what_was_sealed_is_opened_unchanged(message in proptest::collection::vec(any::<u8>(), 1..20_000)) {
        let mut pair = Pair::new();
        let mut whole = Vec::new();
        for (index, mut datagram) in pair.sealer.seal(&message).expect("within the limit").into_iter().enumerate() {
            prop_assert!(datagram.len() <= MAX_DATAGRAM);
            let opened = pair.opener.open(&mut datagram).expect("sealed with the same key");
            prop_assert_eq!(usize::from(opened.index.index), index);
            prop_assert_eq!(opened.counter, index as u64 + 1);
            whole.extend_from_slice(opened.part);
        }
        prop_assert_eq!(whole, message);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_rejected(
        message in proptest::collection::vec(any::<u8>(), 1..100),
        at in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut pair = Pair::new();
        let good = pair.seal_one(&message);
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= 1 << bit;
        prop_assert!(pair.opener.open(&mut bad).is_err());
        prop_assert!(pair.opener.open(&mut good.clone()).is_ok(), "the bad one left something behind");
    }

    #[test]
    fn a_truncated_or_extended_datagram_is_rejected(
        message in proptest::collection::vec(any::<u8>(), 1..100),
        at in any::<proptest::sample::Index>(),
    ) {
        let mut pair = Pair::new();
        let mut good = pair.seal_one(&message);
        prop_assert!(pair.opener.open(&mut good[..at.index(good.len())].to_vec()).is_err());
        good.push(0);
        prop_assert!(pair.opener.open(&mut good).is_err());
    }

    #[test]
    fn junk_is_never_opened_and_never_panics(mut junk in proptest::collection::vec(any::<u8>(), 0..200), ours: bool) {
        if ours {
            junk.splice(0..0, *b"ovg\x01");
        }
        prop_assert!(Pair::new().opener.open(&mut junk).is_err());
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let mut pair = Pair::new();
    let good = pair.seal_one(b"hello");

    let mut other = b"GET / HTTP/1.1".to_vec();
    assert_eq!(pair.opener.open(&mut other), Err(Reason::NotOurs));
    assert_eq!(pair.opener.open(&mut []), Err(Reason::NotOurs));

    let mut newer = good.clone();
    newer[3] = VERSION + 1;
    assert_eq!(pair.opener.open(&mut newer), Err(Reason::BadVersion));

    assert_eq!(pair.opener.open(&mut good[..20].to_vec()), Err(Reason::Malformed));
    assert_eq!(pair.opener.open(&mut good[..HEADER + 5].to_vec()), Err(Reason::BadSeal));

    // The first of a session, and a later one.
    let later = pair.seal_one(b"hello again");
    for datagram in [&good, &later] {
        assert!(pair.opener.open(&mut datagram.clone()).is_ok());
        assert_eq!(pair.opener.open(&mut datagram.clone()), Err(Reason::Replayed));
    }

    let mut own = Opener::new(key(1), pair.sealer.session());
    assert_eq!(own.open(&mut good.clone()), Err(Reason::Reflected));
}

#[test]
fn another_key_opens_nothing() {
    let mut pair = Pair::with_keys(&key(1), key(2));
    let mut datagram = pair.seal_one(b"hello");
    assert_eq!(pair.opener.open(&mut datagram), Err(Reason::BadSeal));
    assert!(pair.opener.sessions.is_empty());
}

#[test]
fn the_text_is_not_in_the_datagram() {
    let datagram = Pair::new().seal_one(b"a secret of some length");
    assert!(!datagram.windows(8).any(|window| window == b"a secret"));
}

#[test]
fn the_number_of_sessions_is_bounded() {
    let mut opener = Opener::new(key(1), [0; 16]);
    let mut first = None;
    for _ in 0..=MAX_SESSIONS {
        let mut sealer = Sealer::new(&key(1)).expect("randomness");
        first.get_or_insert(sealer.session());
        let mut datagram = sealer.seal(b"x").expect("small").remove(0);
        opener.open(&mut datagram).expect("a good seal");
    }
    assert_eq!(opener.sessions.len(), MAX_SESSIONS);
    assert!(!opener.sessions.contains_key(&first.expect("one")), "the least recently used goes");
}
