use super::*;

const COST: Duration = Duration::from_millis(10);
const SIZE: Duration = Duration::from_millis(40);

fn delays(pace: &mut Pace, now: Instant, times: u32) -> Vec<Duration> {
    (0..times).map(|_| pace.spend(COST, now) - now).collect()
}

#[test]
fn a_burst_is_let_through_and_the_rest_is_spaced() {
    let now = Instant::now() + Duration::from_secs(60);
    let mut pace = Pace::new(SIZE, now);
    let expected = [0, 0, 0, 0, 10, 20].map(Duration::from_millis);
    assert_eq!(delays(&mut pace, now, 6), expected);
}

#[test]
fn the_bucket_fills_with_time_and_never_beyond_its_size() {
    let now = Instant::now() + Duration::from_secs(60);
    let mut pace = Pace::new(SIZE, now);
    delays(&mut pace, now, 4);
    assert_eq!(pace.spend(COST, now + COST) - now, Duration::from_millis(10), "one has come back");
    let later = now + Duration::from_secs(3600);
    let expected = [0, 0, 0, 0, 10].map(Duration::from_millis);
    assert_eq!(delays(&mut pace, later, 5), expected);
}

#[test]
fn lone_changes_are_never_delayed() {
    let mut now = Instant::now() + Duration::from_secs(60);
    let mut pace = Pace::new(SIZE, now);
    for _ in 0..100 {
        now += COST;
        assert_eq!(pace.spend(COST, now), now);
    }
}

#[test]
fn what_costs_more_than_the_bucket_holds_is_paid_off_before_the_next() {
    let now = Instant::now() + Duration::from_secs(60);
    let mut pace = Pace::new(SIZE, now);
    assert_eq!(pace.spend(Duration::from_millis(250), now) - now, Duration::from_millis(210));
}
