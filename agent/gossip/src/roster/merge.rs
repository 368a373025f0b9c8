//! The keys of one incarnation, from two sources: chitchat's state, which has no gaps up to its version, and pushes, which run ahead of
//! it and may have gaps.
//!
//! Per key the highest version wins, so the join is commutative, associative and idempotent, and it does not matter which source was
//! faster. Pure.

use std::collections::BTreeMap;

use chitchat::Version;

use crate::incarnation::announce::Stamped;
use crate::push::Push;

/// Keys of one incarnation, deleted ones among them.
pub(crate) type Entries = BTreeMap<String, Stamped>;

/// Per key the higher of both.
pub(crate) fn join(mut left: Entries, right: &Entries) -> Entries {
    right.iter().for_each(|(key, stamped)| put(&mut left, key, stamped));
    left
}

fn put(entries: &mut Entries, key: &str, stamped: &Stamped) {
    match entries.get_mut(key) {
        Some(known) if *known < *stamped => *known = stamped.clone(),
        Some(_) => {}
        None => {
            entries.insert(key.to_owned(), stamped.clone());
        }
    }
}

/// Keys that were pushed and that chitchat does not have yet.
#[derive(Debug, Default)]
pub(crate) struct PushedEntries {
    entries: Entries,
    /// Together with chitchat's state, pushes have brought every version up to this one.
    upto: Version,
}

/// Most keys of one incarnation that pushes may be ahead by. Beyond that anti-entropy is the faster way.
const MAX_PUSHED: usize = 4096;

/// Whether a push follows what was there without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Nothing is missing before it.
    Contiguous,
    /// Something before it has not come: its sets were taken, its deletes were not.
    Gap,
}

impl PushedEntries {
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Takes what `push` brings beyond `caught_up`, the version that chitchat has reached.
    ///
    /// A delete counts only if nothing before it is missing. The key that replaces the deleted one was set before, and has to be
    /// seen before the delete is.
    pub fn receive(&mut self, push: &Push, caught_up: Version) -> Fit {
        let fit = match push.after <= self.upto.max(caught_up) {
            true => Fit::Contiguous,
            false => Fit::Gap,
        };
        for (key, stamped) in &push.changes {
            let in_order = stamped.value.is_some() || fit == Fit::Contiguous;
            let room = self.entries.len() < MAX_PUSHED || self.entries.contains_key(key);
            if stamped.version > caught_up && in_order && room {
                put(&mut self.entries, key, stamped);
            }
        }
        if fit == Fit::Contiguous && push.whole {
            self.upto = self.upto.max(push.upto);
        }
        fit
    }

    /// Forgets what chitchat has, now that it has reached `caught_up`.
    pub fn prune(&mut self, caught_up: Version) {
        self.entries.retain(|_, stamped| stamped.version > caught_up);
    }
}

#[cfg(test)]
mod tests;
