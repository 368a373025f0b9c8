//! Forgetting hosts: the command that starts it, and how far it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use overlay::cluster::Cluster;
use overlay::ledger::{Denial, Input, Ledger, Membership, Outcome};
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay::operations::forget::{self, Named};
use overlay_proto::v1 as pb;
use tokio::sync::watch;
use tonic::Status;

use super::show::{name, waiting};
use super::{Service, in_one_line};
use crate::cluster::ClusterView;
use crate::membership::probe;
use crate::state;

/// How long the agent has to run before the silence of a host counts.
const LISTENING: Duration = Duration::from_secs(10);

pub(super) type Progress = BoxStream<'static, Result<pb::ForgetProgress, Status>>;

/// Starts it, unless one of them is there after all.
pub(super) async fn start(service: &Service, named: &[String], force: bool) -> Result<Progress, Status> {
    let cluster = service.cluster();
    let ledger = service.attacher.state.state().ledger;
    let members = ledger.membership();
    let mut hosts = BTreeMap::new();
    for text in named {
        let id = find(&cluster, &members.others().chain(members.foreign.iter().copied()).collect(), text)?;
        let named = forget::named(&ledger, &cluster, id);
        match named {
            Named::Itself => {
                return Err(Status::invalid_argument(format!(
                    "host `{text}` is this one: a host that is to go is forgotten from another, after it is off"
                )));
            }
            Named::There(liveness) => {
                return Err(Status::failed_precondition(format!(
                    "host `{text}` is {}: turn the machine off or take it off the network, and try again once `overlayctl host \
                     ls` says that it is gone",
                    if liveness == Liveness::Live { "alive" } else { "silent, but may be there" }
                )));
            }
            Named::Unheard(_) => look_for(service, members, id, text).await?,
            Named::Gone(_) => {}
        }
        hosts.extend(named.boot().map(|boot| (id, boot)));
    }
    let names = || hosts.keys().map(|id| name(&cluster, *id)).collect::<Vec<_>>();
    if hosts.is_empty() {
        return Err(Status::invalid_argument("no host is named: see `overlayctl host ls`"));
    }
    let input = Input::Forget { hosts: hosts.clone(), force };
    let outcome = service.attacher.state.tell(input).await;
    if let Outcome::Denied(denial) = outcome.map_err(|error| Status::internal(in_one_line(&error)))?.answer {
        return Err(refused(&cluster, &names(), &denial));
    }
    Ok(progress(hosts.into_keys().collect(), service.attacher.state.committed.clone(), service.seen.clone()))
}

/// Refuses if the host may be there all the same: gossip forgets a host that is silent for long, and knows none yet when the agent
/// starts.
async fn look_for(service: &Service, members: &Membership, host: HostId, text: &str) -> Result<(), Status> {
    if members.is_forgotten(host) {
        return Ok(());
    }
    if service.seen.borrow().silent.of(host).elapsed() < LISTENING {
        return Err(Status::unavailable(format!(
            "overlayd has just started and has not heard of host `{text}` yet: try again in a moment"
        )));
    }
    let at = service.attacher.state.state().peers.get(&host).copied();
    let taken = |at| service.cluster().hosts.values().any(|known| known.info.peer == at);
    match at {
        Some(at) if !taken(at) && probe::is_there(at).await => Err(Status::failed_precondition(format!(
            "host `{text}` is silent, but something answers at {at}: turn the machine off or take it off the network, and \
             try again"
        ))),
        _ => Ok(()),
    }
}

fn refused(cluster: &Cluster, named: &[String], denial: &Denial) -> Status {
    let together = named.join(" ");
    Status::failed_precondition(match denial {
        Denial::Rival { host, seal } => {
            let (host, heir) = (name(cluster, *host), name(cluster, seal.heir));
            format!(
                "host `{host}` is being forgotten by host `{heir}` already: look at its progress on `{heir}`, and repeat the \
                 command there if it has stopped; if `{heir}` is off too: `overlayctl host forget {together} {heir}`"
            )
        }
        Denial::Readmitted { host, .. } => format!(
            "host `{}` has booted and was admitted since this host heard of it last: make sure that it is off, then try again",
            name(cluster, *host)
        ),
        Denial::Unnamed { hosts } => {
            let more: Vec<String> = hosts.iter().map(|host| name(cluster, *host)).collect();
            let more = more.join(" ");
            format!(
                "this host is forgetting {more} already, and one of those hosts may have come back and admitted another host; if \
                 all of these hosts are off now, run `overlayctl host forget {more} {together}`"
            )
        }
        Denial::TooMany => format!(
            "{together} are more than half of the members, and this host could not know of a host that only they have \
             admitted: forget fewer at once, or say --force if there is no such host"
        ),
        Denial::Stranger { host } => {
            let host = name(cluster, *host);
            format!(
                "host `{host}` is no member of the cluster of this host, which can't take over what that one holds: a member \
                 of its own cluster can; if there is none left, `overlayctl network rm --force` the networks of that cluster"
            )
        }
        denial @ (Denial::Joining
        | Denial::Unchecked
        | Denial::Fenced
        | Denial::Apart { .. }
        | Denial::Sealed { .. }
        | Denial::Stale { .. }
        | Denial::Restored(_)
        | Denial::UnknownNetwork
        | Denial::NotAssignable(_)
        | Denial::Bound { .. }
        | Denial::Delegated { .. }
        | Denial::Unreachable { .. }
        | Denial::Full { .. }
        | Denial::NotHolder { .. }
        | Denial::Deleted) => format!("`{together}` can't be forgotten from here: {denial}"),
    })
}

