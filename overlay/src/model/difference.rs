//! The difference of two sorted maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A key whose value differs: the value before and the value now, of which at least one is there.
pub type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// The keys whose values differ, in order. Walks both maps once, so it costs far less than a lookup of each key.
pub fn differences<'a, K: Ord, V>(
    before: &'a BTreeMap<K, V>,
    now: &'a BTreeMap<K, V>,
    is_same: impl Fn(&V, &V) -> bool,
) -> Vec<Difference<'a, K, V>> {
    let mut found = Vec::new();
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (before.peek(), now.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return found,
        };
        let old = before.next_if(|_| order != Ordering::Greater);
        let new = now.next_if(|_| order != Ordering::Less);
        match (old, new) {
            (Some((_, old)), Some((_, new))) if is_same(old, new) => {}
            (Some((key, old)), new) => found.push((key, Some(old), new.map(|(_, new)| new))),
            (None, Some((key, new))) => found.push((key, None, Some(new))),
            (None, None) => return found,
        }
    }
}

#[cfg(test)]
mod tests;
