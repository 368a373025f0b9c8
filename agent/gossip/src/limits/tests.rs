use super::*;

#[test]
fn a_limit_is_near_from_eighty_percent_on() {
    let is_near = |limit, used| Usage { limit, used }.is_near();
    for (limit, below, near) in
        [(Limit::Digest, 47_999, 48_000), (Limit::Incarnations, 1_638, 1_639), (Limit::Value, 13_107, 13_108)]
    {
        assert!(!is_near(limit, 0) && !is_near(limit, below), "{limit:?}");
        assert!(is_near(limit, near) && is_near(limit, limit.most()) && is_near(limit, usize::MAX), "{limit:?}");
    }
}

#[test]
fn each_limit_has_its_own_place_and_name() {
    for (place, limit) in Limit::ALL.into_iter().enumerate() {
        assert_eq!(limit as usize, place);
    }
    let names: std::collections::BTreeSet<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
    assert_eq!(names.len(), Limit::ALL.len());
}
