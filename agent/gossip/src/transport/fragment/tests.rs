use super::*;
use proptest::prelude::*;

const SESSION: Session = [7; 16];

/// The parts of `message` with the counters that a sealer which stands at `first` gives them.
fn parts(message: &[u8], first: u64) -> Vec<(u64, FragmentIndex, Vec<u8>)> {
    let parts = split(message).expect("within the limit");
    parts.map(|(index, part)| (first + u64::from(index.index), index, part.to_vec())).collect()
}

proptest! {
    #[test]
    fn any_order_with_duplicates_gives_the_message_once(
        message in proptest::collection::vec(any::<u8>(), 1..MAX_PART * 6),
        first in 1_u64..1 << 40,
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let parts = parts(&message, first);
        // Some parts at random, then all of them: each is there at least once.
        let stream = order.iter().map(|at| at.get(&parts)).chain(&parts);
        let (mut reassembly, counters, now) = (Reassembly::default(), Counters::default(), Instant::now());
        let mut whole = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        for (counter, index, part) in stream.filter(|(counter, ..)| parts.len() > 1 || *counter == first) {
            if whole.len() == 1 {
                break; // Later duplicates never get here: the replay window has seen them.
            }
            match reassembly.accept((SESSION, *counter), *index, part, now, &counters) {
                Ok(message) => {
                    prop_assert!(taken.insert(*counter));
                    whole.extend(message);
                }
                Err(reason) => {
                    prop_assert_eq!(reason, Reason::Replayed);
                    prop_assert!(taken.contains(counter));
                }
            }
        }
        prop_assert_eq!(whole, vec![message]);
        prop_assert_eq!((reassembly.partials.len(), reassembly.bytes), (0, 0));
    }

    #[test]
    fn bytes_and_count_are_bounded_whatever_comes(
        stream in proptest::collection::vec((any::<u8>(), 0_u64..4, 0_u8..70, 0_u8..70, 0_usize..MAX_PART + 2), 0..600)
    ) {
        let (mut reassembly, counters, now) = (Reassembly::default(), Counters::default(), Instant::now());
        for (session, counter, index, count, length) in stream {
            let id = ([session; 16], counter * 100 + u64::from(index));
            let _ = reassembly.accept(id, FragmentIndex { index, count }, &vec![0; length], now, &counters);
            prop_assert!(reassembly.partials.len() <= MAX_PARTIALS);
            prop_assert!(reassembly.bytes <= MAX_BYTES);
            prop_assert_eq!(reassembly.bytes, reassembly.partials.values().map(|p| p.bytes).sum::<usize>());
        }
    }
}

#[test]
fn messages_of_two_senders_are_not_mixed() {
    let (mut reassembly, counters, now) = (Reassembly::default(), Counters::default(), Instant::now());
    let (mine, other) = (vec![1; MAX_PART + 1], vec![2; MAX_PART + 1]);
    let mut got = Vec::new();
    for ((counter, index, a), (_, _, b)) in parts(&mine, 5).into_iter().zip(parts(&other, 5)) {
        got.extend(reassembly.accept(([1; 16], counter), index, &a, now, &counters).expect("well formed"));
        got.extend(reassembly.accept(([2; 16], counter), index, &b, now, &counters).expect("well formed"));
    }
    assert_eq!(got, [mine, other]);
}

#[test]
fn what_does_not_come_in_time_is_given_up_and_counted() {
    let (mut reassembly, counters, now) = (Reassembly::default(), Counters::default(), Instant::now());
    let stale = parts(&[1; MAX_PART + 1], 1);
    let fresh = parts(&[2; MAX_PART + 1], 10);
    let (counter, index, part) = &stale[0];
    reassembly.accept((SESSION, *counter), *index, part, now, &counters).expect("well formed");
    let later = now + MAX_AGE + Duration::from_millis(1);
    let (counter, index, part) = &fresh[0];
    reassembly.accept((SESSION, *counter), *index, part, later, &counters).expect("well formed");
    assert_eq!(reassembly.partials.len(), 1);
    assert_eq!(counters.of(Reason::Incomplete), 1);
}

#[test]
fn what_cannot_be_a_part_is_malformed() {
    let (mut reassembly, counters, now) = (Reassembly::default(), Counters::default(), Instant::now());
    for (counter, index, count, length) in
        [(9, 0, 0, 1), (9, 2, 2, 1), (9, 0, 65, 1), (9, 0, 2, 0), (9, 0, 2, MAX_PART + 1), (1, 1, 2, 1), (0, 0, 1, 1)]
    {
        let got =
            reassembly.accept((SESSION, counter), FragmentIndex { index, count }, &vec![0; length], now, &counters);
        assert_eq!(got, Err(Reason::Malformed), "{counter} {index} {count} {length}");
    }
    // A part that disagrees with the first about their number.
    reassembly.accept((SESSION, 9), FragmentIndex { index: 0, count: 3 }, b"x", now, &counters).expect("well formed");
    let got = reassembly.accept((SESSION, 10), FragmentIndex { index: 1, count: 2 }, b"x", now, &counters);
    assert_eq!(got, Err(Reason::Malformed));
}

#[test]
fn a_message_is_neither_empty_nor_too_large() {
    assert!(split(&[]).is_err());
    assert!(split(&vec![0; MAX_MESSAGE]).is_ok());
    assert!(split(&vec![0; MAX_MESSAGE + 1]).is_err());
    const { assert!(MAX_MESSAGE > 65_507, "chitchat's largest message fits") };
}
