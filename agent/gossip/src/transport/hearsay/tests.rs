use super::*;
use crate::transport::codec::Codec;
use crate::transport::inspect;
use crate::transport::inspect::tests::syn;
use proptest::prelude::*;

const OWN_GENERATION: u64 = 50;

fn id(generation: u64) -> ChitchatId {
    ChitchatId::new("host", generation, ([127, 0, 0, 1], 7946).into())
}

fn own() -> ChitchatId {
    ChitchatId::new("own", OWN_GENERATION, ([127, 0, 0, 1], 7946).into())
}

fn standings(of: &[(ChitchatId, Standing)]) -> Standings {
    Standings(of.iter().cloned().collect())
}

fn entries(message: &[u8]) -> Vec<Entry> {
    parse(message).expect("it has a digest").0
}

/// `message` as it arrives from a host with `sender` at one with `receiver`.
fn through(sender: &Standings, receiver: &Standings, message: &[u8]) -> Vec<u8> {
    let sent = sender.outgoing(&own(), message).unwrap_or_else(|| message.to_vec());
    let unheard = inspect::inspect(&sent).expect("well formed").unheard;
    receiver.incoming(&sent, unheard).unwrap_or(sent)
}

fn any_standing() -> impl Strategy<Value = Standing> {
    prop_oneof![Just(Standing::Witnessed), Just(Standing::Hearsay), Just(Standing::Past)]
}

/// Some of a hundred incarnations, and how a host knows of each.
fn any_standings() -> impl Strategy<Value = Standings> {
    proptest::collection::btree_map((0..100u64).prop_map(id), any_standing(), 0..40).prop_map(Standings)
}

fn any_digest() -> impl Strategy<Value = Vec<Entry>> {
    let numbers = [1..1000u64, 0..10, 0..1000];
    proptest::collection::btree_map((0..100u64).prop_map(id), numbers, 0..100)
        .prop_map(|digest| digest.into_iter().chain([(own(), [9, 0, 9])]).collect())
}

proptest! {
    #[test]
    fn a_receiver_learns_of_nothing_that_the_sender_has_not_witnessed(
        digest in any_digest(), sender in any_standings(), receiver in any_standings(),
    ) {
        let named: BTreeSet<_> = entries(&through(&sender, &receiver, &syn(&digest))).into_iter().map(|e| e.0).collect();
        for (id, _) in &digest {
            let is_younger = id.generation_id >= OWN_GENERATION;
            let witnessed = match sender.0.get(id) {
                Some(standing) => *standing == Standing::Witnessed,
                None => is_younger,
            };
            if !receiver.0.contains_key(id) {
                prop_assert_eq!(named.contains(id), witnessed || *id == own());
            }
        }
    }

    #[test]
    fn what_the_sender_has_witnessed_arrives_as_it_was(
        digest in any_digest(), sender in any_standings(), receiver in any_standings(),
    ) {
        let arrived = entries(&through(&sender, &receiver, &syn(&digest)));
        for entry in digest.iter().filter(|(id, _)| sender.0.get(id) == Some(&Standing::Witnessed) || *id == own()) {
            prop_assert!(arrived.contains(entry));
        }
    }

    #[test]
    fn the_versions_of_hearsay_arrive_where_it_is_known(
        digest in any_digest(), sender in any_standings(), receiver in any_standings(),
    ) {
        let arrived = entries(&through(&sender, &receiver, &syn(&digest)));
        let is_hearsay = |id: &ChitchatId| sender.0.get(id) == Some(&Standing::Hearsay) && receiver.0.contains_key(id);
        for (id, [_, gc, max]) in digest.iter().filter(|(id, _)| is_hearsay(id)) {
            prop_assert!(arrived.contains(&(id.clone(), [0, *gc, *max])));
        }
    }

    #[test]
    fn the_peer_is_taken_to_have_all_that_is_not_to_be_told(digest in any_digest(), receiver in any_standings()) {
        let arrived = entries(&through(&Standings::default(), &receiver, &syn(&digest)));
        for (id, _) in receiver.0.iter().filter(|(_, standing)| **standing != Standing::Witnessed) {
            let of_it: Vec<_> = arrived.iter().filter(|(other, _)| other == id).collect();
            prop_assert_eq!(of_it.len(), 1, "named once: {:?}", of_it);
            let is_named = digest.iter().any(|(other, _)| other == id);
            prop_assert!(is_named || of_it[0].1 == [0, 0, MAX_VERSION]);
        }
    }

    #[test]
    fn what_follows_the_digest_stays(digest in any_digest(), sender in any_standings(), receiver in any_standings()) {
        let message = syn(&digest);
        let arrived = through(&sender, &receiver, &message);
        prop_assert_eq!(parse(&arrived).map(|(_, tail)| tail), parse(&message).map(|(_, tail)| tail));
        prop_assert!(inspect::inspect(&arrived).is_ok());
    }

    #[test]
    fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4u8, known in any_standings()) {
        let headed = [&[0x53, 0xb0, 1, kind], junk.as_slice()].concat();
        for message in [junk.as_slice(), &headed] {
            let _ = known.outgoing(&own(), message);
            let _ = known.incoming(message, 1);
        }
    }
}

