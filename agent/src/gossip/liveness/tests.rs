use super::*;
use proptest::prelude::*;

const CONFIG: LivenessConfig = LivenessConfig {
    suspect_for: Duration::from_millis(600),
    silent_for: Duration::from_millis(1500),
    first_grace: Duration::from_millis(3000),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_host_that_falls_silent_is_suspect_then_dead_then_live_again_when_heard() {
    let heard = Sighting::Unproven { since: ms(0) }.observe(true, 7, ms(1000));
    assert_eq!(judge(heard, ms(100_000), &CONFIG), Liveness::Live);

    // Missed long after its last heartbeat: what counts is how long it is missed.
    let lost = heard.observe(false, 7, ms(3000));
    assert_eq!(judge(lost, ms(3000), &CONFIG), Liveness::Suspect);
    assert_eq!(judge(lost.observe(false, 7, ms(3599)), ms(3599), &CONFIG), Liveness::Suspect);
    assert_eq!(judge(lost.observe(false, 7, ms(3600)), ms(3600), &CONFIG), Liveness::Dead);
    assert_eq!(judge(lost.observe(true, 8, ms(3700)), ms(3700), &CONFIG), Liveness::Live);
}

#[test]
fn a_host_that_is_missed_early_is_not_dead_before_it_was_silent_for_long() {
    let lost = Sighting::Heard { beat: 7, at: ms(1000) }.observe(false, 7, ms(1300));
    assert_eq!(judge(lost, ms(2499), &CONFIG), Liveness::Suspect);
    assert_eq!(judge(lost, ms(2500), &CONFIG), Liveness::Dead);
    let beats_again = lost.observe(false, 8, ms(2000));
    assert_eq!(judge(beats_again, ms(3499), &CONFIG), Liveness::Suspect);
    assert_eq!(judge(beats_again, ms(3500), &CONFIG), Liveness::Dead);
}

#[test]
fn a_host_that_was_never_heard_has_the_benefit_of_the_doubt_for_a_while() {
    let unproven = Sighting::Unproven { since: ms(500) }.observe(false, 1, ms(600)).observe(false, 2, ms(700));
    assert_eq!(judge(unproven, ms(3499), &CONFIG), Liveness::Live);
    assert_eq!(judge(unproven, ms(3500), &CONFIG), Liveness::Dead);
}

proptest! {
    #[test]
    fn who_is_heard_is_live_and_who_is_silent_gets_no_better(
        steps in proptest::collection::vec((any::<bool>(), 0_u64..2000), 1..50)
    ) {
        let (mut now, mut sighting, mut before) = (ms(0), Sighting::Unproven { since: ms(0) }, Liveness::Live);
        for (heard, step) in steps {
            now += ms(step);
            sighting = sighting.observe(heard, 1, now);
            let judged = judge(sighting, now, &CONFIG);
            let lawful = if heard { judged == Liveness::Live } else { judged >= before };
            prop_assert!(lawful, "{:?} after {:?}", judged, before);
            before = judged;
        }
    }
}

#[test]
fn a_stall_of_our_own_is_nobodys_death() {
    let start = Instant::now();
    let mut attention = Attention::new(start, ms(100));
    assert_eq!(attention.advance(start + ms(50)), ms(50));
    assert_eq!(attention.advance(start + ms(10_050)), ms(150), "ten seconds without the processor count as one step");
    assert_eq!(attention.advance(start + ms(10_000)), ms(150), "and it never goes back");
}
