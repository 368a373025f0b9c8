//! What people break by hand.

use std::net::IpAddr;
use std::sync::Arc;

use super::{FakeKernel, delete_tunnel};
use crate::datapath::attention::Part;
use crate::datapath::foreign_chains::ChainName;
use crate::datapath::names::BRIDGE;
use crate::datapath::observed::{Altered, ObservedSegment};
use crate::model::addr::{IfName, Mac};
use crate::model::id::NetworkId;

/// One thing that a person breaks by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Turns forwarding off in the host's namespace.
    ForwardingOff,
    /// Deletes our table in the host's namespace.
    DeleteHostTable,
    /// Deletes our rules in a chain of somebody else's.
    DeleteAcceptRules(ChainName),
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
    /// Gives the segment's end of the uplink an address more.
    AddAddress(NetworkId),
    /// Turns off ARP on the bridge: an attribute that is left as the kernel makes it.
    Alter(NetworkId),
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
    /// Breaks it. An object that is not there is not harmed.
    #[cfg_attr(
        not(test),
        expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is not done here is done to a segment, where all are named"
        )
    )]
    pub fn inject(&mut self, fault: &Fault) {
        self.note_fault(fault);
        match fault {
            Fault::ForwardingOff => self.state.forwarding.clear(),
            Fault::DeleteHostTable => self.state.firewall = None,
            Fault::DeleteAcceptRules(chain) => {
                self.state.others.chains.get_mut(chain).into_iter().for_each(|info| info.ours.clear());
            }
            Fault::DeleteNamespace(network) => self.delete(*network),
            Fault::DeletePort(network, ifname) => self.delete_port(*network, ifname),
            in_segment => {
                let network = in_segment.network();
                if let Some(segment) = network.and_then(|id| self.state.segments.get_mut(&id)) {
                    inject_into_segment(segment, in_segment);
                }
            }
        }
    }

    fn note_fault(&mut self, fault: &Fault) {
        let network = fault.network();
        // A segment's uplink ends on the host, and goes with its namespace.
        if network.is_none() || matches!(fault, Fault::DeleteUplink(_) | Fault::DeleteNamespace(_)) {
            self.note(Part::Host);
        }
        if let Some(id) = network {
            self.note(Part::Segment(id));
        }
    }
}

impl Fault {
    /// The network whose segment it breaks; `None` if it breaks something of the host.
    fn network(&self) -> Option<NetworkId> {
        match self {
            Self::ForwardingOff | Self::DeleteHostTable | Self::DeleteAcceptRules(_) => None,
            Self::DeleteNamespace(network)
            | Self::DeletePort(network, _)
            | Self::DeleteTable(network)
            | Self::AddRule(network)
            | Self::DeleteBridge(network)
            | Self::BridgeDown(network)
            | Self::DeleteAddress(network, _)
            | Self::DeleteTunnel(network)
            | Self::LetFlood(network)
            | Self::DeleteUplink(network)
            | Self::DeleteDefaultRoute(network)
            | Self::AddAddress(network)
            | Self::Alter(network)
            | Self::DetachPort(network, _)
            | Self::NarrowPort(network, _)
            | Self::Unmark(network, _)
            | Self::DeleteRemote(network, _)
            | Self::DeleteBridgeRow(network, _)
            | Self::DeleteTunnelRow(network, _)
            | Self::LetAge(network, _)
            | Self::DeleteNeighbour(network, _) => Some(*network),
        }
    }
}

fn halve(segment: &mut ObservedSegment, mac: Mac) {
    if Arc::make_mut(&mut segment.remotes).remove(&mac).is_some() {
        segment.half_remotes.insert(mac);
    }
}

fn inject_into_segment(segment: &mut ObservedSegment, fault: &Fault) {
    match fault {
        Fault::DeleteTable(_) => (segment.firewall, segment.filter) = (None, None),
        Fault::AddRule(_) => {
            if let Some(rules) = segment.firewall.as_mut().and_then(|table| table.chains.values_mut().next()) {
                rules.push(String::new());
            }
        }
        Fault::DeleteBridge(_) => {
            segment.bridge = None;
            segment.neighbours = Arc::default();
            segment.ports.values_mut().for_each(|port| port.connected = None);
            segment.half_remotes.extend(std::mem::take(&mut segment.remotes).keys());
            segment.tunnel.iter_mut().for_each(|tunnel| tunnel.connected = false);
        }
        Fault::BridgeDown(_) => segment.bridge.iter_mut().for_each(|bridge| bridge.running = false),
        Fault::DeleteAddress(_, address) => {
            segment.bridge.iter_mut().for_each(|b| b.bridge.addresses.retain(|a| a.address != *address));
        }
        Fault::DeleteTunnel(_) => delete_tunnel(segment),
        Fault::LetFlood(_) => segment.tunnel.iter_mut().for_each(|tunnel| tunnel.connected = false),
        Fault::DeleteUplink(_) => segment.uplink = None,
        Fault::Alter(_) => {
            let altered = Altered { of: BRIDGE.to_owned(), attribute: "noarp".to_owned(), can_be_restored: true };
            segment.altered.extend(segment.bridge.iter().map(|_| altered.clone()));
        }
        Fault::DeleteDefaultRoute(_) | Fault::AddAddress(_) => {
            segment.uplink.iter_mut().for_each(|uplink| uplink.in_place = false);
        }
        Fault::DetachPort(_, ifname) => {
            segment.ports.get_mut(ifname).into_iter().for_each(|port| port.connected = None);
        }
        Fault::NarrowPort(_, ifname) => {
            segment.ports.get_mut(ifname).into_iter().for_each(|port| port.mtu = 1280);
        }
        Fault::Unmark(_, ifname) => {
            segment.ports.get_mut(ifname).into_iter().for_each(|port| port.endpoint = None);
        }
        Fault::DeleteRemote(_, mac) => drop(Arc::make_mut(&mut segment.remotes).remove(mac)),
        Fault::DeleteBridgeRow(_, mac) | Fault::DeleteTunnelRow(_, mac) | Fault::LetAge(_, mac) => {
            halve(segment, *mac);
        }
        Fault::DeleteNeighbour(_, address) => drop(Arc::make_mut(&mut segment.neighbours).remove(address)),
        Fault::ForwardingOff
        | Fault::DeleteHostTable
        | Fault::DeleteAcceptRules(_)
        | Fault::DeleteNamespace(_)
        | Fault::DeletePort(..) => {}
    }
}
