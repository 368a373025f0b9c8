//! How the last round ended, and what does not work because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::datapath::attention::Part;
use crate::datapath::contested::Contest;
use crate::datapath::desired::{Desired, Segment};
use crate::datapath::foreign_chains::{BlockingChain, blocking_chains};
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::observed::{Altered, Observed};
use crate::datapath::plan::{HostStep, SegmentStep, Step};
use crate::datapath::report::Report;
use crate::datapath::rounds::Due;
use crate::model::id::{EndpointId, NetworkId};

/// How the last round ended.
#[derive(Debug, Clone, Default)]
pub struct ReconcileStatus {
    /// When it began; `None` if the kernel could not be looked at, or there was no round yet.
    pub began: Option<Instant>,
    /// The commit of the intents that the round was for.
    pub commit: u64,
    /// The networks of which something is left in the kernel that should be gone.
    pub lingering: BTreeSet<NetworkId>,
    /// What is not as it should be.
    pub failures: Vec<Failure>,
    /// What others have in the way of containers, and what is not changed.
    pub blocking_chains: BTreeSet<BlockingChain>,
    /// What another program undoes again and again.
    pub contested: BTreeSet<Contest>,
    /// What others have put on links of ours, and is not changed.
    pub foreign: BTreeSet<(NetworkId, Altered)>,
    /// The segments that stand, and the addresses that they answer DNS on.
    pub segments: BTreeMap<NetworkId, Vec<IpAddr>>,
    /// The cluster that the round was for.
    pub cluster: Arc<Cluster>,
    /// Why it ran, and for how long.
    pub last: LastRound,
}

/// Why the last round ran, and how many there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastRound {
    /// What it was run for.
    pub reason: Reason,
    /// How long it took.
    pub took: Duration,
    /// How many rounds there were since the start, this one included.
    pub rounds: u64,
    /// How many of them had to look at the kernel.
    pub looks: u64,
}

/// What a round is run for; one of several reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reason {
    /// The agent has started.
    #[default]
    Started,
    /// The intents of this host have changed.
    IntentsChanged,
    /// What the hosts of the cluster say has changed.
    ClusterChanged,
    /// The kernel has told of a change.
    KernelChanged,
    /// The round before has failed.
    Retry,
    /// Everything is looked at from time to time.
    Audit,
    /// A request needs to know how the kernel is.
    Asked,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::IntentsChanged => "intents changed",
            Self::ClusterChanged => "cluster changed",
            Self::KernelChanged => "kernel changed",
            Self::Retry => "retry",
            Self::Audit => "audit",
            Self::Asked => "asked",
        })
    }
}

impl ReconcileStatus {
    /// How a round has ended, after one that ended like `before`. For which commit and cluster it was, and why, is for the caller to say.
    pub fn after(before: &Self, due: &Due, began: Instant, outcome: &Result<(Observed, Report), StepError>) -> Self {
        match outcome {
            Ok((observed, report)) => Self {
                began: Some(began),
                lingering: lingering(report),
                segments: standing_segments(&due.desired, report),
                failures: Failure::all(&due.desired, report),
                blocking_chains: match due.look.has(Part::Host) {
                    true => blocking_chains(&observed.others, &due.desired),
                    false => before.blocking_chains.clone(),
                },
                foreign: foreign(before, due, observed),
                ..Self::default()
            },
            Err(error) => Self {
                // What stood a moment ago stands as far as anybody can tell.
                segments: before.segments.clone(),
                failures: vec![Failure::new(Scope::Host, error)],
                ..Self::default()
            },
        }
    }

    /// Is all that was let go of in the network, for so long at least, out of the kernel?
    pub fn is_clear(&self, network: NetworkId, for_long: Duration, now: Instant) -> bool {
        let is_recent = |began: Instant| now.saturating_duration_since(began) < for_long;
        self.began.is_some_and(is_recent) && !self.lingering.contains(&network)
    }

    /// Do packets of the network find the way from here to the endpoint? Where there is no segment there are none.
    pub fn reaches(&self, network: NetworkId, endpoint: EndpointId) -> bool {
        let known = || self.cluster.networks.get(&network).is_some_and(|v| v.endpoints.contains_key(&endpoint));
        !self.segments.contains_key(&network) || known()
    }

    /// The failures that `before` did not have. One that the kernel puts in other words now is no new one.
    pub fn new_failures<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Failure> {
        let is_known = |failure: &Failure| before.failures.iter().any(|known| known.is_same(failure));
        self.failures.iter().filter(move |failure| !is_known(failure))
    }
}

/// One thing that could not be done. Its text is made where it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What does not work for it.
    pub scope: Scope,
    /// The kind of reason.
    pub cause: Cause,
    /// What was tried, and on which object.
    pub doing: String,
    /// What a person should know in place of the bare cause.
    pub detail: Option<String>,
    /// What the kernel, or the program that talks to it, said.
    pub said: Option<String>,
}

impl Failure {
    /// Is it the same thing that could not be done, for the same kind of reason?
    fn is_same(&self, other: &Self) -> bool {
        (self.scope, self.cause, &self.doing) == (other.scope, other.cause, &other.doing)
    }

    /// The failure that an error is.
    pub fn new(scope: Scope, error: &StepError) -> Self {
        Self {
            scope,
            cause: error.cause,
            doing: error.doing.clone(),
            detail: error.detail.clone(),
            said: error.source.as_ref().map(ToString::to_string),
        }
    }