/// What is waited for, whenever it changes, to the end.
fn progress(
    hosts: BTreeSet<HostId>,
    committed: watch::Receiver<state::Committed>,
    seen: watch::Receiver<ClusterView>,
) -> Progress {
    let steps = stream::unfold(Some((seen, committed, None)), move |waiting| {
        let hosts = hosts.clone();
        async move {
            let (seen, mut committed, mut told) = waiting?;
            loop {
                let now = look(&committed.borrow_and_update().state.ledger, &hosts);
                if told.as_ref() != Some(&now) {
                    let cluster = seen.borrow().cluster.clone();
                    let said = now.said(&cluster, &hosts);
                    let goes_on = said.as_ref().is_ok_and(|said| !said.done);
                    told = Some(now);
                    return Some((said, goes_on.then_some((seen, committed, told))));
                }
                committed.changed().await.ok()?;
            }
        }
    });
    steps.boxed()
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
struct State {
    forgotten: BTreeSet<HostId>,
    missing: BTreeSet<HostId>,
    /// Another host, whose id is lower, was at these when it was asked last.
    passed_on: BTreeMap<HostId, HostId>,
    /// These are not off: somebody has let them in.
    back: BTreeSet<HostId>,
}

fn look(ledger: &Ledger, hosts: &BTreeSet<HostId>) -> State {
    let membership = ledger.membership();
    let (forgotten, open): (BTreeSet<HostId>, BTreeSet<HostId>) =
        hosts.iter().partition(|host| membership.is_forgotten(**host));
    let idle = open.iter().filter(|host| !membership.forgets.contains_key(host));
    let heir = |host: &HostId| membership.seals.get(host).map(|seal| seal.heir).filter(|heir| *heir != ledger.me());
    State {
        forgotten,
        missing: open.iter().flat_map(|host| ledger.missing(*host)).collect(),
        passed_on: idle.clone().filter_map(|host| Some((*host, heir(host)?))).collect(),
        back: idle.filter(|host| heir(host).is_none()).copied().collect(),
    }
}

impl State {
    fn said(&self, cluster: &Cluster, hosts: &BTreeSet<HostId>) -> Result<pb::ForgetProgress, Status> {
        if let Some(back) = self.back.first() {
            let back = name(cluster, *back);
            return Err(Status::aborted(format!(
                "host `{back}` has come back, and a member has let it in. It gives its identity up when it hears that \
                 it was to be forgotten; then, or if it is off by now, try again"
            )));
        }
        let heirs = self.passed_on.iter().map(|(host, heir)| pb::Waiting {
            host: name(cluster, *heir),
            state: format!("it forgets {} now", name(cluster, *host)),
        });
        Ok(pb::ForgetProgress {
            hosts: hosts.iter().map(|id| name(cluster, *id)).collect(),
            done: self.forgotten.len() == hosts.len(),
            waits_for: self.missing.iter().map(|id| waiting(cluster, *id)).chain(heirs).collect(),
        })
    }
}

/// A host by its name, its id or the start of that; also a member that nobody tells of any more. A name that several hosts
/// have means none of them: of a machine that came back under a new identity both have it.
fn find(cluster: &Cluster, members: &BTreeSet<HostId>, text: &str) -> Result<HostId, Status> {
    let is_id = |id: &HostId| text.len() >= 4 && id.to_string().starts_with(text);
    let all = || cluster.hosts.iter().chain(&cluster.forgotten);
    let named = all().filter(|(id, host)| host.info.name.as_str() == text || is_id(id)).map(|(id, _)| *id);
    let meant: BTreeSet<HostId> = named.chain(members.iter().copied().filter(is_id)).collect();
    let unforgotten: Vec<HostId> = meant.iter().copied().filter(|id| !cluster.forgotten.contains_key(id)).collect();
    match (unforgotten.as_slice(), meant.first()) {
        ([id], _) => Ok(*id),
        ([], Some(forgotten)) => Ok(*forgotten),
        ([], None) => Err(Status::not_found(format!("there is no host `{text}`: see `overlayctl host ls`"))),
        (several, _) => {
            let ids: Vec<String> = several.iter().map(HostId::short).collect();
            Err(Status::invalid_argument(format!(
                "`{text}` means {} hosts: give the id of one instead ({})",
                ids.len(),
                ids.join(", ")
            )))
        }
    }
}
