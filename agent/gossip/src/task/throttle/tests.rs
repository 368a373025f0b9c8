use std::time::Duration;

use super::*;
use proptest::prelude::*;

const BURST: u32 = 3;
const REFILL: Duration = Duration::from_millis(25);

fn throttle(now: Instant) -> Throttle {
    Throttle::new(TokenBucket::new(BURST, REFILL, now))
}

#[test]
fn a_short_row_of_requests_is_served_at_once_and_the_rest_together() {
    let start = Instant::now();
    let mut throttle = throttle(start);
    assert!(!throttle.take(start), "nothing is requested");
    for n in 0..BURST {
        let now = start + Duration::from_millis(n.into());
        throttle.request(now);
        assert_eq!(throttle.due(), Some(now));
        assert!(throttle.take(now));
        assert!(!throttle.take(now), "one request is served once");
    }

    throttle.request(start + REFILL / 5);
    throttle.request(start + REFILL / 2);
    assert_eq!(throttle.due(), Some(start + REFILL));
    assert!(!throttle.take(start + REFILL / 2));
    assert!(throttle.take(start + REFILL));
    assert_eq!(throttle.due(), None);
}

proptest! {
    #[test]
    fn no_request_waits_longer_than_a_refill_and_none_is_forgotten(
        steps in proptest::collection::vec(0_u64..60, 1..100)
    ) {
        let mut now = Instant::now();
        let mut throttle = throttle(now);
        for step in steps {
            now += Duration::from_millis(step);
            throttle.request(now);
            let due = throttle.due().expect("it was requested");
            prop_assert!(due <= now + REFILL);
            now = due.max(now);
            prop_assert!(throttle.take(now), "what is due is served");
        }
    }
}
