use super::*;
use proptest::prelude::*;

fn admitted(buckets: &mut Buckets<u32>, client: u32, times: usize, now: Instant) -> usize {
    (0..times).filter(|_| buckets.admit(client, now)).count()
}

#[test]
fn a_burst_is_admitted_and_then_the_rate() {
    let start = Instant::now();
    let mut buckets = Buckets::new(10, 20, start);
    assert_eq!(admitted(&mut buckets, 1, 100, start), 20);
    assert_eq!(admitted(&mut buckets, 1, 100, start + Duration::from_millis(500)), 5);
    assert_eq!(admitted(&mut buckets, 1, 100, start + Duration::from_secs(60)), 20);
}

#[test]
fn one_client_takes_nothing_from_another() {
    let start = Instant::now();
    let mut buckets = Buckets::new(10, 20, start);
    admitted(&mut buckets, 1, 100, start);
    assert_eq!(admitted(&mut buckets, 2, 100, start), 20);
}

#[test]
fn forged_sources_take_a_bounded_amount_of_memory_and_nothing_from_who_is_known() {
    let start = Instant::now();
    let mut buckets = Buckets::new(10, 20, start);
    assert!(buckets.admit(0, start));
    for client in 1..100_000 {
        buckets.admit(client, start);
    }
    assert_eq!(buckets.buckets.len(), CAPACITY);
    assert!(buckets.admit(0, start));
    assert!(!buckets.admit(100_000, start), "newcomers share one bucket");
    // When they are quiet, there is room again.
    assert!(buckets.admit(100_001, start + Duration::from_secs(10)));
    assert_eq!(buckets.buckets.len(), 1);
}

proptest! {
    #[test]
    fn never_more_than_the_burst_and_the_rate(
        rate in 0..50_u32, burst in 0..50_u32, steps in prop::collection::vec(0..200_u64, 1..200),
    ) {
        let start = Instant::now();
        let mut buckets = Buckets::new(rate, burst, start);
        let (mut now, mut count) = (start, 0_u32);
        for step in steps {
            now += Duration::from_millis(step);
            count += u32::from(buckets.admit(1, now));
            let most = f64::from(burst) + (now - start).as_secs_f64() * f64::from(rate);
            prop_assert!(f64::from(count) <= most + 1e-6, "{count} of {most}");
        }
    }
}
