//! A kernel in memory, for tests and simulation. It keeps just as much as [`Observed`] shows, refuses what the real one
//! refuses, and obeys the same conformance suite. No I/O, and all it does is in the order it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::datapath::attention::{Look, News, Part};
use crate::datapath::desired::{Bridge, Port, Remote, Tunnel, Uplink};
use crate::datapath::firewall::Table;
use crate::datapath::foreign_chains::{self, Calls, ChainInfo, ChainName, Policy};
use crate::datapath::kernel_api::{Cause, Kernel, StepError};
use crate::datapath::observed::{
    Observed, ObservedBridge, ObservedPort, ObservedSegment, ObservedTunnel, ObservedUplink,
};
use crate::datapath::plan::{HostStep, RowStep, SegmentStep, Step};
use crate::model::addr::{IfName, Mac};
use crate::model::id::{EndpointId, NetworkId, Vni};
use crate::model::intent::{AtPath, NetnsRef};

mod fault;

pub use fault::Fault;

/// The kernel in memory.
#[derive(Default)]
pub struct FakeKernel {
    state: Observed,
    containers: BTreeMap<NetnsRef, BTreeMap<IfName, Owner>>,
    foreign_tunnels: BTreeSet<(Vni, u16)>,
    foreign_sockets: BTreeSet<u16>,
    refusal: Option<Refusal>,
    applied: Vec<Step>,
    news: News,
    looks: BTreeMap<Part, u32>,
}

type Refusal = Box<dyn FnMut(&Step) -> Option<Cause> + Send>;

/// Whose an interface in a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Foreign,
    /// The other end of this port.
    Port(NetworkId, IfName),
}

impl FakeKernel {
    /// A kernel that has just booted.
    pub fn new() -> Self {
        Self::default()
    }

    /// What [`Kernel::observe`] would tell.
    pub fn state(&self) -> &Observed {
        &self.state
    }

    /// What it has told of: each change, ours and that of others.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// It tells of a change of this part.
    pub fn note(&mut self, part: Part) {
        self.news.note(part);
    }

    /// How often the part was looked at.
    pub fn looks(&self, part: Part) -> u32 {
        self.looks.get(&part).copied().unwrap_or_default()
    }

    /// What [`Kernel::observe`] gives.
    pub fn look(&mut self, look: &Look) -> Observed {
        let segments = self.state.segments.iter().filter(|(id, _)| look.has(Part::Segment(**id)));
        let segments: BTreeMap<_, _> = segments.map(|(id, segment)| (*id, segment.clone())).collect();
        let parts: BTreeSet<Part> = match look {
            Look::Everything => segments.keys().map(|id| Part::Segment(*id)).chain([Part::Host]).collect(),
            Look::Only(parts) => parts.clone(),
        };
        parts.into_iter().for_each(|part| *self.looks.entry(part).or_default() += 1);
        let host = if look.has(Part::Host) { self.state.clone() } else { Observed::default() };
        Observed { segments, ..host }
    }

    /// All steps that were asked for so far, also those refused.
    pub fn applied(&self) -> &[Step] {
        &self.applied
    }

    /// Replaces the state: a law may start anywhere.
    pub fn with_state(mut self, state: Observed) -> Self {
        self.state = state;
        self
    }

    /// A container's namespace comes to be.
    pub fn open_container(&mut self, netns: NetnsRef) {
        self.containers.entry(netns).or_default();
    }

    /// A container's namespace ends, and with it both ends of the pairs that led into it.
    pub fn close_container(&mut self, netns: &NetnsRef) {
        for owner in self.containers.remove(netns).unwrap_or_default().into_values() {
            if let Owner::Port(network, ifname) = owner {
                self.news.note(Part::Segment(network));
                self.delete_port(network, &ifname);
            }
        }
    }

    /// What stands where a container's namespace was.
    pub fn at_path(&self, netns: &NetnsRef) -> AtPath {
        if self.containers.contains_key(netns) { AtPath::Same } else { AtPath::Gone }
    }