#[test]
fn without_hearsay_nothing_is_written_anew() {
    let known = standings(&[(id(1), Standing::Witnessed)]);
    let message = syn(&[(id(1), [7, 0, 7]), (own(), [9, 0, 9]), (id(OWN_GENERATION + 1), [1, 0, 1])]);
    assert_eq!(known.outgoing(&own(), &message), None);
    assert_eq!(known.incoming(&message, 0), None);
}

#[test]
fn an_older_incarnation_that_no_look_has_seen_yet_is_hearsay() {
    let message = syn(&[(id(OWN_GENERATION - 1), [7, 2, 5])]);
    let sent = Standings::default().outgoing(&own(), &message).expect("it is not as it was");
    assert_eq!(entries(&sent), [(id(OWN_GENERATION - 1), [0, 2, 5])]);
}

#[test]
fn a_full_message_names_no_hearsay_if_zeros_would_make_it_too_long() {
    let digest: Vec<Entry> = (0..200).map(|n| (id(n), [1000, 0, n])).collect();
    let hearsay =
        standings(&digest.iter().step_by(2).map(|(id, _)| (id.clone(), Standing::Hearsay)).collect::<Vec<_>>());
    let witnessed = |(id, _): &Entry| id.generation_id >= OWN_GENERATION && !hearsay.0.contains_key(id);
    let mut full = syn(&digest);
    full.resize(MAX_ENCODED, b'x');
    let sent = hearsay.outgoing(&own(), &full).expect("it is not as it was");
    assert!(sent.len() <= MAX_ENCODED);
    assert_eq!(entries(&sent), digest.into_iter().filter(witnessed).collect::<Vec<_>>());
}

/// Thousands of incarnations take several blocks.
#[tokio::test]
async fn chitchat_reads_what_is_written_anew() {
    let mut codec = Codec::open().await.expect("loopback is up");
    let digest: Vec<Entry> = (0..1000).map(|n| (id(n), [n + 1, n % 7, n * n])).collect();
    let known = standings(&[(id(998), Standing::Hearsay), (id(999), Standing::Past), (id(2000), Standing::Hearsay)]);
    let mut expected = digest.clone();
    expected.truncate(999);
    for (id, [heartbeat, ..]) in &mut expected {
        let is_hearsay = id.generation_id < OWN_GENERATION || id.generation_id == 998;
        *heartbeat = if is_hearsay { 0 } else { *heartbeat };
    }
    let sent = known.outgoing(&own(), &syn(&digest)).expect("it is not as it was");
    let read = codec.decode(&sent).await.expect("decoded");
    assert!(read == codec.decode(&syn(&expected)).await.expect("decoded"), "{read:?}");

    expected.retain(|(id, [heartbeat, ..])| *heartbeat > 0 || id.generation_id == 998);
    expected.extend([999, 2000].map(|n| (id(n), [0, 0, MAX_VERSION])));
    let shown = known.incoming(&sent, 51).expect("it is not as it was");
    let read = codec.decode(&shown).await.expect("decoded");
    assert!(read == codec.decode(&syn(&expected)).await.expect("decoded"), "{read:?}");
}
