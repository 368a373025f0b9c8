use super::*;
use proptest::prelude::*;

const CONFIG: LivenessConfig = LivenessConfig {
    suspect_after: Duration::from_millis(600),
    dead_after: Duration::from_millis(1500),
    first_grace: Duration::from_millis(3000),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_host_that_falls_silent_is_suspect_then_dead_then_live_again_when_heard() {
    let heard = HeartbeatObservation::Unproven { since: ms(0) }.observe(true, 7, ms(1000), &CONFIG);
    assert_eq!(judge(heard, ms(1599), &CONFIG), NodeLiveness::Live);
    // What chitchat thinks of it meanwhile makes no difference.
    let silent = heard.observe(true, 7, ms(1600), &CONFIG).observe(false, 7, ms(2499), &CONFIG);
    assert_eq!(judge(silent, ms(1600), &CONFIG), NodeLiveness::Suspect);
    assert_eq!(judge(silent, ms(2499), &CONFIG), NodeLiveness::Suspect);
    assert_eq!(judge(silent, ms(2500), &CONFIG), NodeLiveness::Dead);
    assert_eq!(judge(silent.observe(true, 8, ms(2600), &CONFIG), ms(2600), &CONFIG), NodeLiveness::Live);
}

#[test]
fn a_suspect_is_believed_at_its_first_heartbeat_and_a_dead_one_when_there_are_more() {
    let silent = HeartbeatObservation::Heard { beat: 7, at: ms(1000) };
    assert_eq!(silent.observe(false, 8, ms(2499), &CONFIG), HeartbeatObservation::Heard { beat: 8, at: ms(2499) });
    // Another host had heard it for a moment longer, and has just been met.
    let echo = silent.observe(false, 8, ms(60_000), &CONFIG);
    assert_eq!(judge(echo, ms(60_000), &CONFIG), NodeLiveness::Dead);
    let back = echo.observe(true, 9, ms(60_250), &CONFIG);
    assert_eq!(judge(back, ms(60_250), &CONFIG), NodeLiveness::Live);
}

#[test]
fn a_host_that_was_never_heard_has_the_benefit_of_the_doubt_for_a_while() {
    let unproven = HeartbeatObservation::Unproven { since: ms(500) };
    let unproven = unproven.observe(false, 1, ms(600), &CONFIG).observe(false, 2, ms(700), &CONFIG);
    assert_eq!(judge(unproven, ms(3499), &CONFIG), NodeLiveness::Live);
    assert_eq!(judge(unproven, ms(3500), &CONFIG), NodeLiveness::Dead);
}

#[test]
fn at_every_interval_that_is_permitted_two_rounds_may_get_lost_and_a_death_is_known_in_time() {
    for interval in (200..=500).map(ms) {
        let LivenessConfig { suspect_after, dead_after, .. } = LivenessConfig::of(interval);
        assert!(suspect_after >= interval * 2 && dead_after >= suspect_after + ms(400), "{interval:?}");
        // Others tell of the last heartbeat for a round.
        assert!(dead_after + interval <= ms(2000), "{interval:?}");
    }
}

proptest! {
    #[test]
    fn who_is_heard_is_live_and_who_is_silent_gets_no_better(
        steps in proptest::collection::vec((any::<bool>(), 0_u64..2000), 1..50)
    ) {
        let (mut now, mut observation, mut before) = (ms(0), HeartbeatObservation::Unproven { since: ms(0) }, NodeLiveness::Live);
        let mut beat = 1;
        for (heard, step) in steps {
            now += ms(step);
            beat += u64::from(heard);
            observation = observation.observe(heard, beat, now, &CONFIG);
            let judged = judge(observation, now, &CONFIG);
            // A look at the deadline is soon enough: until then nothing changes by itself, and then something does.
            if let Some(deadline) = next_deadline(observation, now, &CONFIG) {
                prop_assert!(deadline > now);
                prop_assert_eq!(judge(observation, deadline - ms(1), &CONFIG).max(judged), judged);
                prop_assert!(judge(observation, deadline, &CONFIG) > judged);
            } else {
                prop_assert_eq!(judged, NodeLiveness::Dead);
            }
            let lawful = if heard { judged == NodeLiveness::Live } else { judged >= before };
            prop_assert!(lawful, "{:?} after {:?}", judged, before);
            before = judged;
        }
    }
}

#[test]
fn a_stall_of_our_own_is_nobodys_death() {
    let start = Instant::now();
    let mut clock = AttendedClock::new(start, ms(100));
    assert_eq!(clock.advance(start + ms(50)), ms(50));
    assert_eq!(clock.advance(start + ms(10_050)), ms(150), "ten seconds without the processor count as one step");
    assert_eq!(clock.advance(start + ms(10_000)), ms(150), "and it never goes back");
}