    /// The interfaces in a container.
    pub fn interfaces(&self, netns: &NetnsRef) -> BTreeSet<IfName> {
        self.containers.get(netns).map(|inside| inside.keys().cloned().collect()).unwrap_or_default()
    }

    /// Somebody makes an interface in a container.
    pub fn add_foreign_interface(&mut self, netns: &NetnsRef, ifname: IfName) {
        self.containers.entry(netns.clone()).or_default().insert(ifname, Owner::Foreign);
    }

    /// Somebody makes a VXLAN device of their own in the host's namespace.
    pub fn take_vni(&mut self, vni: Vni, port: u16) {
        self.foreign_tunnels.insert((vni, port));
    }

    /// Somebody binds a UDP port in the host's namespace.
    pub fn take_udp_port(&mut self, port: u16) {
        self.foreign_sockets.insert(port);
    }

    /// Somebody makes a chain that judges what is forwarded.
    pub fn add_chain(&mut self, name: ChainName, policy: Policy, calls: Calls) {
        let info = ChainInfo { policy, is_owned: false, calls, knows_us: false, ours: Vec::new() };
        self.state.others.chains.insert(name, info);
    }

    /// Somebody makes a route that leads by an interface to a gateway.
    pub fn add_way_out(&mut self, ifname: IfName) {
        self.state.others.egress.insert(ifname);
    }

    /// From now on `refusal` is asked before each step; what it returns is the outcome.
    pub fn refuse(&mut self, refusal: impl FnMut(&Step) -> Option<Cause> + Send + 'static) {
        self.refusal = Some(Box::new(refusal));
    }

    /// No step is refused any more without reason.
    pub fn refuse_nothing(&mut self) {
        self.refusal = None;
    }

    fn step(&mut self, step: &Step) -> Result<(), Cause> {
        self.applied.push(step.clone());
        self.news.note(step.network().map_or(Part::Host, Part::Segment));
        if let Some(cause) = self.refusal.as_mut().and_then(|refusal| refusal(step)) {
            match step {
                Step::Host(HostStep::ForgetFlows(flows)) => self.state.unforgotten.extend(flows),
                Step::Segment(id, SegmentStep::ForgetFlows(flows)) => self.segment(*id)?.unforgotten.extend(flows),
                Step::Host(_) | Step::Segment(..) => {}
            }
            return Err(cause);
        }
        match step {
            Step::Host(step) => self.change_host(step),
            Step::Segment(id, step) => self.change_segment(*id, step),
        }
    }

    fn change_host(&mut self, step: &HostStep) -> Result<(), Cause> {
        match step {
            HostStep::EnableForwarding(version) => drop(self.state.forwarding.insert(*version)),
            HostStep::ForgetFlows(flows) => self.state.unforgotten.retain(|flow| !flows.contains(flow)),
            HostStep::ReplaceFirewall(table) => self.state.firewall = Some(table.observed()),
            HostStep::SetAcceptRules(chain, rules) => {
                let info = self.state.others.chains.get_mut(chain).ok_or(Cause::Gone)?;
                info.ours = foreign_chains::comments(rules);
            }
        }
        Ok(())
    }

