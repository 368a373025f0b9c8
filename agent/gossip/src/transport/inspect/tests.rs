use super::*;
use chitchat::Serializable;
use proptest::prelude::*;

fn id(generation: u64) -> ChitchatId {
    ChitchatId::new("host", generation, ([127, 0, 0, 1], 7946).into())
}

/// A message of this kind whose streams hold `parts`, uncompressed.
fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend([FORMAT_V1, kind]);
    for part in parts {
        for block in part.chunks(MAX_BLOCK) {
            bytes.push(2);
            bytes.extend((block.len() as u16).to_le_bytes());
            bytes.extend_from_slice(block);
        }
        bytes.push(0);
    }
    bytes
}

fn node(id: &ChitchatId) -> Vec<u8> {
    let mut op = vec![0];
    id.serialize(&mut op);
    op.extend([0; 16]);
    op
}

fn key_value(version: Version) -> Vec<u8> {
    set("key", "value", version)
}

fn set(key: &str, value: &str, version: Version) -> Vec<u8> {
    let mut op = vec![1];
    key.serialize(&mut op);
    value.serialize(&mut op);
    version.serialize(&mut op);
    op.push(0);
    op
}

/// A message of chitchat that tells of one key of `id`.
pub fn ack_about(id: &ChitchatId, key: &str, value: &str, version: Version) -> Vec<u8> {
    message(2, &[&[node(id), set(key, value, version)].concat()])
}

/// A message of chitchat that begins an exchange. The numbers of each incarnation are heartbeat, last gc version and max version.
pub fn syn(digest: &[(ChitchatId, [u64; 3])]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (id, numbers) in digest {
        id.serialize(&mut entries);
        numbers.iter().for_each(|number| number.serialize(&mut entries));
    }
    let mut bytes = message(0, &[]);
    for part in entries.chunks(MAX_BLOCK) {
        let block = zstd::bulk::compress(part, 0).expect("zstd");
        bytes.push(1);
        bytes.extend((block.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&block);
    }
    bytes.push(0);
    "overlay".serialize(&mut bytes);
    bytes
}

fn end(version: Version) -> Vec<u8> {
    let mut op = vec![2];
    version.serialize(&mut op);
    op
}

fn digest_entry(id: &ChitchatId, heartbeat: u64) -> Vec<u8> {
    let mut entry = id.serialize_to_vec();
    for number in [heartbeat, 0, 5] {
        number.serialize(&mut entry);
    }
    entry
}

#[test]
fn a_delta_is_summed_up_by_its_highest_versions() {
    let ops = [node(&id(1)), key_value(3), key_value(4), node(&id(2)), end(9)].concat();
    let summary = inspect(&message(2, &[&ops])).expect("well formed");
    assert_eq!(summary, Summary { digest: 0, unheard: 0, deltas: vec![(id(1), 4), (id(2), 9)] });
}

fn knowing(incarnations: usize, digest: usize) -> Counters {
    let counters = Counters::default();
    counters.note_use(Limit::Incarnations, incarnations);
    counters.note_use(Limit::Digest, digest);
    counters
}

#[test]
fn words_that_we_never_said_are_refused_and_our_own_are_not() {
    let summary = inspect(&message(2, &[&[node(&id(1)), key_value(4)].concat()])).expect("well formed");
    assert_eq!(summary.admit((&id(1), 3), &knowing(0, 0)), Err(Reason::AboutSelf));
    assert_eq!(summary.admit((&id(1), 4), &knowing(0, 0)), Ok(()));
    assert_eq!(summary.admit((&id(2), 0), &knowing(0, 0)), Ok(()), "an older incarnation of ours is another's to tell");
}

#[test]
fn what_would_make_chitchat_panic_is_refused() {
    let about = node(&id(1));
    for (what, ops) in [
        ("a version before overflow", [about.clone(), key_value(u64::MAX)].concat()),
        ("an end before the last key", [about.clone(), key_value(4), end(3)].concat()),
        ("falling versions", [about.clone(), key_value(4), key_value(4)].concat()),
        ("a key of nobody", key_value(1)),
        ("an end of nobody", end(1)),
        ("a host twice", [about.clone(), about.clone()].concat()),
        ("an unknown operation", vec![9]),
        ("half an operation", about[..about.len() - 1].to_vec()),
    ] {
        assert_eq!(inspect(&message(2, &[&ops])), Err(Reason::Malformed), "{what}");
    }
    let entry = digest_entry(&id(1), u64::MAX);
    assert_eq!(inspect(&message(1, &[&entry, &[]])), Err(Reason::Malformed), "a heartbeat before overflow");
}

#[test]
fn a_digest_that_no_answer_can_hold_is_refused() {
    let many: Vec<u8> = (0..MAX_INCARNATIONS as u64 + 1).flat_map(|g| digest_entry(&id(g), 1)).collect();
    assert_eq!(inspect(&message(1, &[&many, &[]])), Err(Reason::Overflow), "by its bytes");

    let summary = Summary { digest: MAX_INCARNATIONS + 1, ..Summary::default() };
    assert_eq!(summary.admit((&id(1), 0), &knowing(0, 0)), Err(Reason::Overflow));
    let summary = Summary { digest: MAX_INCARNATIONS, ..Summary::default() };
    assert_eq!(summary.admit((&id(1), 0), &knowing(MAX_INCARNATIONS, MAX_DIGEST)), Ok(()));
    assert_eq!(summary.admit((&id(1), 0), &knowing(MAX_INCARNATIONS + 1, 0)), Err(Reason::Overflow));
    assert_eq!(
        summary.admit((&id(1), 0), &knowing(0, MAX_DIGEST + 1)),
        Err(Reason::Overflow),
        "the answer's own digest"
    );
}

#[test]
fn a_message_that_expands_without_bound_is_refused() {
    let block = zstd::bulk::compress(&vec![0; MAX_BLOCK], 0).expect("zstd");
    let mut bomb = message(2, &[]);
    for _ in 0..=MAX_EXPANDED / MAX_BLOCK {
        bomb.push(1);
        bomb.extend((block.len() as u16).to_le_bytes());
        bomb.extend_from_slice(&block);
    }
    bomb.push(0);
    assert_eq!(inspect(&bomb), Err(Reason::Oversize));
}

proptest! {
    #[test]
    fn junk_never_panics(kind in 0_u8..5, junk in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = message(kind, &[]);
        bytes.extend_from_slice(&junk);
        let _ = inspect(&bytes);
        let _ = inspect(&junk);
        let _ = inspect(&message(kind, &[&junk, &junk]));
    }

    #[test]
    fn a_cut_message_is_malformed(at in any::<proptest::sample::Index>()) {
        let ops = [node(&id(1)), key_value(3)].concat();
        let whole = message(1, &[&digest_entry(&id(1), 1), &ops]);
        prop_assert!(inspect(&whole).is_ok());
        prop_assert_eq!(inspect(&whole[..at.index(whole.len())]), Err(Reason::Malformed));
    }
}
