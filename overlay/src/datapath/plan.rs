//! The plan: ordered steps from the kernel as it is to the kernel as it should be.
//!
//! Segment by segment. Making goes: rules first, so that nothing ever runs unfiltered; then devices; then forwarding
//! entries; then the neighbours that point at them. Taking away goes the other way round. Everything is safe to do
//! again, and whatever a step could not do, the next look at the kernel finds missing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::datapath::attention::{Look, Part};
use crate::datapath::desired::{Desired, HOST_MAPS, Remote, SEGMENT_MAPS, Segment, Tunnel};
use crate::datapath::firewall::{Element, Field};
use crate::datapath::foreign_chains;
use crate::datapath::observed::{Altered, Flow, Observed, ObservedSegment, ObservedTunnel};
use crate::model::addr::{IfName, Mac};
use crate::model::difference::{Difference, differences};
use crate::model::id::{EndpointId, NetworkId};

mod order;
mod step;

#[cfg(feature = "kernel")]
pub(crate) use step::discovery;
pub use step::{HostStep, RowStep, SegmentStep, Step};

/// How much of the cluster this host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// It has just started: what it has not heard of may well be there. Nothing of other hosts is taken away.
    Partial,
    /// It has caught up with the others.
    Whole,
}

/// The steps from `observed` to `desired`. Empty if there is nothing to do.
pub fn plan(observed: &Observed, desired: &Desired, knowledge: Knowledge) -> Vec<Step> {
    plan_parts(&Look::Everything, observed, desired, knowledge)
}

/// The same for the parts of the kernel that were looked at. What `observed` says of the others is not read.
pub fn plan_parts(look: &Look, observed: &Observed, desired: &Desired, knowledge: Knowledge) -> Vec<Step> {
    let mut steps = Vec::new();
    if look.has(Part::Host) {
        steps.extend(plan_host(observed, desired).into_iter().map(Step::Host));
    }
    let is_seen = |id: &&NetworkId| look.has(Part::Segment(**id));
    for id in observed.segments.keys().filter(is_seen).filter(|id| !desired.segments.contains_key(id)) {
        steps.push(Step::Segment(*id, SegmentStep::Delete));
    }
    for (id, want) in desired.segments.iter().filter(|(id, _)| is_seen(id)) {
        let segment = plan_segment(observed.segments.get(id), want, knowledge);
        steps.extend(segment.into_iter().map(|step| Step::Segment(*id, step)));
    }
    steps
}

fn plan_host(observed: &Observed, desired: &Desired) -> Vec<HostStep> {
    let mut steps = Vec::new();
    let mut stale = observed.unforgotten.clone();
    if observed.firewall.as_ref() != Some(&desired.firewall.observed()) {
        steps.push(HostStep::ReplaceFirewall(desired.firewall.clone()));
        let moved = desired.firewall.changed_elements(observed.firewall.as_ref(), &HOST_MAPS);
        stale.extend(moved.iter().filter_map(flow));
    }
    steps.extend((!stale.is_empty()).then_some(HostStep::ForgetFlows(stale)));
    let unforwarded = desired.forwarding.difference(&observed.forwarding);
    steps.extend(unforwarded.map(|version| HostStep::EnableForwarding(*version)));
    // After our own rules, which judge what then passes.
    let chains = foreign_chains::changes(&observed.others, desired).into_iter();
    steps.extend(chains.map(|(chain, rules)| HostStep::SetAcceptRules(chain, rules)));
    steps
}

fn plan_segment(have: Option<&ObservedSegment>, want: &Segment, knowledge: Knowledge) -> Vec<SegmentStep> {
    let nothing = ObservedSegment::default();
    let mut steps = Vec::new();
    if have.is_none() {
        steps.push(SegmentStep::Create(want.versions()));
    }
    let have = have.unwrap_or(&nothing);
    let mut stale = have.unforgotten.clone();
    if have.firewall.as_ref() != Some(&want.firewall.observed()) {
        steps.push(SegmentStep::ReplaceFirewall(want.firewall.clone()));
        let moved = want.firewall.changed_elements(have.firewall.as_ref(), &SEGMENT_MAPS);
        stale.extend(moved.iter().filter_map(flow));
    }
    steps.extend((!stale.is_empty()).then_some(SegmentStep::ForgetFlows(stale)));
    set_filter(have, want, knowledge, &mut steps);
    let rows = RowDifferences::of(have, want);
    rows.withdraw(have, want, knowledge, &mut steps);
    withdraw_ports(have, want, &mut steps);
    make_devices(have, want, &mut steps);
    make_ports(have, want, &mut steps);
    rows.put(have, want, &mut steps);
    steps
}

