//! Which containers have to be told that an address has another MAC than it had.
//!
//! A container keeps the MAC of an address for minutes after the address has gone. If the address comes back with another MAC, the
//! container sends to the old one until its kernel gives it up. So each host tells its own containers, as RFC 5227 (section 3) and
//! RFC 4861 (section 7.2.6) have it; nothing of that goes through a tunnel.
//!
//! Owns what every address of a segment had for a MAC; learns it from the steps that were done. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::datapath::desired::{Desired, Segment};
use crate::datapath::observed::Observed;
use crate::datapath::plan::{RowStep, SegmentStep, Step};
use crate::model::addr::{IfName, Mac};
use crate::model::id::NetworkId;

/// Most addresses of one segment that are remembered: as many as an IPv4 /16 has.
const REMEMBERED: usize = 1 << 16;

/// What the containers of one segment are to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The addresses, and what they have now.
    pub macs: BTreeMap<IpAddr, Mac>,
    /// The segment's ends of the containers' pairs, each with its container's MAC: no container is told of itself.
    pub ports: BTreeMap<IfName, Mac>,
}

/// What was told, and what is to be told, in all segments.
#[derive(Debug, Default)]
pub struct Announcer {
    segments: BTreeMap<NetworkId, History>,
}

/// The addresses of one segment.
#[derive(Debug, Default)]
struct History {
    /// What an address has, or had last.
    macs: BTreeMap<IpAddr, Mac>,
    /// Is an address that is not in `macs` one that no container of the segment has ever met?
    is_whole: bool,
    /// What the containers have not been told yet.
    due: BTreeSet<IpAddr>,
}

impl Announcer {
    /// A round has found the kernel to be like `observed`, and has done these steps.
    pub fn note(&mut self, observed: &Observed, done: &[Step]) {
        for (id, segment) in &observed.segments {
            // One that was there before this agent: what was in it earlier is not known.
            let found = || History { macs: BTreeMap::clone(&segment.neighbours), ..History::default() };
            self.segments.entry(*id).or_insert_with(found);
        }
        for step in done {
            match step {
                Step::Segment(id, SegmentStep::Create(_)) => {
                    self.segments.insert(*id, History { is_whole: true, ..History::default() });
                }
                Step::Segment(id, SegmentStep::Delete) => drop(self.segments.remove(id)),
                Step::Segment(id, SegmentStep::Row(RowStep::PutNeighbour(address, mac))) => {
                    let history = self.segments.entry(*id).or_default();
                    // Another program had put another one there, and containers have learnt that.
                    let seen = observed.segments.get(id).and_then(|segment| segment.neighbours.get(address));
                    history.due.extend(seen.filter(|seen| *seen != mac).map(|_| *address));
                    history.learn(*address, *mac);
                }
                Step::Segment(id, SegmentStep::Announce(told)) => {
                    if let Some(history) = self.segments.get_mut(id) {
                        history.due.retain(|address| history.macs.get(address) != told.macs.get(address));
                    }
                }
                Step::Segment(..) | Step::Host(_) => {}
            }
        }
    }

    /// The steps that tell containers of the addresses that they have to hear of. An address that has left the segment meanwhile is left
    /// out.
    pub fn due(&mut self, desired: &Desired) -> Vec<Step> {
        let mut steps = Vec::new();
        for (id, history) in self.segments.iter_mut().filter(|(_, history)| !history.due.is_empty()) {
            let Some(segment) = desired.segments.get(id) else { continue };
            history.forget(segment);
            let macs: BTreeMap<IpAddr, Mac> =
                history.due.iter().filter_map(|address| Some((*address, *history.macs.get(address)?))).collect();
            let ports = segment.ports.values().map(|port| (port.host_ifname.clone(), port.mac)).collect();
            if !macs.is_empty() {
                steps.push(Step::Segment(*id, SegmentStep::Announce(Announcement { macs, ports })));
            }
        }
        steps
    }
}

impl History {
    fn learn(&mut self, address: IpAddr, mac: Mac) {
        let before = self.macs.insert(address, mac);
        if before.map_or(!self.is_whole, |before| before != mac) {
            self.due.insert(address);
        }
    }

    /// What is not in the segment needs not be told; and it is forgotten if there is too much of it.
    fn forget(&mut self, segment: &Segment) {
        self.due.retain(|address| segment.neighbours.get(address) == self.macs.get(address));
        if self.macs.len() > REMEMBERED {
            self.macs.retain(|address, _| segment.neighbours.contains_key(address));
            self.is_whole = false;
        }
    }
}

#[cfg(test)]
mod tests;
