use super::*;
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_millis(275);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Asks for a look after each step and gives the looks, each of which takes `work`.
fn looks(start: Instant, steps: u32, step: Duration, work: Duration) -> Vec<Instant> {
    let mut schedule = LookSchedule::new(INTERVAL, start);
    let mut now = start;
    let mut looks = Vec::new();
    for _ in 0..steps {
        now += step;
        schedule.note_change(now);
        if schedule.take(IDLE, now) {
            looks.push(now);
            now += work;
            schedule.note_work(work);
        }
    }
    looks
}

#[test]
fn a_short_row_of_changes_is_looked_at_without_a_wait() {
    let start = Instant::now();
    let seen = looks(start, BURST, ms(1), Duration::ZERO);
    let expected: Vec<_> = (1..=BURST).map(|n| start + ms(n.into())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn over_time_changes_are_looked_at_once_per_refill() {
    let seen = looks(Instant::now(), 10_000, ms(1), Duration::ZERO);
    let most = BURST as usize + 10_000 / 25;
    assert!((most - 10..=most).contains(&seen.len()), "{} looks in 10 s", seen.len());
}

#[test]
fn a_slow_look_is_followed_by_a_rest_also_while_there_are_tokens() {
    let start = Instant::now();
    let work = ms(2);
    let seen = looks(start, 5, ms(1), work);
    assert_eq!(seen, [start + ms(1)], "four more changes come while it rests");

    // 20 looks in 400 ms would take 40 ms; with a rest of 10 times the work it is a tenth of the time.
    let seen = looks(start, 400, ms(1), work);
    assert!(seen.windows(2).all(|pair| pair[1] - pair[0] >= work * REST_PER_WORK), "{seen:?}");
}

#[test]
fn a_rest_delays_no_look_at_heartbeats() {
    let start = Instant::now();
    let mut schedule = LookSchedule::new(INTERVAL, start);
    schedule.note_change(start);
    assert!(schedule.take(IDLE, start));
    schedule.note_work(ms(500));
    schedule.note_change(start + ms(1));
    schedule.note_heartbeats(start + ms(1));
    assert_eq!(schedule.due(IDLE), start + INTERVAL / PULSES);
    assert!(schedule.take(IDLE, start + INTERVAL / PULSES));
}

#[test]
fn heartbeats_alone_are_looked_at_four_times_a_round() {
    let start = Instant::now();
    let mut schedule = LookSchedule::new(INTERVAL, start);
    let mut looks = 0;
    for step in 1..=1000 {
        let now = start + ms(step);
        schedule.note_heartbeats(now);
        looks += u32::from(schedule.take(IDLE, now));
    }
    assert!((PULSES * 4 - 1..=PULSES * 4).contains(&looks), "{looks} looks in 4 rounds");
}

proptest! {
    #[test]
    fn a_look_is_taken_exactly_when_it_is_due(
        steps in proptest::collection::vec((0_u64..60, 0_u8..4, 0_u64..5), 1..100)
    ) {
        let mut now = Instant::now();
        let mut schedule = LookSchedule::new(INTERVAL, now);
        for (step, event, work) in steps {
            now += ms(step);
            match event {
                0 => schedule.note_change(now),
                1 => schedule.note_heartbeats(now),
                _ => {}
            }
            let due = schedule.due(IDLE);
            prop_assert!(due <= schedule.looked + IDLE, "a look is never farther than the idle time");
            let taken = schedule.take(IDLE, now);
            prop_assert_eq!(taken, due <= now);
            if taken {
                schedule.note_work(ms(work));
            }
        }
    }
}
