use super::*;
use proptest::prelude::*;

fn admitted(buckets: &mut Buckets<u32>, client: u32, times: usize, now: Instant) -> usize {
    (0..times).filter(|_| buckets.admit(client, now).is_some()).count()
}

#[test]
fn a_burst_is_admitted_at_once_what_comes_in_the_next_second_in_turn_and_no_more() {
    let start = Instant::now();
    let mut buckets = Buckets::new(10, 20, start);
    assert_eq!((0..20).map(|_| buckets.admit(1, start)).collect::<Vec<_>>(), [Some(Duration::ZERO); 20]);
    let waits: Vec<u128> = (0..100).filter_map(|_| buckets.admit(1, start)).map(|wait| wait.as_millis()).collect();
    assert_eq!(waits, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    assert_eq!(admitted(&mut buckets, 1, 100, start + Duration::from_millis(500)), 5);
    assert_eq!(admitted(&mut buckets, 1, 100, start + Duration::from_secs(60)), 30);
}

#[test]
fn without_a_rate_there_is_the_burst_alone() {
    let start = Instant::now();
    let mut buckets = Buckets::new(0, 4, start);
    assert_eq!(admitted(&mut buckets, 1, 100, start), 4);
    assert_eq!(admitted(&mut buckets, 1, 100, start + Duration::from_secs(60)), 0);
}

#[test]
fn one_client_takes_nothing_from_another() {
    let start = Instant::now();
    let mut buckets = Buckets::new(10, 20, start);
    admitted(&mut buckets, 1, 100, start);
    assert_eq!(admitted(&mut buckets, 2, 100, start), 30);
}

#[test]
fn forged_sources_take_a_bounded_amount_of_memory_and_nothing_from_who_is_known() {
    let start = Instant::now();
    let mut buckets = Buckets::new(10, 20, start);
    assert!(buckets.admit(0, start).is_some());
    for client in 1..100_000 {
        buckets.admit(client, start);
    }
    assert_eq!(buckets.buckets.len(), CAPACITY);
    assert_eq!(buckets.admit(0, start), Some(Duration::ZERO));
    assert_eq!(buckets.admit(100_000, start), None, "newcomers share one bucket");
    // When they are quiet, there is room again.
    assert_eq!(buckets.admit(100_001, start + Duration::from_secs(10)), Some(Duration::ZERO));
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
            let Some(wait) = buckets.admit(1, now) else { continue };
            prop_assert!(wait <= LONGEST_WAIT);
            count += 1;
            let most = f64::from(burst) + (now + wait - start).as_secs_f64() * f64::from(rate);
            prop_assert!(f64::from(count) <= most + 1e-3, "{count} of {most}");
        }
    }
}
