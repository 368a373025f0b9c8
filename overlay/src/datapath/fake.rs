//! A kernel in memory, for tests and simulation. It keeps just as much as [`Observed`] shows, refuses what the real one
//! refuses, and obeys the same conformance suite. No I/O, and all it does is in the order it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::datapath::desired::{Port, Remote, Tunnel};
use crate::datapath::firewall::{Set, Table};
use crate::datapath::foreign_chains::{self, Calls, ChainName, Judge, Rest};
use crate::datapath::observed::{Observed, ObservedBridge, ObservedPort, ObservedSegment, ObservedTunnel};
use crate::datapath::plan::{HostStep, SegmentStep, Step};
use crate::datapath::report::{Cause, Kernel, StepError};
use crate::model::addr::{IfName, Mac};
use crate::model::id::{EndpointId, NetworkId, Vni};
use crate::model::intent::NetnsRef;

/// The kernel in memory.
#[derive(Default)]
pub struct FakeKernel {
    state: Observed,
    containers: BTreeMap<NetnsRef, BTreeMap<IfName, Owner>>,
    foreign_tunnels: BTreeSet<(Vni, u16)>,
    foreign_sockets: BTreeSet<u16>,
    refusal: Option<Refusal>,
    applied: Vec<Step>,
}

type Refusal = Box<dyn FnMut(&Step) -> Option<Cause> + Send>;

/// Whose an interface in a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Foreign,
    /// The other end of this port.
    Port(NetworkId, IfName),
}

