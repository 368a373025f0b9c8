//! What another program undoes again and again.
//!
//! A round that desires the same as the round before should find nothing to do. If it has a step to do, another program or a person has
//! changed the kernel, and the step is a repair. The agent repairs each time. If it has to do the same repair often, `status` says so:
//! two programs do not agree, and only a person can end that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::datapath::plan::{SegmentStep, Step};
use crate::model::id::NetworkId;

/// How long a repair is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// So many repairs of one thing within that time are told.
const OFTEN: usize = 3;

/// One thing that is undone again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contest {
    /// The network; `None` for the host's own.
    pub network: Option<NetworkId>,
    /// The step that has to be done again and again.
    pub repair: String,
    /// How often it was done within the last minute.
    pub times: usize,
}

/// The repairs of the last minute.
#[derive(Debug, Default)]
pub(super) struct Repairs(BTreeMap<(Option<NetworkId>, String), Vec<Instant>>);

impl Repairs {
    /// These steps were repairs.
    pub fn note(&mut self, done: &[Step], now: Instant) {
        let repairs = done.iter().filter(|step| is_repair(step)).map(|step| (step.network(), step.to_string()));
        for repair in repairs.collect::<BTreeSet<_>>() {
            self.0.entry(repair).or_default().push(now);
        }
    }

    /// What is undone again and again, as of now.
    pub fn contested(&mut self, now: Instant) -> BTreeSet<Contest> {
        for times in self.0.values_mut() {
            times.retain(|time| now.saturating_duration_since(*time) < REMEMBERED);
        }
        self.0.retain(|_, times| !times.is_empty());
        let often = self.0.iter().filter(|(_, times)| times.len() >= OFTEN);
        often
            .map(|((network, repair), times)| Contest { network: *network, repair: repair.clone(), times: times.len() })
            .collect()
    }
}

/// Rows come and go by the thousand, and what is told to containers is none of the kernel's state.
fn is_repair(step: &Step) -> bool {
    !matches!(step, Step::Segment(_, SegmentStep::Row(_) | SegmentStep::Announce(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::plan::HostStep;
    use crate::model::addr::IpVersion;

    #[test]
    fn what_is_repaired_three_times_within_a_minute_is_told_until_it_rests() {
        let (mut repairs, start) = (Repairs::default(), Instant::now());
        let step = [Step::Host(HostStep::EnableForwarding(IpVersion::V4))];
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 2] {
            repairs.note(&step, at(seconds));
        }
        assert!(repairs.contested(at(3)).is_empty(), "twice may be chance");
        repairs.note(&step, at(4));
        let told: Vec<_> = repairs.contested(at(5)).into_iter().collect();
        let contest = Contest { network: None, repair: "turn on IPv4 forwarding".to_owned(), times: 3 };
        assert_eq!(told, [contest]);
        assert!(repairs.contested(at(61)).is_empty(), "it has ended");
        assert!(repairs.0.len() == 1 && repairs.contested(at(70)).is_empty() && repairs.0.is_empty());
    }
}