/// The rules on what passes the bridge. Until this host is in step with the others it may not know the endpoints of a link: until then,
/// entries of endpoints that it does not know stay.
fn set_filter(have: &ObservedSegment, want: &Segment, knowledge: Knowledge, steps: &mut Vec<SegmentStep>) {
    let (Some(filter), Some(seen)) = (&want.filter, &have.filter) else {
        steps.extend(want.filter.clone().map(SegmentStep::ReplaceFilter));
        steps.extend(have.filter.as_ref().map(|_| SegmentStep::DeleteFilter));
        return;
    };
    let here: BTreeSet<IpAddr> = want.ports.values().flat_map(|port| &port.addresses).map(|a| a.address).collect();
    let is_known = |address: &IpAddr| here.contains(address) || want.neighbours.contains_key(address);
    let is_unknown = |field: &Field| matches!(field, Field::Address(address) if !is_known(address));
    // What a container of this host may send is known.
    let is_here = |field: &Field| matches!(field, Field::Interface(_));
    let is_kept = |element: &Element| element.key.iter().any(is_unknown) && !element.key.iter().any(is_here);
    let filter = match knowledge {
        Knowledge::Whole => filter.clone(),
        Knowledge::Partial => filter.with(seen, is_kept),
    };
    match filter.changed_sets(seen) {
        None => steps.push(SegmentStep::ReplaceFilter(filter)),
        Some(sets) if !sets.is_empty() => steps.push(SegmentStep::UpdateFilter(sets)),
        Some(_) => {}
    }
}

/// The packets that an element of a map leads somewhere.
fn flow(element: &Element) -> Option<Flow> {
    let protocol = element.key.iter().find_map(|field| {
        let Field::Protocol(protocol) = field else { return None };
        Some(protocol.number())
    })?;
    let port = element.key.iter().find_map(|field| {
        let Field::Port(port) = field else { return None };
        Some(*port)
    })?;
    Some(Flow { protocol, port })
}

/// Where the rows differ that there are and that should be.
struct RowDifferences<'a> {
    remotes: Vec<Difference<'a, Mac, Remote>>,
    neighbours: Vec<Difference<'a, IpAddr, Mac>>,
}

impl<'a> RowDifferences<'a> {
    fn of(have: &'a ObservedSegment, want: &'a Segment) -> Self {
        Self {
            remotes: differences(&have.remotes, &want.remotes, Remote::eq),
            neighbours: differences(&have.neighbours, &want.neighbours, Mac::eq),
        }
    }

    /// Neighbours before the entries they rely on.
    fn withdraw(&self, have: &ObservedSegment, want: &Segment, knowledge: Knowledge, steps: &mut Vec<SegmentStep>) {
        // What is now here can't be elsewhere, however little is known of the others.
        let here = want.ports.values().filter(|_| knowledge == Knowledge::Partial);
        let macs: BTreeSet<Mac> = here.clone().map(|port| port.mac).collect();
        let addresses: BTreeSet<IpAddr> = here.flat_map(|port| port.addresses.iter().map(|a| a.address)).collect();
        let whole = knowledge == Knowledge::Whole;
        let neighbours = gone(&self.neighbours).filter(|ip| whole || addresses.contains(ip));
        steps.extend(neighbours.map(|ip| RowStep::DeleteNeighbour(ip).into()));
        let halves = have.half_remotes.iter().filter(|mac| !want.remotes.contains_key(mac)).copied();
        let remotes = gone(&self.remotes).chain(halves).filter(|mac| whole || macs.contains(mac));
        steps.extend(remotes.map(|mac| RowStep::DeleteRemote(mac).into()));
    }

