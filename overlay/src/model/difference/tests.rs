use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn map() -> impl Strategy<Value = BTreeMap<u8, u8>> {
    prop::collection::btree_map(0_u8..8, 0_u8..3, 0..8)
}

proptest! {
    #[test]
    fn exactly_the_keys_with_another_value_are_found_in_order(before in map(), now in map()) {
        let keys: BTreeSet<u8> = before.keys().chain(now.keys()).copied().collect();
        let differ = keys.iter().filter(|key| before.get(key) != now.get(key));
        let expected: Vec<_> = differ.map(|key| (*key, before.get(key).copied(), now.get(key).copied())).collect();
        let found = differences(&before, &now, |old, new| old == new).into_iter();
        let found: Vec<_> = found.map(|(key, old, new)| (*key, old.copied(), new.copied())).collect();
        prop_assert_eq!(found, expected);
    }
}
