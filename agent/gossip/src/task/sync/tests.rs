use super::*;

const SETTLE: Duration = Duration::from_millis(500);

fn run(steps: &[(u64, usize, usize)]) -> SyncState {
    steps.iter().fold(SyncState::Alone, |state, (ms, complete, lacking)| {
        state.step(Census { complete: *complete, lacking: *lacking }, Duration::from_millis(*ms), SETTLE)
    })
}

#[test]
fn a_host_that_hears_no_one_is_never_synced() {
    assert_eq!(run(&[(0, 0, 0), (100_000, 0, 3)]), SyncState::Alone);
}

#[test]
fn all_must_have_been_complete_for_a_while_without_a_break() {
    assert_ne!(run(&[(0, 1, 0), (499, 1, 0)]), SyncState::Synced);
    assert_eq!(run(&[(0, 1, 0), (500, 1, 0)]), SyncState::Synced);
    assert_ne!(run(&[(0, 1, 0), (400, 1, 1), (500, 2, 0), (999, 2, 0)]), SyncState::Synced);
    assert_eq!(run(&[(0, 1, 0), (400, 1, 1), (500, 2, 0), (1000, 2, 0)]), SyncState::Synced);
}

#[test]
fn one_host_that_never_completes_is_not_waited_for_forever() {
    assert_ne!(run(&[(0, 1, 1), (9999, 1, 1)]), SyncState::Synced);
    assert_eq!(run(&[(0, 1, 1), (10_000, 1, 1)]), SyncState::Synced);
}

#[test]
fn who_is_synced_stays_so() {
    assert_eq!(run(&[(0, 1, 0), (500, 1, 0), (600, 0, 5)]), SyncState::Synced);
}
