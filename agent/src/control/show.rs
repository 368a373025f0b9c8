//! What people and scripts are shown of the cluster. Pure: values in, messages out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay::cluster::bootstrap::apart;
use overlay::cluster::{Cluster, Located, NetworkView};
use overlay::datapath::desired::{SERVICE_ADDRESS, port_ifname};
use overlay::datapath::foreign_chains::{BlockingChain, ChainName};
use overlay::datapath::observed::ObservedSegment;
use overlay::datapath::status::{Failure, LastRound, Scope};
use overlay::ledger::{Account, Activation, Membership};
use overlay::model::addr::IpVersion;
use overlay::model::host::{Liveness, Phase};
use overlay::model::id::HostId;
use overlay::model::intent::{Attachment, Intents};
use overlay::model::lease::{AddressLease, Holder};
use overlay::model::links::Link;
use overlay::model::network::{BlockId, Network, Range, Settings};
use overlay::model::publish::{HostPort, Target};
use overlay_dns::server::Counts;
use overlay_proto::v1 as pb;
use tonic::Status;

use crate::cluster::{LastHeard, LastSeen};
use crate::peer::Refusals;
use overlay::operations::link::missing;
use overlay_gossip::{Counters, UnknownSender};

/// What is shown, and from where it is seen.
pub(super) struct Shown<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) intents: Arc<Intents>,
    pub(super) me: HostId,
}

pub(super) fn find<'a>(cluster: &'a Cluster, network: &str) -> Result<&'a NetworkView, Status> {
    let unknown = || Status::not_found(format!("there is no network `{network}`: see `overlayctl network ls`"));
    cluster.find(network).ok_or_else(unknown)
}

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

pub(super) fn queries(counts: Counts) -> BTreeMap<String, u64> {
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
pub(super) fn dropped(gossip: &Counters, door: &Refusals) -> BTreeMap<String, u64> {
    let datagrams = gossip.all().map(|(reason, n)| (reason.name(), n));
    datagrams.chain(door.all()).map(|(name, n)| (name.to_owned(), n)).collect()
}

pub(super) fn unopened(senders: &[UnknownSender]) -> Vec<pb::UnopenedRow> {
    let row = |sender: &UnknownSender| pb::UnopenedRow {
        from: sender.from.to_string(),
        datagrams: sender.datagrams,
        seconds_ago: sender.silent_for.as_secs(),
    };
    senders.iter().map(row).collect()
}

/// How much of a limit of gossip is in use.
pub(super) fn gossip_limit(usage: overlay_gossip::Usage) -> pb::GossipLimit {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    pb::GossipLimit {
        name: usage.limit.name().to_owned(),
        used: number(usage.used),
        limit: number(usage.limit.most()),
        near: usage.is_near(),
    }
}

/// What people call a state.
fn state(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Live => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "gone",
    }
}

const UNKNOWN: &str = "unknown";

/// The same of a host that may be unknown, or forgotten.
pub(super) fn state_of(cluster: &Cluster, id: HostId) -> &'static str {
    match cluster.hosts.get(&id) {
        Some(host) => state(host.liveness),
        None if cluster.forgotten.contains_key(&id) => "forgotten",
        None => UNKNOWN,
    }
}

/// May a host act?
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining => "joining",
        Phase::Unchecked => "unchecked",
        Phase::Established => "established",
    }
}

/// The members that have not yet said what a host needs to hear before it may act.
pub(super) fn silent(membership: &Membership) -> BTreeSet<HostId> {
    let heard = match &membership.activation {
        Activation::Joining { acknowledged } => acknowledged,
        Activation::Unchecked { admitted, .. } => admitted,
        Activation::Established | Activation::Fenced(_) => return BTreeSet::new(),
    };
    membership.others().filter(|host| !heard.contains(host)).collect()
}

/// A host that is waited for.
pub(super) fn waiting(cluster: &Cluster, id: HostId) -> pb::Waiting {
    pb::Waiting { host: name(cluster, id), state: state_of(cluster, id).to_owned() }
}

/// What people call a host.
pub(super) fn name(cluster: &Cluster, id: HostId) -> String {
    let known = cluster.hosts.get(&id).or_else(|| cluster.forgotten.get(&id));
    known.map_or_else(|| id.short(), |host| host.info.name.to_string())
}