    fn change_segment(&mut self, id: NetworkId, step: &SegmentStep) -> Result<(), Cause> {
        match step {
            SegmentStep::Create(_) => drop(self.state.segments.entry(id).or_default()),
            SegmentStep::Delete => self.delete(id),
            SegmentStep::ReplaceFirewall(table) => self.segment(id)?.firewall = Some(Table::observed(table)),
            SegmentStep::ReplaceFilter(table) => self.segment(id)?.filter = Some(Table::observed(table)),
            SegmentStep::UpdateFilter(sets) => {
                let filter = self.segment(id)?.filter.get_or_insert_default();
                filter.sets.extend(sets.iter().map(|set| (set.name().to_owned(), set.stored())));
            }
            SegmentStep::DeleteFilter => self.segment(id)?.filter = None,
            SegmentStep::ForgetFlows(flows) => self.segment(id)?.unforgotten.retain(|flow| !flows.contains(flow)),
            SegmentStep::CreateBridge(bridge) => set_bridge(self.segment(id)?, bridge),
            SegmentStep::UpdateBridge(bridge) => {
                let segment = self.segment(id)?;
                segment.bridge.as_ref().ok_or(Cause::Gone)?;
                set_bridge(segment, bridge);
            }
            SegmentStep::CreateTunnel(tunnel) => self.create_tunnel(id, *tunnel)?,
            SegmentStep::ConnectTunnel { mtu } => self.connect_tunnel(id, *mtu)?,
            SegmentStep::DeleteTunnel => delete_tunnel(self.segment(id)?),
            SegmentStep::CreateUplink(uplink) => set_uplink(self.segment(id)?, uplink),
            SegmentStep::UpdateUplink(uplink) => {
                let segment = self.segment(id)?;
                segment.uplink.as_ref().ok_or(Cause::Gone)?;
                set_uplink(segment, uplink);
            }
            SegmentStep::Restore(altered) => self.segment(id)?.altered.retain(|one| !altered.contains(one)),
            SegmentStep::DeleteUplink => self.segment(id)?.uplink = None,
            SegmentStep::CreatePort(endpoint, port) => self.create_port(id, *endpoint, port)?,
            SegmentStep::UpdatePort(port) => self.update_port(id, port)?,
            SegmentStep::ConnectPort(port) => {
                let segment = self.segment(id)?;
                segment.bridge.as_ref().ok_or(Cause::Gone)?;
                segment.ports.get_mut(&port.host_ifname).ok_or(Cause::Gone)?.connected = Some(port.mac);
            }
            SegmentStep::DeletePort(ifname) => {
                self.segment(id)?;
                self.delete_port(id, ifname);
            }
            SegmentStep::Row(row) => change_row(self.segment(id)?, row)?,
            SegmentStep::Announce(_) => drop(self.segment(id)?),
        }
        Ok(())
    }

    fn segment(&mut self, id: NetworkId) -> Result<&mut ObservedSegment, Cause> {
        self.state.segments.get_mut(&id).ok_or(Cause::Gone)
    }

    fn delete(&mut self, id: NetworkId) {
        let ports = self.state.segments.remove(&id).map(|segment| segment.ports).unwrap_or_default();
        for ifname in ports.keys() {
            self.forget_interface(id, ifname);
        }
    }

    fn create_tunnel(&mut self, id: NetworkId, tunnel: Tunnel) -> Result<(), Cause> {
        let Tunnel { vni, port, local, .. } = tunnel;
        let segments = self.state.segments.values();
        let taken = segments.filter_map(|s| s.tunnel).any(|t| (t.vni, t.port) == (vni, port));
        let taken = taken || self.foreign_tunnels.contains(&(vni, port));
        let segment = self.segment(id)?;
        match segment.tunnel {
            Some(there) if (there.vni, there.port, there.local) == (vni, port, local) => return Ok(()),
            None if !taken => {}
            _ => return Err(Cause::AlreadyExists),
        }
        // As every link of this kind begins.
        segment.tunnel = Some(ObservedTunnel { vni, port, local, mtu: 1500, connected: false });
        Ok(())
    }

    fn connect_tunnel(&mut self, id: NetworkId, mtu: u32) -> Result<(), Cause> {
        let sockets = self.foreign_sockets.clone();
        let segment = self.segment(id)?;
        let tunnel = segment.tunnel.as_mut().filter(|_| segment.bridge.is_some()).ok_or(Cause::Gone)?;
        if sockets.contains(&tunnel.port) {
            return Err(Cause::AlreadyExists);
        }
        tunnel.mtu = mtu;
        tunnel.connected = true;
        Ok(())
    }

