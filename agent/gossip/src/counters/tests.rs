use super::*;

#[test]
fn each_reason_has_its_own_place_and_name() {
    for (place, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, place);
    }
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}

#[test]
fn a_count_counts_only_its_reason() {
    let counters = Counters::default();
    counters.count(Reason::Replayed);
    counters.count(Reason::Replayed);
    for (reason, count) in counters.all() {
        assert_eq!(count, if reason == Reason::Replayed { 2 } else { 0 }, "{reason:?}");
    }
}
