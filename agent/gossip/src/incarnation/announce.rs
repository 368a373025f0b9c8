//! Writes what this host announces into its own chitchat state.
//!
//! An announcement is a level: it has all keys. Changes are found by comparison, so nothing is lost if the caller restarts, and an
//! unchanged key costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chitchat::{NodeState, Version};

/// Everything that a host announces: key to value. Keys up to [`MAX_KEY`] bytes, values up to [`MAX_VALUE`].
pub type Announcement = BTreeMap<String, String>;

/// Largest value, in bytes. From 65,536 on a value never spreads and silently blocks every later key of its host (chitchat 0.13).
pub const MAX_VALUE: usize = 16 * 1024;
/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// The reserved key that is written last in each batch, and so always has the highest version.
///
/// Deltas bring a host's keys in the order of their versions, each key only at its last one. So a host that has the marker has all
/// keys that were written before it: the marker proves that an incarnation is complete.
pub(crate) const MARKER: &str = "~";

/// A key's value as of a version of its host; no value if it was deleted.
///
/// Ordered by version. The value only decides between two that claim the same version, which no honest host makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamped {
    pub version: Version,
    pub value: Option<Arc<str>>,
}

/// What [`write()`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The state's version before.
    pub after: Version,
    /// The state's version now.
    pub upto: Version,
    /// Sets, then deletes; the marker is not among them.
    pub changes: Vec<(String, Stamped)>,
    /// Keys that can't be announced: too long, too large or reserved. Their last values stand.
    pub refused: BTreeSet<String>,
}

/// Makes `state` say `wanted`: sets first, then deletes, then the marker.
///
/// In that order a host that has received a part of it has the new keys next to the old ones, never neither.
pub(crate) fn write(state: &mut NodeState, wanted: &Announcement) -> Written {
    let mut written = Written { after: state.max_version(), ..Written::default() };
    for (key, value) in wanted {
        if !is_sayable(key, value) {
            written.refused.insert(key.clone());
        } else if state.get(key) != Some(value) {
            state.set(key, value);
            let stamped = Stamped { version: state.max_version(), value: Some(value.as_str().into()) };
            written.changes.push((key.clone(), stamped));
        }
    }
    let gone: Vec<String> = state
        .key_values()
        .map(|(key, _)| key)
        .filter(|key| *key != MARKER && !wanted.contains_key(*key))
        .map(str::to_owned)
        .collect();
    for key in gone {
        state.delete(&key);
        written.changes.push((key, Stamped { version: state.max_version(), value: None }));
    }
    if !written.changes.is_empty() {
        state.set(MARKER, state.max_version());
    }
    written.upto = state.max_version();
    written
}

/// The first state of an incarnation that says `wanted`, in the order to set it.
pub(crate) fn first(wanted: &Announcement) -> Vec<(String, String)> {
    let sayable = wanted.iter().filter(|(key, value)| is_sayable(key, value));
    let marker = (MARKER.to_owned(), "0".to_owned());
    sayable.map(|(key, value)| (key.clone(), value.clone())).chain([marker]).collect()
}

fn is_sayable(key: &str, value: &str) -> bool {
    key != MARKER && key.len() <= MAX_KEY && value.len() <= MAX_VALUE
}

#[cfg(test)]
mod tests;