/// What somebody does by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// Turns forwarding off in the host's namespace.
    ForwardingOff,
    /// Deletes our table in the host's namespace.
    DeleteHostTable,
    /// Deletes our rules in a chain of somebody else's.
    ShutGate(ChainName),
    /// Deletes the namespace of a network.
    DeleteNamespace(NetworkId),
    /// Deletes our tables in a segment.
    DeleteTable(NetworkId),
    /// Adds a rule of their own to our table in a segment.
    AddRule(NetworkId),
    /// Deletes the bridge.
    DeleteBridge(NetworkId),
    /// Sets the bridge down.
    BridgeDown(NetworkId),
    /// Removes an address from the bridge.
    DeleteAddress(NetworkId, IpAddr),
    /// Deletes the VXLAN device.
    DeleteTunnel(NetworkId),
    /// Lets the tunnel learn and flood.
    LetFlood(NetworkId),
    /// Deletes the host's end of the uplink, and so both.
    DeleteUplink(NetworkId),
    /// Deletes the segment's default route.
    DeleteDefaultRoute(NetworkId),
    /// Deletes a port, and so also its other end.
    DeletePort(NetworkId, IfName),
    /// Takes a port off the bridge.
    DetachPort(NetworkId, IfName),
    /// Gives a port's end in the segment an MTU of 1280 bytes.
    NarrowPort(NetworkId, IfName),
    /// Takes the mark off a port: as if its making had been killed just before its end.
    Unmark(NetworkId, IfName),
    /// Deletes both rows of a MAC.
    DeleteRemote(NetworkId, Mac),
    /// Deletes the bridge's row of a MAC.
    DeleteBridgeRow(NetworkId, Mac),
    /// Deletes the tunnel's row of a MAC.
    DeleteTunnelRow(NetworkId, Mac),
    /// Makes a MAC's row of the bridge one that ages.
    LetAge(NetworkId, Mac),
    /// Deletes a neighbour.
    DeleteNeighbour(NetworkId, IpAddr),
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
                self.delete_port(network, &ifname);
            }
        }
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
    pub fn add_chain(&mut self, name: ChainName, rest: Rest, calls: Calls) {
        let judge = Judge { rest, is_owned: false, calls, knows_us: false, ours: Vec::new() };
        self.state.others.chains.insert(name, judge);
    }

    /// Somebody makes a route that leads by an interface to a gateway.
    pub fn add_way_out(&mut self, ifname: IfName) {
        self.state.others.ways.insert(ifname);
    }

    /// From now on `refusal` is asked before each step; what it returns is the outcome.
    pub fn refuse(&mut self, refusal: impl FnMut(&Step) -> Option<Cause> + Send + 'static) {
        self.refusal = Some(Box::new(refusal));
    }

    /// No step is refused any more without reason.
    pub fn refuse_nothing(&mut self) {
        self.refusal = None;
    }

    /// Somebody does it by hand. What is not there is not harmed.
    pub fn harm(&mut self, harm: &Harm) {
        match harm {
            Harm::ForwardingOff => self.state.forwarding.clear(),
            Harm::DeleteHostTable => self.state.firewall = None,
            Harm::ShutGate(chain) => {
                self.state.others.chains.get_mut(chain).into_iter().for_each(|judge| judge.ours.clear());
            }
            Harm::DeleteNamespace(network) => self.delete(*network),
            Harm::DeletePort(network, ifname) => self.delete_port(*network, ifname),
            Harm::DeleteTable(network)
            | Harm::AddRule(network)
            | Harm::DeleteBridge(network)
            | Harm::BridgeDown(network)
            | Harm::DeleteAddress(network, _)
            | Harm::DeleteTunnel(network)
            | Harm::LetFlood(network)
            | Harm::DeleteUplink(network)
            | Harm::DeleteDefaultRoute(network)
            | Harm::DetachPort(network, _)
            | Harm::NarrowPort(network, _)
            | Harm::Unmark(network, _)
            | Harm::DeleteRemote(network, _)
            | Harm::DeleteBridgeRow(network, _)
            | Harm::DeleteTunnelRow(network, _)
            | Harm::LetAge(network, _)
            | Harm::DeleteNeighbour(network, _) => {
                if let Some(segment) = self.state.segments.get_mut(network) {
                    harm_segment(segment, harm);
                }
            }
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Cause> {
        self.applied.push(step.clone());
        if let Some(cause) = self.refusal.as_mut().and_then(|refusal| refusal(step)) {
            match step {
                Step::Host(HostStep::ForgetFlows(flows)) => self.state.unforgotten.extend(flows),
                Step::Segment(id, SegmentStep::ForgetFlows(flows)) => self.segment(*id)?.unforgotten.extend(flows),
                _ => {}
            }
            return Err(cause);
        }
        match step {
            Step::Host(HostStep::EnableForwarding(version)) => drop(self.state.forwarding.insert(*version)),
            Step::Host(HostStep::ForgetFlows(flows)) => self.state.unforgotten.retain(|flow| !flows.contains(flow)),
            Step::Host(HostStep::ReplaceFirewall(table)) => self.state.firewall = Some(table.marks()),
            Step::Host(HostStep::SetGate(chain, passes)) => {
                let judge = self.state.others.chains.get_mut(chain).ok_or(Cause::Gone)?;
                judge.ours = foreign_chains::marks(passes);
            }
            Step::Segment(id, SegmentStep::Create(_)) => drop(self.state.segments.entry(*id).or_default()),
            Step::Segment(id, SegmentStep::Delete) => self.delete(*id),
            Step::Segment(id, SegmentStep::CreateTunnel(tunnel)) => self.create_tunnel(*id, *tunnel)?,
            Step::Segment(id, SegmentStep::ConnectTunnel { mtu }) => self.connect_tunnel(*id, *mtu)?,
            Step::Segment(id, SegmentStep::CreatePort(endpoint, port)) => self.create_port(*id, *endpoint, port)?,
            Step::Segment(id, SegmentStep::UpdatePort(port)) => self.update_port(*id, port)?,
            Step::Segment(id, SegmentStep::DeletePort(ifname)) => {
                self.segment(*id)?;
                self.delete_port(*id, ifname);
            }
            Step::Segment(id, step) => change_segment(self.segment(*id)?, step)?,
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
    async fn observe(&mut self) -> Result<Observed, StepError> {
        Ok(self.state.clone())
    }

    async fn apply(&mut self, steps: &[Step]) -> Vec<Result<(), StepError>> {
        let failed = |step: &Step, cause| StepError::new(step.to_string(), cause);
        steps.iter().map(|step| self.step(step).map_err(|cause| failed(step, cause))).collect()
    }
}

/// What concerns nothing outside the segment.
fn change_segment(segment: &mut ObservedSegment, step: &SegmentStep) -> Result<(), Cause> {
    match step {
        SegmentStep::ReplaceFirewall(table) => segment.firewall = Some(Table::marks(table)),
        SegmentStep::ReplaceFilter(table) => segment.filter = Some(Table::marks(table)),
        SegmentStep::UpdateFilter(sets) => {
            let filter = segment.filter.get_or_insert_default();
            filter.retain(|(name, _)| !sets.iter().any(|set| set.marks().0 == *name));
            filter.extend(sets.iter().map(Set::marks));
            filter.sort();
        }
        SegmentStep::DeleteFilter => segment.filter = None,
        SegmentStep::ForgetFlows(flows) => segment.unforgotten.retain(|flow| !flows.contains(flow)),
        SegmentStep::UpdateBridge(_) if segment.bridge.is_none() => return Err(Cause::Gone),
        SegmentStep::CreateBridge(bridge) | SegmentStep::UpdateBridge(bridge) => {
            segment.bridge = Some(ObservedBridge { bridge: bridge.clone(), running: true });
        }
        SegmentStep::DeleteTunnel => delete_tunnel(segment),
        SegmentStep::CreateUplink(uplink) => segment.uplink = Some(uplink.clone()),
        SegmentStep::DeleteUplink => segment.uplink = None,
        SegmentStep::ConnectPort(port) => {
            segment.bridge.as_ref().ok_or(Cause::Gone)?;
            segment.ports.get_mut(&port.host_ifname).ok_or(Cause::Gone)?.connected = Some(port.mac);
        }
        SegmentStep::PutRemote(mac, remote) => put_remote(segment, *mac, *remote)?,
        SegmentStep::DeleteRemote(mac) => {
            segment.remotes.remove(mac);
            segment.half_remotes.remove(mac);
        }
        SegmentStep::PutNeighbour(address, mac) => {
            segment.bridge.as_ref().ok_or(Cause::Gone)?;
            segment.neighbours.insert(*address, *mac);
        }
        SegmentStep::DeleteNeighbour(address) => drop(segment.neighbours.remove(address)),
        SegmentStep::Create(_)
        | SegmentStep::Delete
        | SegmentStep::CreateTunnel(_)
        | SegmentStep::ConnectTunnel { .. }
        | SegmentStep::CreatePort(..)
        | SegmentStep::UpdatePort(_)
        | SegmentStep::DeletePort(_) => {}
    }
    Ok(())
}

/// Both rows, if the tunnel is a port of the bridge; else only the tunnel's.
fn put_remote(segment: &mut ObservedSegment, mac: Mac, remote: Remote) -> Result<(), Cause> {
    segment.tunnel.ok_or(Cause::Gone)?;
    if segment.bridge.is_some() {
        segment.half_remotes.remove(&mac);
        segment.remotes.insert(mac, remote);
    } else {
        segment.remotes.remove(&mac);
        segment.half_remotes.insert(mac);
    }
    Ok(())
}

fn delete_tunnel(segment: &mut ObservedSegment) {
    segment.tunnel = None;
    segment.remotes.clear();
    segment.half_remotes.clear();
}

fn halve(segment: &mut ObservedSegment, mac: Mac) {
    if segment.remotes.remove(&mac).is_some() {
        segment.half_remotes.insert(mac);
    }
}

fn harm_segment(segment: &mut ObservedSegment, harm: &Harm) {
    match harm {
        Harm::DeleteTable(_) => (segment.firewall, segment.filter) = (None, None),
        Harm::AddRule(_) => {
            if let Some((_, rules)) = segment.firewall.as_mut().and_then(|marks| marks.first_mut()) {
                rules.push(String::new());
            }
        }
        Harm::DeleteBridge(_) => {
            segment.bridge = None;
            segment.neighbours.clear();
            segment.ports.values_mut().for_each(|port| port.connected = None);
            segment.half_remotes.extend(std::mem::take(&mut segment.remotes).into_keys());
            segment.tunnel.iter_mut().for_each(|tunnel| tunnel.connected = false);
        }
        Harm::BridgeDown(_) => segment.bridge.iter_mut().for_each(|bridge| bridge.running = false),
        Harm::DeleteAddress(_, address) => {
            segment.bridge.iter_mut().for_each(|b| b.bridge.addresses.retain(|a| a.address != *address));
        }
        Harm::DeleteTunnel(_) => delete_tunnel(segment),
        Harm::LetFlood(_) => segment.tunnel.iter_mut().for_each(|tunnel| tunnel.connected = false),
        Harm::DeleteUplink(_) | Harm::DeleteDefaultRoute(_) => segment.uplink = None,
        Harm::DetachPort(_, ifname) => {
            segment.ports.get_mut(ifname).into_iter().for_each(|port| port.connected = None);
        }
        Harm::NarrowPort(_, ifname) => {
            segment.ports.get_mut(ifname).into_iter().for_each(|port| port.mtu = 1280);
        }
        Harm::Unmark(_, ifname) => {
            segment.ports.get_mut(ifname).into_iter().for_each(|port| port.endpoint = None);
        }
        Harm::DeleteRemote(_, mac) => drop(segment.remotes.remove(mac)),
        Harm::DeleteBridgeRow(_, mac) | Harm::DeleteTunnelRow(_, mac) | Harm::LetAge(_, mac) => {
            halve(segment, *mac);
        }
        Harm::DeleteNeighbour(_, address) => drop(segment.neighbours.remove(address)),
        Harm::ForwardingOff
        | Harm::DeleteHostTable
        | Harm::ShutGate(_)
        | Harm::DeleteNamespace(_)
        | Harm::DeletePort(..) => {}
    }
}
