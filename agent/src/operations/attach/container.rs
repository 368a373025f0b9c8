//! What is looked for in a container before it gets an interface, and which of its networks is its way out.

use std::collections::BTreeSet;
use std::path::Path;

use overlay::cluster::NetworkView;
use overlay::kernel::netns;
use overlay::model::addr::{IfName, Subnet};
use overlay::model::intent::{Attachment, Intents, NetnsRef};

use super::{AttachError, Wanted};

/// Which of a container's networks is its way out: the one with the highest priority, and of several the one that it was
/// connected to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Priority(i16);

/// A number that is no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway priority {0} is out of range: choose {min} to {max}", min = Priority::MIN, max = Priority::MAX)]
pub struct PriorityError(i32);

impl Priority {
    const MIN: i32 = -1000;
    const MAX: i32 = 1000;
    /// So many networks of one priority can be told apart by the metrics of their routes.
    const STEP: u32 = 100;

    /// The lowest metric of this priority: the kernel takes the route with the lowest (`ip-route(8)`). 0 is that of others, who say
    /// none.
    pub(super) fn metric(self) -> u32 {
        (Self::MAX - i32::from(self.0)).unsigned_abs() * Self::STEP + 1
    }

    /// Is it that of what has this metric? What an earlier version attached has none, and had the default.
    pub(super) fn is_that_of(self, metric: u32) -> bool {
        self == Self::default() && metric == 0 || (self.metric()..self.metric() + Self::STEP).contains(&metric)
    }
}

impl TryFrom<i32> for Priority {
    type Error = PriorityError;

    fn try_from(number: i32) -> Result<Self, PriorityError> {
        let fits = (Self::MIN..=Self::MAX).contains(&number);
        i16::try_from(number).ok().filter(|_| fits).map(Self).ok_or(PriorityError(number))
    }
}

/// The metric of what comes to a container: after all that came before with the same priority, also if one of them has gone.
pub(super) fn free_metric(intents: &Intents, comes: &Attachment) -> u32 {
    let together = intents.together(&comes.netns);
    let others = together.into_iter().filter(|other| other.endpoint.id != comes.endpoint.id);
    let taken: BTreeSet<u32> = others.map(|other| other.metric).collect();
    let band = comes.metric..comes.metric + Priority::STEP;
    let next = taken.range(band.clone()).next_back().map_or(comes.metric, |last| last + 1);
    if band.contains(&next) {
        next
    } else {
        band.clone().find(|metric| !taken.contains(metric)).unwrap_or(comes.metric)
    }
}

/// What its interface is to be called, if nothing in the container speaks against it.
pub(super) async fn check(
    view: &NetworkView,
    intents: &Intents,
    wanted: &Wanted,
    netns: &NetnsRef,
) -> Result<IfName, AttachError> {
    let interfaces = netns::interfaces(netns).await?;
    // One that the kernel does not have yet, as after a restart, has its name already.
    let promised: BTreeSet<&IfName> = intents.together(netns).into_iter().map(|other| &other.ifname).collect();
    let ifname = match &wanted.ifname {
        Some(ifname) if interfaces.contains_key(ifname) => {
            return Err(AttachError::InterfaceExists { ifname: ifname.clone(), netns: wanted.netns.clone() });
        }
        Some(ifname) => ifname.clone(),
        None => free_ifname(|ifname| interfaces.contains_key(ifname) || promised.contains(ifname)),
    };
    for (ifname, prefixed) in &interfaces {
        for (address, range) in prefixed.iter().flat_map(|p| view.network.ranges.iter().map(move |r| (p, r))) {
            let theirs = Subnet::of(address.address, address.len);
            if theirs.is_some_and(|theirs| theirs.overlaps(&range.subnet)) {
                return Err(AttachError::Overlaps {
                    subnet: range.subnet,
                    network: view.shown_name(),
                    address: address.address,
                    ifname: ifname.clone(),
                    netns: Path::to_owned(&wanted.netns),
                });
            }
        }
    }
    Ok(ifname)
}

fn free_ifname(is_taken: impl Fn(&IfName) -> bool) -> IfName {
    let mut names = (0_u32..).map(|n| format!("eth{n}").parse().expect("at most thirteen letters and digits"));
    names.find(|name| !is_taken(name)).expect("a namespace has fewer interfaces than there are numbers")
}

#[cfg(test)]
mod tests;