    /// Entries before the neighbours that rely on them. A tunnel or a bridge that is made anew has lost them all.
    fn put(&self, have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
        let is_new_bridge = have.bridge.is_none();
        let is_new_tunnel = is_new_bridge || steps.iter().any(|s| matches!(s, SegmentStep::CreateTunnel(_)));
        let put = |mac: &Mac, remote: &Remote| RowStep::PutRemote(*mac, *remote).into();
        match is_new_tunnel {
            true => steps.extend(want.remotes.iter().map(|(mac, remote)| put(mac, remote))),
            false => steps.extend(wanted(&self.remotes).map(|(mac, remote)| put(mac, remote))),
        }
        let put = |ip: &IpAddr, mac: &Mac| RowStep::PutNeighbour(*ip, *mac).into();
        match is_new_bridge {
            true => steps.extend(want.neighbours.iter().map(|(ip, mac)| put(ip, mac))),
            false => steps.extend(wanted(&self.neighbours).map(|(ip, mac)| put(ip, mac))),
        }
    }
}

/// The keys that are there and not wanted.
fn gone<'a, K: Copy, V>(differ: &'a [Difference<'_, K, V>]) -> impl Iterator<Item = K> + use<'a, K, V> {
    differ.iter().filter(|(.., want)| want.is_none()).map(|(key, ..)| **key)
}

/// The entries that are wanted and not there.
fn wanted<'a, K, V>(differ: &'a [Difference<'a, K, V>]) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
    differ.iter().filter_map(|(key, _, want)| Some((*key, (*want)?)))
}

/// Ports that are not wanted, and those that a failure left half-made.
fn withdraw_ports(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    let is_wanted = |ifname: &IfName, endpoint: Option<EndpointId>| {
        endpoint.and_then(|id| want.ports.get(&id)).is_some_and(|port| port.host_ifname == *ifname)
    };
    let stale = have.ports.iter().filter(|(ifname, port)| !is_wanted(ifname, port.endpoint));
    steps.extend(stale.map(|(ifname, _)| SegmentStep::DeletePort(ifname.clone())));
}

fn make_devices(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    match &have.bridge {
        None => steps.push(SegmentStep::CreateBridge(want.bridge.clone())),
        Some(have) if !have.running || have.bridge != want.bridge => {
            steps.push(SegmentStep::UpdateBridge(want.bridge.clone()));
        }
        Some(_) => {}
    }
    make_tunnel(have, want, steps);
    make_uplink(have, want, steps);
    let altered: BTreeSet<Altered> = have.altered.iter().filter(|one| one.can_be_restored).cloned().collect();
    steps.extend((!altered.is_empty()).then_some(SegmentStep::Restore(altered)));
}

/// One that is there is set right and not made anew: what runs through it goes on.
fn make_uplink(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    match (&have.uplink, &want.uplink) {
        (None, Some(uplink)) => steps.push(SegmentStep::CreateUplink(uplink.clone())),
        (Some(there), Some(uplink)) if there.uplink.host_ifname != uplink.host_ifname => {
            steps.push(SegmentStep::CreateUplink(uplink.clone()));
        }
        (Some(there), Some(uplink)) if !there.in_place || there.uplink != *uplink => {
            steps.push(SegmentStep::UpdateUplink(uplink.clone()));
        }
        (Some(_), None) => steps.push(SegmentStep::DeleteUplink),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn make_tunnel(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    let same = |t: &ObservedTunnel, w: &Tunnel| (t.vni, t.port, t.local) == (w.vni, w.port, w.local);
    match (&have.tunnel, &want.tunnel) {
        (Some(there), Some(tunnel)) if same(there, tunnel) => {
            if !there.connected || there.mtu != tunnel.mtu || have.bridge.is_none() {
                steps.push(SegmentStep::ConnectTunnel { mtu: tunnel.mtu });
            }
        }
        (there, tunnel) => {
            steps.extend(there.map(|_| SegmentStep::DeleteTunnel));
            let make =
                |tunnel: &Tunnel| [SegmentStep::CreateTunnel(*tunnel), SegmentStep::ConnectTunnel { mtu: tunnel.mtu }];
            steps.extend(tunnel.iter().flat_map(make));
        }
    }
}

fn make_ports(have: &ObservedSegment, want: &Segment, steps: &mut Vec<SegmentStep>) {
    for (id, port) in &want.ports {
        let seen = have.ports.get(&port.host_ifname).filter(|p| p.endpoint == Some(*id));
        match seen {
            None => steps.push(SegmentStep::CreatePort(*id, port.clone())),
            Some(seen) if seen.mtu != port.mtu => steps.push(SegmentStep::UpdatePort(port.clone())),
            Some(_) => {}
        }
        if have.bridge.is_none() || seen.is_none_or(|p| p.connected != Some(port.mac)) {
            steps.push(SegmentStep::ConnectPort(port.clone()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
