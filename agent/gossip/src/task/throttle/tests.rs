use super::*;
use proptest::prelude::*;

const SPACING: Duration = Duration::from_millis(25);

#[test]
fn the_first_is_served_at_once_and_the_rest_together() {
    let now = Instant::now();
    let mut throttle = Throttle::new(SPACING);
    assert!(!throttle.take(now), "nothing is wanted");
    throttle.request(now);
    assert!(throttle.take(now));
    assert!(!throttle.take(now));

    throttle.request(now + SPACING / 5);
    throttle.request(now + SPACING / 2);
    assert_eq!(throttle.due(), Some(now + SPACING));
    assert!(!throttle.take(now + SPACING / 2));
    assert!(throttle.take(now + SPACING));
    assert_eq!(throttle.due(), None);

    throttle.request(now + SPACING * 10);
    assert!(throttle.take(now + SPACING * 10), "after a pause at once again");
}

proptest! {
    #[test]
    fn no_request_waits_longer_than_the_spacing_and_none_comes_sooner(
        steps in proptest::collection::vec(0_u64..60, 1..100)
    ) {
        let (mut now, mut throttle, mut served) = (Instant::now(), Throttle::new(SPACING), None::<Instant>);
        for step in steps {
            now += Duration::from_millis(step);
            throttle.request(now);
            let due = throttle.due().expect("it was asked for");
            prop_assert!(due <= now + SPACING);
            if throttle.take(due.max(now)) {
                let at = due.max(now);
                prop_assert!(served.is_none_or(|served| at >= served + SPACING));
                (served, now) = (Some(at), at);
            }
        }
    }
}
