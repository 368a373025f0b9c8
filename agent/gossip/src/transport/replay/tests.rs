use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

proptest! {
    /// Against the plain model: a set of all that was seen and the highest of it.
    #[test]
    fn a_counter_is_taken_once_and_only_within_the_window(
        steps in proptest::collection::vec(prop_oneof![0_u64..3000, Just(u64::MAX), Just(u64::MAX - WINDOW)], 0..300)
    ) {
        let mut window = ReplayWindow::new();
        let mut seen = BTreeSet::new();
        for counter in steps {
            let highest = seen.last().copied().unwrap_or(0);
            let fresh = counter != 0 && !seen.contains(&counter) && counter.saturating_add(WINDOW) > highest;
            prop_assert_eq!(window.is_new(counter), fresh, "{} after {}", counter, highest);
            if fresh {
                window.mark(counter);
                seen.insert(counter);
            }
        }
    }
}

#[test]
fn late_datagrams_within_the_window_are_taken() {
    let mut window = ReplayWindow::new();
    window.mark(WINDOW + 10);
    assert!(window.is_new(11));
    assert!(!window.is_new(10));
    window.mark(11);
    assert!(!window.is_new(11));
}
