//! What `overlayctl status` shows: counters, limits, failures, and what is waited for.

use std::collections::{BTreeMap, BTreeSet};

use overlay::cluster::bootstrap::apart;
use overlay::datapath::contested::Contest;
use overlay::datapath::foreign_chains::{BlockingChain, ChainName};
use overlay::datapath::observed::Altered;
use overlay::datapath::status::{Failure, LastRound, ReconcileStatus, Scope};
use overlay::ledger::{Activation, Membership};
use overlay::model::id::{HostId, NetworkId};
use overlay::model::network::Network;
use overlay::model::record::Record;
use overlay_dns::server::Counts;
use overlay_gossip::{Counters, UnknownSender, Usage};
use overlay_proto::v1 as pb;

use super::Shown;
use crate::cluster::announce;
use crate::peer::Refusals;

impl Shown<'_> {
    /// What could not be done, and for which network.
    pub(in crate::control) fn failure(&self, failure: &Failure) -> String {
        let Some(id) = failure.scope.network() else { return failure.to_string() };
        let network = self.network_name(id);
        let endpoint = match failure.scope {
            Scope::Endpoint(_, id) => self.intents.attachments.get(&id).map(|attachment| &attachment.endpoint.name),
            Scope::Host | Scope::ForeignChain | Scope::Segment(_) | Scope::Entry(_) => None,
        };
        let whose = endpoint.map_or_else(String::new, |name| format!("endpoint `{name}`: "));
        format!("network `{network}`: {whose}{failure}")
    }

    /// What other programs do to objects of this one.
    pub(in crate::control) fn contested(&self, status: &ReconcileStatus) -> Vec<String> {
        let undone = status.contested.iter().map(|Contest { network, repair, times }| {
            let whose = network.map_or_else(String::new, |id| format!("network `{}`: ", self.network_name(id)));
            let advice = if network.is_some() { "tell it to leave `ov*` alone" } else { "end the dispute there" };
            format!(
                "{whose}{repair}: done {times} times within the last minute, since another program undoes it each time; find that \
                 program and {advice}"
            )
        });
        let put = status.foreign.iter().map(|(id, Altered { of, attribute, .. })| {
            format!(
                "network `{}`: another program has set the {attribute} of {of}; it stays, and may slow or drop packets",
                self.network_name(*id)
            )
        });
        undone.chain(put).collect()
    }

    fn network_name(&self, id: NetworkId) -> String {
        self.cluster.name_of(id, &self.intents)
    }

    /// The deleted networks that endpoints of this host are still in.
    pub(in crate::control) fn draining(&self) -> Vec<pb::Draining> {
        let deleted = self.intents.networks.values().filter(|network| self.intents.tombstones.contains(&network.id));
        let row = |network: &Network| pb::Draining {
            network: network.name.to_string(),
            id: network.id.to_string(),
            endpoints: self.intents.attached(network.id).map(|a| a.endpoint.name.to_string()).collect(),
        };
        deleted.map(row).filter(|row| !row.endpoints.is_empty()).collect()
    }

    /// Other clusters that are heard.
    pub(in crate::control) fn apart(&self, founder: Option<HostId>) -> Vec<pb::Apart> {
        let row = |(founder, hosts): (HostId, BTreeSet<HostId>)| {
            let names: BTreeSet<String> = hosts.iter().map(|id| self.host_name(*id)).collect();
            pb::Apart { founder: founder.to_string(), hosts: names.into_iter().collect() }
        };
        apart(self.cluster, founder).into_iter().map(row).collect()
    }
}

/// What this host does not announce, since no other host would believe it.
pub(in crate::control) fn unannounced(record: &Record) -> Vec<String> {
    let line = |(key, why): (String, String)| {
        format!("this host does not announce a part of its record (key `{key}`), which other hosts would refuse: {why}")
    };
    announce::refused(record).into_iter().map(line).collect()
}

pub(in crate::control) fn queries(counts: Counts) -> BTreeMap<String, u64> {
    let Counts { answered, forwarded, refused, limited, failed } = counts;
    let named = [
        ("answered", answered),
        ("forwarded", forwarded),
        ("refused", refused),
        ("limited", limited),
        ("failed", failed),
    ];
    named.map(|(name, n)| (name.to_owned(), n)).into()
}

/// What came from outside and was not taken.
pub(in crate::control) fn dropped(gossip: &Counters, door: &Refusals) -> BTreeMap<String, u64> {
    let datagrams = gossip.all().map(|(reason, n)| (reason.name(), n));
    datagrams.chain(door.all()).map(|(name, n)| (name.to_owned(), n)).collect()
}

pub(in crate::control) fn unopened(senders: &[UnknownSender]) -> Vec<pb::UnopenedRow> {
    let row = |sender: &UnknownSender| pb::UnopenedRow {
        from: sender.from.to_string(),
        datagrams: sender.datagrams,
        seconds_ago: sender.silent_for.as_secs(),
    };
    senders.iter().map(row).collect()
}

/// How much of a limit of gossip is in use.
pub(in crate::control) fn gossip_limit(usage: Usage) -> pb::GossipLimit {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    pb::GossipLimit {
        name: usage.limit.name().to_owned(),
        used: number(usage.used),
        limit: number(usage.limit.most()),
        near: usage.is_near(),
    }
}

/// The members that have not yet said what a host needs to hear before it may act.
pub(in crate::control) fn silent(membership: &Membership) -> BTreeSet<HostId> {
    let heard = match &membership.activation {
        Activation::Joining { acknowledged } => acknowledged,
        Activation::Unchecked { admitted, .. } => admitted,
        Activation::Established | Activation::Fenced(_) => return BTreeSet::new(),
    };
    membership.others().filter(|host| !heard.contains(host)).collect()
}

/// What others have in the way of containers.
pub(in crate::control) fn blocking_chains(chains: &BTreeSet<BlockingChain>) -> Vec<pb::BlockingChain> {
    let chain = |name: &ChainName, reason: &str| pb::BlockingChain {
        family: name.family.to_string(),
        table: name.table.clone(),
        chain: name.chain.clone(),
        reason: reason.to_owned(),
    };
    let row = |blocking: &BlockingChain| match blocking {
        BlockingChain::Policy(name) => chain(name, "policy"),
        BlockingChain::Owned(name) => chain(name, "owner"),
        BlockingChain::Legacy => pb::BlockingChain { reason: "legacy".to_owned(), ..pb::BlockingChain::default() },
    };
    chains.iter().map(row).collect()
}

/// Why the last round ran, for how long, and how many there were.
pub(in crate::control) fn last_round(last: LastRound) -> pb::LastRound {
    let LastRound { reason, took, rounds, looks } = last;
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    pb::LastRound { reason: reason.to_string(), took_us, rounds, looks }
}