/// A link.
pub(super) fn link(view: &NetworkView, link: &Link) -> pb::LinkRow {
    pb::LinkRow {
        network: view.shown_name(),
        from: link.from.to_string(),
        to: link.to.to_string(),
        protocol: link.service.map_or_else(String::new, |service| service.protocol.to_string()),
        port: link.service.map_or(0, |service| service.port.into()),
        missing: missing(view, link).map(ToString::to_string).collect(),
    }
}

/// What others have in the way of containers.
pub(super) fn barriers(barriers: &BTreeSet<BlockingChain>) -> Vec<pb::Barrier> {
    let chain = |name: &ChainName, reason: &str| pb::Barrier {
        family: name.family.to_string(),
        table: name.table.clone(),
        chain: name.chain.clone(),
        reason: reason.to_owned(),
    };
    let row = |barrier: &BlockingChain| match barrier {
        BlockingChain::Policy(name) => chain(name, "policy"),
        BlockingChain::Owned(name) => chain(name, "owner"),
        BlockingChain::Legacy => pb::Barrier { reason: "legacy".to_owned(), ..pb::Barrier::default() },
    };
    barriers.iter().map(row).collect()
}

/// Why the last round ran, for how long, and how many there were.
pub(super) fn last_round(last: LastRound) -> pb::LastRound {
    let LastRound { reason, took, rounds, looks } = last;
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    pb::LastRound { reason: reason.to_string(), took_us, rounds, looks }
}

