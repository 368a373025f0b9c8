use super::*;
use proptest::prelude::*;

const BURST: u32 = 8;
const REFILL: Duration = Duration::from_millis(25);

fn taken_at_once(bucket: &mut TokenBucket, now: Instant) -> u32 {
    (0..).take_while(|_| bucket.take(now)).map(|_| 1).sum()
}

#[test]
fn a_full_bucket_gives_its_burst_at_once_and_then_one_token_per_refill() {
    let start = Instant::now();
    let mut bucket = TokenBucket::new(BURST, REFILL, start);
    assert_eq!(taken_at_once(&mut bucket, start), BURST);
    assert_eq!(bucket.next(start), start + REFILL);
    assert!(!bucket.take(start + REFILL - Duration::from_nanos(1)));
    assert_eq!(taken_at_once(&mut bucket, start + REFILL), 1);
    assert_eq!(taken_at_once(&mut bucket, start + REFILL * 4), 3);
    assert_eq!(taken_at_once(&mut bucket, start + REFILL * 1000), BURST, "it holds no more than its burst");
}

#[test]
fn a_burst_of_one_is_a_least_distance() {
    let start = Instant::now();
    for burst in [0, 1] {
        let mut bucket = TokenBucket::new(burst, REFILL, start);
        assert_eq!(taken_at_once(&mut bucket, start), 1);
        assert_eq!(taken_at_once(&mut bucket, start + REFILL), 1);
    }
}

proptest! {
    #[test]
    fn no_period_has_more_than_the_burst_and_one_per_refill(
        steps in proptest::collection::vec(0_u64..40, 1..200),
    ) {
        let mut now = Instant::now();
        let mut bucket = TokenBucket::new(BURST, REFILL, now);
        let mut taken: Vec<Instant> = Vec::new();
        for step in steps {
            now += Duration::from_millis(step);
            let next = bucket.next(now);
            prop_assert!(next <= now + REFILL, "a token is never farther than one refill");
            prop_assert_eq!(bucket.take(now), next == now);
            if next == now {
                taken.push(now);
            }
        }
        for (n, first) in taken.iter().enumerate() {
            for (m, last) in taken.iter().enumerate().skip(n) {
                let period = last.duration_since(*first).as_millis();
                let most = u128::from(BURST) + period / REFILL.as_millis();
                prop_assert!((m - n + 1) as u128 <= most, "{} in {} ms", m - n + 1, period);
            }
        }
    }
}
