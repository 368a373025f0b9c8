//! Which parts of the kernel a round looks at.
//!
//! The kernel consists of parts: the host's namespace, and one namespace per segment. A look and a plan of one part need nothing of
//! another part, so a round may leave parts out. A round plans only what it has looked at itself; no observation is kept here. How much
//! a look at a part has to read is the kernel's affair: the real one reads again only what the kernel has told of a change of, and
//! everything when everything is looked at.
//!
//! Why it is safe to leave a part out: a part is left out only if all of this holds.
//!
//! - An earlier round looked at it, and planned for what is desired of it now.
//! - No step of any part has failed since: after a failure [`Confirmed`] knows nothing, and the next round looks at everything.
//! - The kernel has told of no change of it since the moment before that look ([`News`]). A change whose message was lost counts as
//!   a change, and so does a namespace that was opened anew, since its changes could not be heard before.
//!
//! Our own steps make the kernel tell of changes, too. So a part that a round has changed is looked at once more, which also confirms
//! that the steps did what they were to do. A change of which the kernel tells nothing is found by the audit, which looks at
//! everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::datapath::desired::Desired;
use crate::datapath::foreign_chains::versions;
use crate::datapath::plan::Knowledge;
use crate::model::id::NetworkId;

/// A part of the kernel that is looked at and planned on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The host's namespace.
    Host,
    /// The namespace of a network.
    Segment(NetworkId),
}

impl Part {
    /// The network whose segment it is.
    pub fn segment(self) -> Option<NetworkId> {
        match self {
            Self::Host => None,
            Self::Segment(id) => Some(id),
        }
    }
}

/// The parts that a round looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// All parts, also segments that nothing is known of.
    Everything,
    /// These parts only.
    Only(BTreeSet<Part>),
}

impl Look {
    /// Is the part looked at?
    pub fn has(&self, part: Part) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(parts) => parts.contains(&part),
        }
    }

    /// Is nothing looked at?
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(parts) if parts.is_empty())
    }
}

impl From<Part> for Look {
    fn from(part: Part) -> Self {
        Self::Only([part].into())
    }
}

/// What the kernel has told of: for each part the number of its last change. Numbers only grow, and are never used twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    last: u64,
    changes: BTreeMap<Part, u64>,
}

impl News {
    /// The part has changed.
    pub fn note(&mut self, part: Part) {
        self.last += 1;
        self.changes.insert(part, self.last);
    }

    /// The part is no more.
    pub fn forget(&mut self, part: Part) {
        self.changes.remove(&part);
    }

    /// The parts that have changed since `earlier`.
    pub fn since(&self, earlier: &Self) -> BTreeSet<Part> {
        let changed = self.changes.iter().filter(|(part, number)| earlier.changes.get(part) != Some(number));
        changed.map(|(part, _)| *part).collect()
    }
}

/// What the kernel was last made to be, if nothing has failed since.
#[derive(Debug, Default)]
pub struct Confirmed(Option<(Arc<Desired>, Knowledge)>);

impl Confirmed {
    /// What the next round has to look at, if `news` have changed since before the last one looked.
    pub fn look(&self, desired: &Arc<Desired>, knowledge: Knowledge, news: BTreeSet<Part>) -> Look {
        match &self.0 {
            Some((before, knew)) if *knew == knowledge => {
                let changed = if Arc::ptr_eq(before, desired) { BTreeSet::new() } else { changed(before, desired) };
                Look::Only(changed.into_iter().chain(news).collect())
            }
            Some(_) | None => Look::Everything,
        }
    }

    /// A round of what [`look`](Self::look) gave has ended, and nothing has failed.
    pub fn set(&mut self, desired: Arc<Desired>, knowledge: Knowledge) {
        self.0 = Some((desired, knowledge));
    }

    /// Something has failed, or an audit is due: the next round looks at everything.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

/// The parts that are desired to be otherwise than before.
fn changed(before: &Desired, desired: &Desired) -> BTreeSet<Part> {
    let ids: BTreeSet<NetworkId> = before.segments.keys().chain(desired.segments.keys()).copied().collect();
    let pair = |id: &NetworkId| (before.segments.get(id), desired.segments.get(id));
    let mut parts: BTreeSet<Part> = ids
        .iter()
        .filter(|id| {
            let (old, new) = pair(id);
            old != new
        })
        .map(|id| Part::Segment(*id))
        .collect();
    // An uplink stands between containers and the host: none is made before it was seen that the host filters.
    let has_other_uplink = ids.iter().any(|id| {
        let (old, new) = pair(id);
        old.map(|segment| &segment.uplink) != new.map(|segment| &segment.uplink)
    });
    let host = |d: &Desired| (d.forwarding.clone(), versions(d));
    let is_other = before.firewall != desired.firewall || before.peers != desired.peers;
    if has_other_uplink || host(before) != host(desired) || is_other {
        parts.insert(Part::Host);
    }
    parts
}

#[cfg(test)]
mod tests;
