//! What happens in the simulation, at random.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use overlay::ledger::Outcome;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::network::{Name, Network, Settings};
use overlay::operations::attach::{Attach, EndpointSpec};
use overlay::operations::container::{Container, Priority};
use overlay::operations::define_network::{CreateNetwork, Hindered, NetworkSpec, RemoveNetwork};
use overlay::operations::forget::{Named, named};

use crate::host::{Fuse, Power, name};
use crate::world::World;

/// More networks than this are not made.
const NETWORKS: usize = 6;

impl World {
    /// One operation.
    pub fn op(&mut self) {
        let index = self.rng.usize(0..self.hosts.len());
        match self.rng.u32(0..1_000) {
            0..490 => self.op_attach(index),
            490..760 => self.op_detach(index),
            760..789 => self.op_end_container(index),
            789 => self.op_copy_machine_apart(index),
            790..795 => self.op_copy_disk(index),
            795 => self.op_wipe(index),
            796..798 => self.op_restore(index),
            798 => self.op_copy_machine(index),
            799 => drop(self.op_trust()),
            800..830 => self.op_create(index),
            830..838 => self.op_delete(index),
            838..868 => self.op_cut(),
            868..900 => self.part.fill(0),
            900..920 => self.loss = [0, 0, 0, 5, 30][self.rng.usize(0..5)],
            920..940 => self.op_kill(index),
            940..970 => self.op_start(index),
            970..980 => self.op_off(index),
            _ => self.op_forget(index),
        }
        let pause = self.rng.u64(0..400);
        self.run(pause);
    }

    fn is_on(&self, index: usize) -> bool {
        self.hosts[index].power == Power::On
    }

    fn any_network(&mut self, index: usize) -> Option<Network> {
        let views = self.hosts[index].cluster.networks.values().filter(|view| !view.apart);
        let networks: Vec<Network> = views.map(|view| view.network.clone()).collect();
        self.rng.choice(networks)
    }

    fn op_attach(&mut self, index: usize) {
        if !self.is_on(index) {
            return;
        }
        let Some(network) = self.any_network(index) else { return };
        let all: Vec<IpAddr> = network.blocks().flat_map(|b| network.assignable_in(b).collect::<Vec<_>>()).collect();
        let address = if self.rng.bool() { self.rng.choice(all) } else { None };
        let name = name(&format!("c{}", self.rng.u8(0..30)));
        let request = self.request(index, network.id, name, address);
        let request = if self.rng.bool() { unaware(request) } else { request };
        self.try_attach(index, request);
    }

    /// What a host gathers for a new endpoint in a container of its.
    pub fn request(&mut self, index: usize, network: NetworkId, name: Name, address: Option<IpAddr>) -> Attach {
        let id = EndpointId::from_bytes(self.fresh_id());
        let host = &mut self.hosts[index];
        let netns = host.open_container();
        let spec = EndpointSpec {
            network: network.to_string(),
            netns: netns.path.clone(),
            name,
            aliases: BTreeSet::new(),
            addresses: address.into_iter().collect(),
            mac: None,
            ifname: None,
            priority: Priority::default(),
            id: None,
            ports: Vec::new(),
        };
        Attach {
            spec,
            id,
            cluster: Arc::clone(&host.cluster),
            container: Container { netns, interfaces: BTreeMap::new() },
            obstacles: BTreeMap::new(),
            asked: BTreeSet::new(),
        }
    }

    fn op_detach(&mut self, index: usize) {
        let attached: Vec<EndpointId> = self.hosts[index].intents().attachments.keys().copied().collect();
        if let Some(endpoint) = self.rng.choice(attached).filter(|_| self.is_on(index)) {
            self.detach(index, endpoint);
            self.seen.note("detached");
        }
    }

    /// Also while the agent is not there to see it.
    fn op_end_container(&mut self, index: usize) {
        let attached: Vec<EndpointId> = self.hosts[index].intents().attachments.keys().copied().collect();
        let is_off = self.hosts[index].power == Power::Off;
        if let Some(endpoint) = self.rng.choice(attached).filter(|_| !is_off) {
            self.end_container(index, endpoint);
        }
    }

    fn op_create(&mut self, index: usize) {
        if !self.is_on(index) || self.hosts[index].cluster.networks.len() >= NETWORKS {
            return;
        }
        let subnet = ["10.0.0.0/28", "10.0.0.0/27", "10.1.0.0/25"][self.rng.usize(0..3)];
        let ipv6 = [None, Some("fd00::/124"), Some("fd00:1::/121")][self.rng.usize(0..3)];
        let names = ["red", "green", "blue", "white", "black", "brown", "pink", "grey"];
        let called = names[self.rng.usize(0..names.len())];
        let subnets: Vec<&str> = [Some(subnet), ipv6].into_iter().flatten().collect();
        let request = self.network(index, called, &subnets);
        let created = self.tell(index, &request);
        // Killed at it, it may have made it all the same.
        if self.hosts[index].ledger().accounts().contains_key(&request.id) {
            self.made.extend(self.hosts[index].founder().map(|founder| (request.id, founder)));
        }
        match created {
            Some(Ok(_)) => {
                self.seen.note("network created");
                self.look(index);
            }
            Some(Err(_)) => self.seen.note("network refused"),
            None => {}
        }
    }