impl Shown<'_> {
    fn host_name(&self, id: HostId) -> String {
        name(self.cluster, id)
    }

    fn host_state(&self, id: HostId) -> String {
        state_of(self.cluster, id).to_owned()
    }

    /// What could not be done, and for which network.
    pub(super) fn failure(&self, failure: &Failure) -> String {
        let Some(id) = failure.scope.network() else { return failure.to_string() };
        let view = self.cluster.networks.get(&id);
        // A deleted network that still has endpoints here is in no view.
        let deleted = || self.intents.networks.get(&id).map(|network| network.name.to_string());
        let network = view.map(|view| view.shown_name()).or_else(deleted).unwrap_or_else(|| id.short());
        let endpoint = match failure.scope {
            Scope::Endpoint(_, id) => self.intents.attachments.get(&id).map(|attachment| &attachment.endpoint.name),
            Scope::Host | Scope::ForeignChain | Scope::Segment(_) | Scope::Entry(_) => None,
        };
        let whose = endpoint.map_or_else(String::new, |name| format!("endpoint `{name}`: "));
        format!("network `{network}`: {whose}{failure}")
    }

    /// The deleted networks that endpoints of this host are still in.
    pub(super) fn draining(&self) -> Vec<pb::Draining> {
        let deleted = self.intents.networks.values().filter(|network| self.intents.tombstones.contains(&network.id));
        let row = |network: &Network| pb::Draining {
            network: network.name.to_string(),
            id: network.id.to_string(),
            endpoints: self.intents.attached(network.id).map(|a| a.endpoint.name.to_string()).collect(),
        };
        deleted.map(row).filter(|row| !row.endpoints.is_empty()).collect()
    }

    /// Other clusters that are heard.
    pub(super) fn apart(&self, founder: Option<HostId>) -> Vec<pb::Apart> {
        let row = |(founder, hosts): (HostId, BTreeSet<HostId>)| {
            let names: BTreeSet<String> = hosts.iter().map(|id| self.host_name(*id)).collect();
            pb::Apart { founder: founder.to_string(), hosts: names.into_iter().collect() }
        };
        apart(self.cluster, founder).into_iter().map(row).collect()
    }

    /// The hosts, also those that are forgotten and members that nobody tells of any more; whom this host waits for to
    /// forget one; and who is silent.
    pub(super) fn hosts(
        &self,
        members: &BTreeSet<HostId>,
        waits: &BTreeMap<HostId, BTreeSet<HostId>>,
        silent: &LastSeen,
    ) -> Vec<pb::HostRow> {
        let waits_for = |id: &HostId| waits.get(id).into_iter().flatten().map(|host| self.host_name(*host)).collect();
        let row = |(id, host): (&HostId, &Arc<overlay::cluster::Host>)| pb::HostRow {
            id: id.to_string(),
            name: host.info.name.to_string(),
            state: self.host_state(*id),
            phase: phase(host.info.phase).to_owned(),
            heir: self.cluster.seals.get(id).map_or_else(String::new, |seal| self.host_name(seal.heir)),
            waits_for: waits_for(id),
            vtep: host.info.vtep.to_string(),
            vxlan_port: host.info.vxlan_port.into(),
            peer: host.info.peer.to_string(),
            endpoints: count(host.record.endpoints.values()),
            is_self: *id == self.me,
            silent_seconds: silent.of(*id).elapsed().as_secs(),
            silent_since_start: matches!(silent.of(*id), LastHeard::NotSinceStart(_)),
        };
        // A host of another cluster that is gone is not for the operator of this one to forget.
        let founder = self.cluster.founder_of(self.me);
        let matters =
            |host: &overlay::cluster::Host| host.liveness != Liveness::Dead || !host.info.is_apart_from(founder);
        let heard = self.cluster.hosts.iter().filter(|(_, host)| matters(host)).chain(&self.cluster.forgotten).map(row);
        let unheard = members.iter().filter(|id| state_of(self.cluster, **id) == UNKNOWN);
        let unheard = unheard.map(|id| pb::HostRow {
            id: id.to_string(),
            name: id.short(),
            state: state(Liveness::Dead).to_owned(),
            waits_for: waits_for(id),
            silent_seconds: silent.of(*id).elapsed().as_secs(),
            silent_since_start: matches!(silent.of(*id), LastHeard::NotSinceStart(_)),
            ..pb::HostRow::default()
        });
        let mut rows: Vec<_> = heard.chain(unheard).collect();
        rows.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        rows
    }

    pub(super) fn network(&self, view: &NetworkView) -> pb::NetworkInfo {
        let network = &view.network;
        let settings = &network.settings;
        pb::NetworkInfo {
            id: network.id.to_string(),
            name: view.shown_name(),
            subnets: network.ranges.iter().map(|r| r.subnet.to_string()).collect(),
            gateways: network.ranges.iter().map(|r| r.gateway.to_string()).collect(),
            endpoints: count(view.endpoints.values()),
            hosts: count(view.vnis.values()),
            vni: view.vnis.get(&self.me).map_or(0, |vni| vni.get()),
            conflict: view.shadowed,
            creator: self.host_name(network.creator),
            driver: settings.driver.to_string(),
            ranges: network.ranges.iter().map(|range| address_range(range, settings)).collect(),
            internal: settings.internal,
            masquerade: settings.masquerade,
            icc: settings.icc,
            mtu: settings.mtu.map_or(0, u32::from),
            labels: settings.labels.clone(),
            created: network.since,
            apart: view.apart,
        }
    }

    pub(super) fn members(&self, view: &NetworkView) -> Vec<pb::MemberRow> {
        let row = |(id, vni): (&HostId, &overlay::model::id::Vni)| pb::MemberRow {
            host: self.host_name(*id),
            state: self.host_state(*id),
            vtep: self.cluster.hosts.get(id).map_or_else(String::new, |h| h.info.vtep.to_string()),
            vni: vni.get(),
        };
        let mut rows: Vec<_> = view.vnis.iter().map(row).collect();
        rows.sort_by(|a, b| a.host.cmp(&b.host));
        rows
    }

    pub(super) fn endpoints(&self, view: &NetworkView) -> Vec<pb::EndpointInfo> {
        let mut rows: Vec<_> = view.endpoints.values().map(|located| self.endpoint(view, located)).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    fn endpoint(&self, view: &NetworkView, located: &Located) -> pb::EndpointInfo {
        let endpoint = &located.endpoint;
        let mut info = pb::EndpointInfo {
            id: endpoint.id.to_string(),
            network: view.shown_name(),
            name: endpoint.name.to_string(),
            aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
            addresses: located.addresses().map(|a| prefixed(&view.network, a)).collect(),
            mac: endpoint.mac.to_string(),
            host: self.host_name(located.host),
            state: state(located.liveness).to_owned(),
            gateway: gateway(&view.network, IpVersion::V4),
            gateway6: gateway(&view.network, IpVersion::V6),
            dns: dns(&view.network),
            ..pb::EndpointInfo::default()
        };
        if let Some(attachment) = self.intents.attachments.get(&endpoint.id).filter(|_| located.host == self.me) {
            info.ifname = attachment.ifname.to_string();
            info.host_ifname = port_ifname(endpoint.id).to_string();
            info.netns = attachment.netns.path.display().to_string();
            info.netns_cookie = attachment.netns.cookie;
            info.ports = published(attachment);
        }
        info
    }

    /// An endpoint of this host, whether the view has it yet or not.
    pub(super) fn attachment(&self, attachment: &Attachment) -> pb::EndpointInfo {
        let endpoint = &attachment.endpoint;
        let view = self.cluster.networks.get(&endpoint.network);
        pb::EndpointInfo {
            id: endpoint.id.to_string(),
            network: view.map_or_else(|| endpoint.network.short(), |view| view.shown_name()),
            name: endpoint.name.to_string(),
            aliases: endpoint.aliases.iter().map(ToString::to_string).collect(),
            addresses: view
                .into_iter()
                .flat_map(|v| endpoint.addresses.iter().map(|a| prefixed(&v.network, a.address)))
                .collect(),
            mac: endpoint.mac.to_string(),
            host: self.host_name(self.me),
            state: state(Liveness::Live).to_owned(),
            ifname: attachment.ifname.to_string(),
            host_ifname: port_ifname(endpoint.id).to_string(),
            gateway: view.map_or_else(String::new, |v| gateway(&v.network, IpVersion::V4)),
            gateway6: view.map_or_else(String::new, |v| gateway(&v.network, IpVersion::V6)),
            netns: attachment.netns.path.display().to_string(),
            netns_cookie: attachment.netns.cookie,
            dns: view.map_or_else(|| SERVICE_ADDRESS.to_string(), |v| dns(&v.network)),
            ports: published(attachment),
        }
    }

    /// Blocks of one holder and epoch that stand together are one row, and each delegated address is one.
    pub(super) fn leases(&self, account: &Account) -> Vec<pb::LeaseRow> {
        let mut rows: Vec<(IpAddr, pb::LeaseRow)> = Vec::new();
        let holders: BTreeSet<HostId> = account.blocks.values().map(|lease| lease.holder).collect();
        for holder in holders {
            for run in account.runs(holder) {
                let last = BlockId { index: run.start.index + (run.len - 1), ..run.start };
                let ends = account.network.block_subnet(run.start).zip(account.network.block_subnet(last));
                let Some((first, last)) = ends else { continue };
                let count = |(block, epoch)| account.count_free_in(block, epoch);
                let free = || run.blocks().map(count).fold(0, u128::saturating_add);
                rows.push((
                    first.network(),
                    pb::LeaseRow {
                        first: first.network().to_string(),
                        last: last.last().to_string(),
                        kind: "block".to_owned(),
                        holder: self.host_name(holder),
                        holder_state: self.host_state(holder),
                        epoch: run.epoch,
                        count: 0,
                        blocks: run.len.into(),
                        free: if holder == self.me { i64::try_from(free()).unwrap_or(i64::MAX) } else { -1 },
                    },
                ));
            }
        }
        // What was lent in an earlier epoch of its block went with that.
        let counts = |(address, lease): &(&IpAddr, &AddressLease)| {
            account.block_lease(**address).is_none_or(|block| lease.version.epoch >= block.epoch)
        };
        let lent = account.addresses.iter().filter(counts);
        rows.extend(lent.filter_map(|(address, lease)| self.delegated(*address, lease)));
        rows.sort_by_key(|(first, row)| (*first, row.kind == "address"));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn delegated(&self, address: IpAddr, lease: &AddressLease) -> Option<(IpAddr, pb::LeaseRow)> {
        let Holder::Host(holder) = lease.holder else { return None };
        let row = pb::LeaseRow {
            first: address.to_string(),
            last: address.to_string(),
            kind: "address".to_owned(),
            holder: self.host_name(holder),
            holder_state: self.host_state(holder),
            epoch: lease.version.epoch,
            count: lease.version.count,
            blocks: 0,
            free: -1,
        };
        Some((address, row))
    }

    pub(super) fn fdb(&self, view: &NetworkView, segment: Option<&ObservedSegment>) -> Vec<pb::FdbRow> {
        let mut rows: Vec<pb::FdbRow> = view.endpoints.values().map(|l| self.fdb_row(view, l, segment)).collect();
        let wanted: BTreeMap<_, _> = view.endpoints.values().map(|l| (l.endpoint.mac, l.host)).collect();
        let stale = segment.into_iter().flat_map(|s| &s.remotes).filter(|(mac, _)| !wanted.contains_key(mac));
        rows.extend(stale.map(|(mac, remote)| pb::FdbRow {
            mac: mac.to_string(),
            vtep: remote.vtep.to_string(),
            vni: remote.vni.get(),
            kernel: "stale".to_owned(),
            ..pb::FdbRow::default()
        }));
        rows.sort_by(|a, b| (&a.addresses, &a.mac).cmp(&(&b.addresses, &b.mac)));
        rows
    }

    fn fdb_row(&self, view: &NetworkView, located: &Located, segment: Option<&ObservedSegment>) -> pb::FdbRow {
        let endpoint = &located.endpoint;
        let host = self.cluster.hosts.get(&located.host);
        let here = located.host == self.me;
        let kernel = match segment {
            None => "no segment here",
            Some(s) if here => match s.ports.get(&port_ifname(endpoint.id)) {
                Some(port) if port.connected == Some(endpoint.mac) => "yes",
                Some(_) | None => "no port",
            },
            Some(s) => {
                let fdb = s.remotes.get(&endpoint.mac).is_some_and(|r| host.is_some_and(|h| r.vtep == h.info.vtep));
                let neighbours = located.addresses().all(|a| s.neighbours.get(&a) == Some(&endpoint.mac));
                match (fdb, neighbours) {
                    (true, true) => "yes",
                    (true, false) => "no neighbour",
                    (false, _) => "no fdb",
                }
            }
        };
        pb::FdbRow {
            mac: endpoint.mac.to_string(),
            addresses: located.addresses().map(|a| a.to_string()).collect(),
            name: endpoint.name.to_string(),
            host: self.host_name(located.host),
            vtep: host.filter(|_| !here).map_or_else(String::new, |h| h.info.vtep.to_string()),
            vni: view.vnis.get(&located.host).map_or(0, |vni| vni.get()),
            kernel: kernel.to_owned(),
        }
    }
}

fn prefixed(network: &Network, address: IpAddr) -> String {
    match network.range_of(address) {
        Some((_, range)) => format!("{address}/{}", range.subnet.prefix_len()),
        None => address.to_string(),
    }
}

fn gateway(network: &Network, version: IpVersion) -> String {
    let range = network.ranges.iter().find(|range| range.subnet.version() == version);
    range.map_or_else(String::new, |range| range.gateway.to_string())
}

/// Where names are asked for: without IPv4, at the gateway.
fn dns(network: &Network) -> String {
    let has_ipv4 = network.versions().any(|version| version == IpVersion::V4);
    if has_ipv4 { SERVICE_ADDRESS.to_string() } else { gateway(network, IpVersion::V6) }
}

fn address_range(range: &Range, settings: &Settings) -> pb::AddressRange {
    let auxiliary = settings.auxiliary.iter().filter(|(address, _)| range.subnet.contains(**address));
    pb::AddressRange {
        subnet: range.subnet.to_string(),
        gateway: range.gateway.to_string(),
        ip_range: range.pool.map_or_else(String::new, |pool| pool.to_string()),
        aux_addresses: auxiliary.map(|(address, name)| (name.to_string(), address.to_string())).collect(),
    }
}

/// As Docker does, a row for each version of IP that the endpoint has.
fn published(attachment: &Attachment) -> Vec<pb::PublishedPort> {
    let has = |version: &IpVersion| attachment.endpoint.addresses.iter().any(|a| IpVersion::of(a.address) == *version);
    let row = |at: IpAddr, host: &HostPort, target: &Target| pb::PublishedPort {
        host_ip: at.to_string(),
        host_port: host.port.into(),
        port: target.port.into(),
        protocol: host.protocol.to_string(),
        allow_from: target.allowed.iter().map(ToString::to_string).collect(),
    };
    let rows = |(host, target): (&HostPort, &Target)| -> Vec<pb::PublishedPort> {
        IpVersion::ALL.iter().filter(|v| has(v)).filter_map(|v| Some(row(host.at(*v)?, host, target))).collect()
    };
    attachment.published.iter().flat_map(rows).collect()
}

#[cfg(test)]
mod tests;