    fn create_port(&mut self, id: NetworkId, endpoint: EndpointId, port: &Port) -> Result<(), Cause> {
        let container = self.containers.get(&port.netns).ok_or(Cause::Gone)?;
        let there = self.state.segments.get(&id).ok_or(Cause::Gone)?.ports.get(&port.host_ifname);
        if there.is_some_and(|there| there.endpoint == Some(endpoint)) {
            return Ok(());
        }
        let ours = Owner::Port(id, port.host_ifname.clone());
        if container.get(&port.ifname).is_some_and(|owner| *owner != ours) {
            return Err(Cause::AlreadyExists);
        }
        self.delete_port(id, &port.host_ifname);
        let container = self.containers.get_mut(&port.netns).ok_or(Cause::Gone)?;
        container.insert(port.ifname.clone(), ours);
        let made = ObservedPort { endpoint: Some(endpoint), mtu: port.mtu, connected: None };
        self.segment(id)?.ports.insert(port.host_ifname.clone(), made);
        Ok(())
    }

    fn update_port(&mut self, id: NetworkId, port: &Port) -> Result<(), Cause> {
        let ours = Owner::Port(id, port.host_ifname.clone());
        let container = self.containers.get(&port.netns).ok_or(Cause::Gone)?;
        if !container.values().any(|owner| *owner == ours) {
            return Err(Cause::Gone);
        }
        self.segment(id)?.ports.get_mut(&port.host_ifname).ok_or(Cause::Gone)?.mtu = port.mtu;
        Ok(())
    }

    fn delete_port(&mut self, id: NetworkId, ifname: &IfName) {
        if let Some(segment) = self.state.segments.get_mut(&id) {
            segment.ports.remove(ifname);
        }
        self.forget_interface(id, ifname);
    }

    fn forget_interface(&mut self, id: NetworkId, ifname: &IfName) {
        let ours = Owner::Port(id, ifname.clone());
        for inside in self.containers.values_mut() {
            inside.retain(|_, owner| *owner != ours);
        }
    }
}

impl Kernel for FakeKernel {
    /// What its underlay carries depends on nothing.
    fn set_peers(&mut self, _: &BTreeSet<IpAddr>) {}

    async fn observe(&mut self, look: &Look) -> Result<Observed, StepError> {
        Ok(self.look(look))
    }

    async fn apply(&mut self, steps: &[Step]) -> Vec<Result<(), StepError>> {
        let failed = |step: &Step, cause| StepError::new(step.to_string(), cause);
        steps.iter().map(|step| self.step(step).map_err(|cause| failed(step, cause))).collect()
    }
}

fn set_bridge(segment: &mut ObservedSegment, bridge: &Bridge) {
    segment.bridge = Some(ObservedBridge { bridge: bridge.clone(), running: true });
}

fn set_uplink(segment: &mut ObservedSegment, uplink: &Uplink) {
    segment.uplink = Some(ObservedUplink { uplink: uplink.clone(), in_place: true });
}

fn change_row(segment: &mut ObservedSegment, row: &RowStep) -> Result<(), Cause> {
    match row {
        RowStep::PutRemote(mac, remote) => put_remote(segment, *mac, *remote)?,
        RowStep::DeleteRemote(mac) => {
            Arc::make_mut(&mut segment.remotes).remove(mac);
            segment.half_remotes.remove(mac);
        }
        RowStep::PutNeighbour(address, mac) => {
            segment.bridge.as_ref().ok_or(Cause::Gone)?;
            Arc::make_mut(&mut segment.neighbours).insert(*address, *mac);
        }
        RowStep::DeleteNeighbour(address) => drop(Arc::make_mut(&mut segment.neighbours).remove(address)),
    }
    Ok(())
}

/// Both rows, if the tunnel is a port of the bridge; else only the tunnel's.
fn put_remote(segment: &mut ObservedSegment, mac: Mac, remote: Remote) -> Result<(), Cause> {
    segment.tunnel.ok_or(Cause::Gone)?;
    if segment.bridge.is_some() {
        segment.half_remotes.remove(&mac);
        Arc::make_mut(&mut segment.remotes).insert(mac, remote);
    } else {
        Arc::make_mut(&mut segment.remotes).remove(&mac);
        segment.half_remotes.insert(mac);
    }
    Ok(())
}

fn delete_tunnel(segment: &mut ObservedSegment) {
    segment.tunnel = None;
    segment.remotes = Arc::default();
    segment.half_remotes.clear();
}
