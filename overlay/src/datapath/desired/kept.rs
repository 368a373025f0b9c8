//! The desired state, made step by step: of the segments before only those are made anew whose inputs have changed.
//!
//! [`desire`](super::desire) says what is right; this says the same, and shares what has not changed. A segment that is equal to
//! the one before is the same `Arc`, also if it was made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Attachment, Cluster, Desired, HostConfig, Intents, Segment, Wish, by_network, peers, with_host};
use crate::cluster::{Host, NetworkView};
use crate::model::difference::differences;
use crate::model::id::{HostId, NetworkId};

/// The desired state that was made last, and what it was made from.
#[derive(Debug, Default)]
pub struct KeptDesired(Option<Made>);

#[derive(Debug)]
struct Made {
    cluster: Arc<Cluster>,
    intents: Arc<Intents>,
    host: HostConfig,
    desired: Arc<Desired>,
}

impl KeptDesired {
    /// What should be in the kernel of this host. The same `Arc` as before if it is the same.
    pub fn desire(&mut self, cluster: &Arc<Cluster>, intents: &Arc<Intents>, host: &HostConfig) -> &Arc<Desired> {
        let desired = match &self.0 {
            Some(made) => made.desire(cluster, intents, host),
            None => Arc::new(super::desire(cluster, intents, host)),
        };
        let (cluster, intents) = (Arc::clone(cluster), Arc::clone(intents));
        &self.0.insert(Made { cluster, intents, host: *host, desired }).desired
    }
}

impl Made {
    /// The same for another cluster, other intents, and another host configuration.
    fn desire(&self, cluster: &Arc<Cluster>, intents: &Arc<Intents>, host: &HostConfig) -> Arc<Desired> {
        let same_host = self.host == *host;
        let same_intents = Arc::ptr_eq(&self.intents, intents);
        if same_host && same_intents && Arc::ptr_eq(&self.cluster, cluster) {
            return Arc::clone(&self.desired);
        }
        let moved = moved(&self.cluster, cluster);
        let attached = by_network(intents);
        let attached_before = if same_intents { BTreeMap::new() } else { by_network(&self.intents) };
        let asked_the_same = |id: &NetworkId, wish: &Wish<'_>| {
            let wish_before = || Wish::of(*id, attached_before.get(id)?, &self.intents);
            same_intents || wish_before().is_some_and(|before| wish.is_same(&before))
        };
        let segments = attached.iter().filter_map(|(id, attached)| {
            let wish = Wish::of(*id, attached, intents)?;
            let before = self.desired.segments.get(id);
            let sees_the_same = same_host && self.sees_the_same(*id, cluster, &moved);
            if let Some(before) = before.filter(|_| sees_the_same && asked_the_same(id, &wish)) {
                return Some((*id, Arc::clone(before)));
            }
            let made = wish.segment(cluster, host);
            let kept = before.filter(|before| ***before == made).map(Arc::clone);
            Some((*id, kept.unwrap_or_else(|| Arc::new(made))))
        });
        let segments: BTreeMap<NetworkId, Arc<Segment>> = segments.collect();
        // What is in the host's namespace is for the uplinks and ports that were asked for.
        let desired = match same_intents && same_host {
            true => Desired { peers: peers(cluster, host.me), segments, ..Desired::clone(&self.desired) },
            false => with_host(segments, &attached, peers(cluster, host.me), host),
        };
        if *self.desired == desired { Arc::clone(&self.desired) } else { Arc::new(desired) }
    }

    /// Do the others say the same of a network, as far as the kernel of this host goes?
    fn sees_the_same(&self, network: NetworkId, cluster: &Cluster, moved: &BTreeSet<HostId>) -> bool {
        match (self.cluster.networks.get(&network), cluster.networks.get(&network)) {
            (Some(before), Some(view)) => Arc::ptr_eq(before, view) && !is_on(view, moved),
            (before, view) => before.is_none() && view.is_none(),
        }
    }
}

/// Is one of the hosts in the network?
fn is_on(view: &NetworkView, hosts: &BTreeSet<HostId>) -> bool {
    hosts.iter().any(|host| view.vnis.contains_key(host))
}

/// The hosts whose tunnels lead elsewhere, carry more or less, or are given up or taken up again.
fn moved(before: &Cluster, now: &Cluster) -> BTreeSet<HostId> {
    let end = |host: &Host| (host.info.vtep, host.info.vxlan_port, host.info.underlay_mtu, host.liveness);
    let is_same = |before: &Arc<Host>, now: &Arc<Host>| Arc::ptr_eq(before, now) || end(before) == end(now);
    differences(&before.hosts, &now.hosts, is_same).into_iter().map(|(id, ..)| *id).collect()
}

impl Wish<'_> {
    fn is_same(&self, other: &Wish<'_>) -> bool {
        // Intents that share their attachments have most at the same place.
        let alike = |(a, b): (&&Attachment, &&Attachment)| std::ptr::eq(*a, *b) || a == b;
        (self.network, self.links, self.seat) == (other.network, other.links, other.seat)
            && self.attached.len() == other.attached.len()
            && self.attached.iter().zip(other.attached).all(alike)
    }
}

#[cfg(test)]
mod tests;