    /// What a host gathers for a new network.
    pub fn network(&mut self, index: usize, called: &str, subnets: &[&str]) -> CreateNetwork {
        let id = NetworkId::from_bytes(self.fresh_id());
        let host = &self.hosts[index];
        let spec = NetworkSpec {
            name: name(called),
            subnets: subnets.iter().map(|subnet| subnet.parse().expect("a subnet")).collect(),
            ipv6: false,
            gateways: Vec::new(),
            pools: Vec::new(),
            settings: Settings::default(),
        };
        CreateNetwork {
            spec,
            id,
            since: 0,
            cluster: Arc::clone(&host.cluster),
            synced: host.is_synced(self.now),
            told_to_join: host.join != index,
        }
    }

    /// By force the endpoints of this host go first, and those of other hosts keep nothing.
    fn op_delete(&mut self, index: usize) {
        let Some(network) = self.any_network(index).filter(|_| self.is_on(index)) else { return };
        let used = self.hosts[index].cluster.networks[&network.id].endpoints.len();
        if used >= 3 {
            return;
        }
        let hindered = if self.rng.bool() { Hindered::ByAll } else { Hindered::ByOwn };
        if hindered == Hindered::ByOwn {
            let own: Vec<EndpointId> =
                self.hosts[index].intents().attached(network.id).map(|attachment| attachment.endpoint.id).collect();
            own.into_iter().for_each(|endpoint| self.detach(index, endpoint));
        }
        let host = &self.hosts[index];
        let (cluster, synced) = (Arc::clone(&host.cluster), host.is_synced(self.now));
        match self.tell(index, &RemoveNetwork { network: network.id, hindered, cluster, synced }) {
            Some(Ok(())) => {
                self.seen.note("network deleted");
                self.look(index);
            }
            Some(Err(_)) => self.seen.note("network kept"),
            None => {}
        }
    }

    fn op_cut(&mut self) {
        let parts = self.rng.u8(2..4);
        for part in &mut self.part {
            *part = self.rng.u8(0..parts);
        }
        self.seen.note("cut");
    }

    fn op_kill(&mut self, index: usize) {
        if !self.is_on(index) {
            return;
        }
        if self.rng.bool() {
            self.kill_agent(index);
            self.seen.note("agent killed");
        } else {
            self.light(index);
        }
    }

    /// The agent is killed at one of its next writes.
    fn light(&mut self, index: usize) {
        let fuse = Fuse { writes: self.rng.u32(0..8), is_last_made: self.rng.bool() };
        self.hosts[index].fuse = Some(fuse);
    }

    pub fn op_start(&mut self, index: usize) {
        match self.hosts[index].power {
            Power::On => {}
            Power::NoAgent if self.hosts[index].is_fenced() => self.renew(index),
            Power::NoAgent => self.start_agent(index),
            Power::Off => self.power_on(index),
        }
        // The check, the end of an identity and joining are written as well.
        if !self.insists && self.rng.u8(0..4) == 0 {
            self.light(index);
        }
    }

    fn op_off(&mut self, index: usize) {
        if self.hosts[index].power != Power::Off {
            self.power_off(index);
            self.seen.note("power lost");
        }
    }

    /// The operator sees that a host is off: it is, and this one knows it to be gone.
    fn op_forget(&mut self, index: usize) {
        if !self.is_on(index) {
            return;
        }
        let cluster = Arc::clone(&self.hosts[index].cluster);
        let is_gone = |id: HostId| matches!(named(self.hosts[index].ledger(), &cluster, id), Named::Gone(_));
        let off = self.hosts.iter().filter(|host| host.power == Power::Off && is_gone(host.id)).map(|host| host.id);
        // Or that nobody has that identity any more.
        let lost = cluster.hosts.keys().copied().filter(|id| self.index(*id).is_none() && is_gone(*id));
        let off: Vec<HostId> = off.chain(lost).collect();
        let one = self.rng.choice(off.clone());
        let some = if self.rng.bool() { one.into_iter().collect() } else { off };
        let pending = self.hosts[index].ledger().membership().forgets.len();
        if !some.is_empty() && self.forget(index, &some) == Outcome::Done {
            self.seen.note(if pending > 0 { "forget: said again" } else { "forget" });
        }
    }
}

/// The same as an agent asks that has just started: it knows the networks, and the endpoints of other hosts not yet. So the ledgers alone
/// have to see what is in use.
pub fn unaware(mut request: Attach) -> Attach {
    let cluster = Arc::make_mut(&mut request.cluster);
    for view in cluster.networks.values_mut() {
        let view = Arc::make_mut(view);
        view.endpoints = Default::default();
    }
    request
}