    /// Those of a round.
    pub fn all(desired: &Desired, report: &Report) -> Vec<Self> {
        report.failed.iter().map(|(step, error)| Self::new(Scope::of(step, desired), error)).collect()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doing, cause, detail, said, .. } = self;
        match detail {
            Some(detail) => write!(f, "{doing}: {detail}")?,
            None => write!(f, "{doing}: {cause}")?,
        }
        said.iter().try_for_each(|said| write!(f, " ({said})"))
    }
}

/// What does not work if a step has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: it is about the host itself.
    Host,
    /// The way to the world, as far as others have a say in it: every endpoint of this host is whole nonetheless.
    ForeignChain,
    /// A whole segment: the rest of it stands on that step.
    Segment(NetworkId),
    /// One endpoint of this host.
    Endpoint(NetworkId, EndpointId),
    /// One entry of the network, or something left over: every endpoint of this host is whole nonetheless.
    Entry(NetworkId),
}

impl Scope {
    /// What does not work if this step has failed.
    pub fn of(step: &Step, desired: &Desired) -> Self {
        use SegmentStep::{
            Announce, ConnectPort, ConnectTunnel, Create, CreateBridge, CreatePort, CreateTunnel, CreateUplink, Delete,
            DeleteFilter, DeletePort, DeleteTunnel, DeleteUplink, ForgetFlows, ReplaceFilter, ReplaceFirewall, Restore,
            Row, UpdateBridge, UpdateFilter, UpdatePort, UpdateUplink,
        };
        let (network, step) = match step {
            Step::Host(HostStep::SetAcceptRules(..)) => return Self::ForeignChain,
            Step::Host(_) => return Self::Host,
            Step::Segment(network, step) => (network, step),
        };
        match step {
            CreatePort(id, _) => Self::Endpoint(*network, *id),
            ConnectPort(port) | UpdatePort(port) => {
                let mut ports = desired.segments.get(network).into_iter().flat_map(|segment| &segment.ports);
                let endpoint = ports.find(|(_, p)| p.host_ifname == port.host_ifname).map(|(id, _)| *id);
                endpoint.map_or(Self::Entry(*network), |id| Self::Endpoint(*network, id))
            }
            Row(_) | DeletePort(_) | Announce(_) | Restore(_) => Self::Entry(*network),
            Create(_)
            | Delete
            | ReplaceFirewall(_)
            | ReplaceFilter(_)
            | UpdateFilter(_)
            | DeleteFilter
            | ForgetFlows(_)
            | CreateBridge(_)
            | UpdateBridge(_)
            | CreateTunnel(_)
            | ConnectTunnel { .. }
            | DeleteTunnel
            | CreateUplink(_)
            | UpdateUplink(_)
            | DeleteUplink => Self::Segment(*network),
        }
    }

    /// The network that it is about; `None` for the host itself and its neighbours.
    pub fn network(self) -> Option<NetworkId> {
        match self {
            Self::Host | Self::ForeignChain => None,
            Self::Segment(network) | Self::Endpoint(network, _) | Self::Entry(network) => Some(network),
        }
    }

    /// Is that endpoint of this host not whole for it?
    pub fn breaks(self, network: NetworkId, endpoint: EndpointId) -> bool {
        match self {
            Self::Host => true,
            Self::Segment(broken) => broken == network,
            Self::Endpoint(_, broken) => broken == endpoint,
            Self::ForeignChain | Self::Entry(_) => false,
        }
    }
}

/// The segments whose bridges are there, and so the addresses that DNS is asked on. Whatever else is missing, names go on.
pub fn standing_segments(desired: &Desired, report: &Report) -> BTreeMap<NetworkId, Vec<IpAddr>> {
    let undone = report.skipped.iter().chain(report.failed.iter().map(|(step, _)| step));
    let carries = |step: &&Step| {
        use SegmentStep::{Create, CreateBridge, UpdateBridge};
        matches!(step, Step::Segment(_, Create(_) | CreateBridge(_) | UpdateBridge(_)))
    };
    let fallen: BTreeSet<NetworkId> = undone.filter(carries).filter_map(Step::network).collect();
    let standing_segments = desired.segments.iter().filter(|(id, _)| !fallen.contains(id));
    // A link-local address is asked by nobody, who would have to say on which link.
    let asked = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let addresses = |segment: &Segment| segment.bridge.addresses.iter().map(|a| a.address).filter(asked).collect();
    standing_segments.map(|(id, segment)| (*id, addresses(segment))).collect()
}

/// Of the segments that were not looked at it is what it was.
fn foreign(before: &ReconcileStatus, due: &Due, observed: &Observed) -> BTreeSet<(NetworkId, Altered)> {
    let kept = before.foreign.iter().filter(|(id, _)| !due.look.has(Part::Segment(*id))).cloned();
    let seen = observed.segments.iter().flat_map(|(id, segment)| segment.altered.iter().map(|one| (*id, one.clone())));
    kept.chain(seen.filter(|(_, one)| !one.can_be_restored)).collect()
}

/// Ports that should be gone, alone or with their segment, and are not.
pub fn lingering(report: &Report) -> BTreeSet<NetworkId> {
    let undone = report.skipped.iter().chain(report.failed.iter().map(|(step, _)| step));
    let removes = |step: &&Step| matches!(step, Step::Segment(_, SegmentStep::DeletePort(_) | SegmentStep::Delete));
    undone.filter(removes).filter_map(Step::network).collect()
}

#[cfg(test)]
mod tests;
