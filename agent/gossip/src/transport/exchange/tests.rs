use super::*;
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_millis(400);
const ROUNDS: u32 = 50;

fn peer(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7946).into()
}

/// Two hosts in rounds of the same length, the second `phase` behind the first: which of them begins an exchange, round by round.
/// `lost(n)` is whether the n-th exchange remains without its end.
fn play(phase: Duration, lost: impl Fn(usize) -> bool) -> Vec<(Duration, u8)> {
    let (start, mut begun) = (Instant::now(), Vec::new());
    let mut hosts = [Exchanges::new(INTERVAL), Exchanges::new(INTERVAL)];
    for round in 0..ROUNDS {
        for (me, after) in [(0, Duration::ZERO), (1, phase)] {
            let time = INTERVAL * round + after;
            let other = 1 - me;
            if !hosts[me].is_fresh(peer(other as u8), start + time) {
                if !lost(begun.len()) {
                    hosts[other].complete(peer(me as u8), start + time);
                }
                begun.push((time, me as u8));
            }
        }
    }
    begun
}

proptest! {
    #[test]
    fn two_peers_exchange_once_a_round_whoever_is_first(phase in 0_u64..400) {
        let begun = play(Duration::from_millis(phase), |_| false);
        prop_assert!(begun.len() <= ROUNDS as usize + 1, "{begun:?}");
        let longest = begun.windows(2).map(|two| two[1].0 - two[0].0).max();
        prop_assert!(longest <= Some(INTERVAL), "{longest:?} without an exchange: {begun:?}");
    }

    #[test]
    fn when_exchanges_get_lost_both_go_on_trying(phase in 0_u64..400) {
        prop_assert_eq!(play(Duration::from_millis(phase), |_| true).len(), 2 * ROUNDS as usize);
    }
}

#[test]
fn a_peer_that_has_news_is_asked_at_once() {
    let (now, mut exchanges) = (Instant::now(), Exchanges::new(INTERVAL));
    exchanges.complete(peer(1), now);
    exchanges.complete(peer(2), now);
    assert!(exchanges.is_fresh(peer(1), now) && !exchanges.is_fresh(peer(3), now));
    exchanges.want(peer(1));
    assert!(!exchanges.is_fresh(peer(1), now));
    assert!(exchanges.is_fresh(peer(2), now + INTERVAL / 2));
    assert!(!exchanges.is_fresh(peer(2), now + INTERVAL));
}
