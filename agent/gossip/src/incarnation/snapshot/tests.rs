use std::time::Duration;

use super::*;
use chitchat::{ChitchatConfig, FailureDetectorConfig, ProtocolVersion};
use proptest::prelude::*;
use tokio::sync::watch;

fn id(node: &str) -> ChitchatId {
    ChitchatId::new(node, 1, ([127, 0, 0, 1], 7946).into())
}

fn chitchat(node: &str) -> Chitchat {
    let config = ChitchatConfig {
        chitchat_id: id(node),
        cluster_id: "test".to_owned(),
        gossip_interval: Duration::from_secs(1),
        listen_addr: ([127, 0, 0, 1], 0).into(),
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: Duration::from_secs(900),
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    };
    Chitchat::with_chitchat_id_and_seeds(config, watch::channel(Default::default()).1, Vec::new())
}

fn chunk(changes: &[(String, Option<String>)]) -> (NodeState, Vec<u8>) {
    let mut state = NodeState::for_test();
    for (key, value) in changes {
        match value {
            Some(value) => state.set(key, value),
            None if state.contains_key(key) => state.delete(key),
            None => {}
        }
    }
    let bytes = Chunk::encode(&id("other"), &state, Duration::from_secs(7));
    (state, bytes)
}

fn feed(chitchat: &mut Chitchat, bytes: &[u8]) {
    Chunk::decode(bytes).expect("well formed").feed(chitchat);
}

fn content(state: &NodeState) -> Vec<(String, u64, String, bool)> {
    let entries = state.key_values_including_deleted();
    entries.map(|(k, v)| (k.to_owned(), v.version, v.value.clone(), v.is_deleted())).collect()
}

proptest! {
    #[test]
    fn who_is_fed_knows_the_same_whatever_was_fed_before(
        changes in proptest::collection::vec(("[a-d]", proptest::option::of("[xyz]")), 1..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let (state, newest) = chunk(&changes);
        let (_, older) = chunk(&changes[..cut.index(changes.len())]);
        for order in [vec![&newest], vec![&older, &newest], vec![&newest, &older, &newest]] {
            let mut receiver = chitchat("receiver");
            order.into_iter().for_each(|bytes| feed(&mut receiver, bytes));
            let fed = receiver.node_state(&id("other"));
            prop_assert_eq!(fed.map(content).unwrap_or_default(), content(&state));
            prop_assert_eq!(fed.map_or(0, NodeState::max_version), state.max_version());
        }
    }

    #[test]
    fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Chunk::decode(&junk);
    }
}

#[test]
fn a_chunk_says_how_long_its_incarnation_is_silent() {
    let chunk = Chunk::decode(&chunk(&[]).1).expect("well formed");
    assert_eq!(chunk.silence(), (&id("other"), Duration::from_secs(7)));
}

#[test]
fn nobody_is_told_about_itself() {
    let mut other = chitchat("other");
    let before = content(other.self_node_state());
    feed(&mut other, &chunk(&[("key".to_owned(), Some("value".to_owned()))]).1);
    assert_eq!(content(other.self_node_state()), before);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let entry = |version| WireEntry { key: "k".to_owned(), version, ..WireEntry::default() };
    let good = WireChunk {
        node: "n".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        max_version: 3,
        entries: vec![entry(3)],
        ..WireChunk::default()
    };
    assert!(Chunk::decode(&good.encode_to_vec()).is_ok());
    for bad in [
        WireChunk { node: String::new(), ..good.clone() },
        WireChunk { address: "x".to_owned(), ..good.clone() },
        WireChunk { max_version: 2, ..good.clone() },
        WireChunk { max_version: u64::MAX, ..good.clone() },
        WireChunk { last_gc_version: u64::MAX, ..good.clone() },
        WireChunk { entries: vec![entry(0)], ..good.clone() },
        WireChunk { entries: vec![entry(1), entry(2)], ..good.clone() },
    ] {
        assert!(Chunk::decode(&bad.encode_to_vec()).is_err(), "{bad:?}");
    }
}
