//! Scenes on virtual time: what must hold within which time, of a cluster that is whole or cut in two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay::ledger::{Denial, Millis, REST};
use overlay::model::host::Liveness;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::operations::Request;
use overlay::operations::attach::AttachRefusal;

use crate::gossip::INTERVAL;
use crate::host::{Host, name};
use crate::ops::unaware;
use crate::world::World;

/// What 02-leases.md grants to whatever has to get round in a connected cluster.
const BOUND: Millis = 10 * INTERVAL;
/// Enough for all that an attach may ask, one after the other, also if nobody answers.
const ANSWERED: Millis = 60_000;

impl World {
    /// A cluster at rest, with one network that the first two hosts share.
    pub fn with_network(seed: u64, size: usize, subnet: &str) -> (Self, NetworkId) {
        println!("seed {seed}, {size} hosts");
        let mut world = Self::new(seed, size);
        world.run(10_000);
        let network = world.create(subnet);
        world.run(BOUND);
        (world, network)
    }

    /// The first host makes a network. Its id is drawn until it is the second host that gets the half which another member gets.
    pub fn create(&mut self, subnet: &str) -> NetworkId {
        let (second, tries) = (self.hosts[1].id, 100 * self.hosts.len());
        for _ in 0..tries {
            let request = self.network(0, "red", &[subnet]);
            let mut state = self.hosts[0].state.clone();
            let decision = request.decide(&state, self.now).expect("nothing is against it");
            state.apply(&decision.changes);
            if state.ledger.accounts()[&request.id].held_by(second).next().is_some() {
                self.tell(0, &request).expect("no agent is killed").expect("nothing is against it");
                self.made.extend(self.hosts[0].founder().map(|founder| (request.id, founder)));
                return request.id;
            }
        }
        unreachable!("none of {tries} networks gives anything to the second host")
    }

    pub fn begin_attach(&mut self, index: usize, network: NetworkId, address: Option<IpAddr>) -> EndpointId {
        let name = name(&format!("c{}", self.number()));
        let request = unaware(self.request(index, network, name, address));
        let endpoint = request.id;
        self.try_attach(index, request);
        endpoint
    }

    pub fn attach(
        &mut self,
        index: usize,
        network: NetworkId,
        address: Option<IpAddr>,
    ) -> (EndpointId, Result<IpAddr, Denial>) {
        let endpoint = self.begin_attach(index, network, address);
        let end = self.now + ANSWERED;
        while self.now < end {
            if let Some((.., result)) = self.log.iter().rev().find(|(_, _, id, _)| *id == endpoint) {
                let denied =
                    |refusal: AttachRefusal| refusal.denial().cloned().expect("the ledgers refuse, or none does");
                return (endpoint, result.clone().map_err(denied));
            }
            self.run(10);
        }
        unreachable!("an attach on host {index} comes to no end")
    }

    /// Attaches on these hosts, in turn, until each of them is refused. How many went well, and what the last was told.
    fn fill(&mut self, hosts: &[usize], network: NetworkId) -> (usize, Vec<Denial>) {
        let mut attached = 0;
        let mut denials = BTreeMap::new();
        while denials.len() < hosts.len() {
            for host in hosts {
                match self.attach(*host, network, None).1 {
                    Ok(_) => {
                        denials.remove(host);
                        attached += 1;
                    }
                    Err(denial) => drop(denials.insert(*host, denial)),
                }
                self.check();
            }
        }
        (attached, denials.into_values().collect())
    }

    /// How many addresses these hosts may use and do not.
    fn free_on(&self, hosts: &[usize], network: NetworkId) -> usize {
        let of = |index: &usize| {
            let host = &self.hosts[*index];
            let account = &host.ledger().accounts()[&network];
            let own = account.held_by(host.id).flat_map(|(block, epoch)| account.free_in(block, epoch));
            let idle = account.borrowed(host.id).into_keys().filter(|address| !account.bound.contains_key(address));
            own.count() + idle.count()
        };
        hosts.iter().map(of).sum()
    }

    /// An endpoint of the host with an address of its own.
    fn at_home_on(&self, index: usize, network: NetworkId) -> Option<EndpointId> {
        let host = &self.hosts[index];
        let account = &host.ledger().accounts()[&network];
        let own = |address: &IpAddr| account.block_lease(*address).is_some_and(|lease| lease.holder == host.id);
        account.bound.iter().find(|(address, _)| own(address)).map(|(_, endpoint)| *endpoint)
    }

    /// An address of a block that the host holds that never was anywhere.
    fn untouched(&self, index: usize, network: NetworkId) -> Option<IpAddr> {
        let host = &self.hosts[index];
        let account = &host.ledger().accounts()[&network];
        let touched = |a: &IpAddr| account.addresses.contains_key(a) || account.resting.contains_key(a);
        let mut free = account.held_by(host.id).flat_map(|(block, epoch)| account.free_in(block, epoch));
        free.find(|address| !touched(address))
    }

    /// Do all hosts see all that is live, all hosts alive, the same as the others, and have they done it?
    pub fn is_agreed(&self) -> bool {
        let first = &self.hosts[0].cluster.networks;
        let mut shown = BTreeMap::new();
        for located in first.values().flat_map(|view| view.endpoints.values()) {
            let (network, on) = (located.endpoint.network, (located.host, located.endpoint.id));
            shown.extend(located.addresses().map(|address| ((network, address), on)));
        }
        let on = |(host, endpoint): &(usize, EndpointId)| (self.hosts[*host].id, *endpoint);
        let live: BTreeMap<_, _> = self.live.iter().map(|(at, which)| (*at, on(which))).collect();
        let agrees = |host: &Host| {
            let hosts = &host.cluster.hosts;
            let all = hosts.len() == self.hosts.len() && hosts.values().all(|host| host.liveness == Liveness::Live);
            all && host.cluster.networks == *first && host.is_settled()
        };
        shown == live && self.hosts.iter().all(agrees)
    }

    /// Lets time pass until it is so; how long that was, to a few milliseconds unless they are many. At most `bound`.
    pub fn until(&mut self, bound: Millis, what: &str, is_so: impl Fn(&Self) -> bool) -> Millis {
        let (start, pause) = (self.now, if self.hosts.len() > 20 { INTERVAL } else { 10 });
        while !is_so(self) {
            assert!(self.now - start < bound, "not within {bound} ms: {what}");
            self.run(pause);
        }
        self.now - start
    }
}

/// Whoever is cut off goes on from what it holds until that is used up, and is told who has the rest.
fn a_cluster_cut_in_two(seed: u64, cut: Millis) {
    let (mut world, network) = World::with_network(seed, 4, "10.0.0.0/25");
    let sides = [[0, 1], [2, 3]];
    for host in 0..4 {
        assert!(world.attach(host, network, None).1.is_ok(), "host {host} takes part");
    }
    world.until(BOUND, "all see all", World::is_agreed);
    world.part = vec![0, 0, 1, 1];
    let start = world.now;
    for (side, other) in [(sides[0], sides[1]), (sides[1], sides[0])] {
        let theirs: BTreeSet<HostId> = other.iter().map(|index| world.hosts[*index].id).collect();
        let (attached, denials) = world.fill(&side, network);
        assert!(attached > 8, "{attached} is next to nothing");
        for denial in denials {
            let Denial::Full { holders } = denial else { unreachable!("{denial:?}") };
            assert!(theirs.iter().any(|id| holders.contains_key(id)), "{holders:?} names nobody of the other side");
        }
        assert_eq!(world.free_on(&side, network), 0, "all that it has is used");
        let foreign = world.live.iter().find(|(_, (host, _))| other.contains(host)).map(|((_, address), _)| *address);
        let denial = world.attach(side[0], network, foreign).1.expect_err("it is in use on the other side");
        let Denial::Unreachable { holder, .. } = denial else { unreachable!("{denial:?}") };
        assert!(theirs.contains(&holder), "it names who has it");
    }
    // What is released in the cut can be had again in the cut, after its rest.
    for host in 0..4 {
        let endpoint = world.at_home_on(host, network).expect("it has some");
        world.detach(host, endpoint);
    }
    world.run((start + cut).saturating_sub(world.now));
    world.check();
    for side in sides.iter().filter(|_| cut > REST) {
        let free = world.free_on(side, network);
        assert!(free >= 2, "what was released is free");
        let (attached, _) = world.fill(side, network);
        assert!(attached >= free, "{attached} of the {free} that have rested are had again");
    }
    world.part.fill(0);
    let took = world.until(BOUND, "after the heal all see the same", World::is_agreed);
    println!("healed after {} s, agreed {took} ms later", (world.now - start - took) / 1_000);
    world.check();
    let all = world.hosts[0].ledger().accounts()[&network].network.clone();
    let all: usize = all.blocks().map(|block| all.assignable_in(block).count()).sum();
    assert_eq!(world.live.len() + world.free_on(&[0, 1, 2, 3], network), all, "nothing is lost");
    world.settle();
}

#[test]
fn both_sides_of_a_cut_go_on_until_full_and_are_one_again_soon_after() {
    for seed in 0..10 {
        a_cluster_cut_in_two(seed, 30_000);
    }
}

#[test]
fn a_cut_of_an_hour_heals_as_fast_as_a_short_one() {
    for seed in 0..10 {
        a_cluster_cut_in_two(seed, 3_600_000);
    }
}

/// Is nothing of the address left on any host but the one it is on now, in view or kernel?
fn is_where_it_is(world: &World, network: NetworkId, address: IpAddr, on: Option<HostId>) -> bool {
    let mac = overlay::model::addr::Mac::of_address(address);
    world.hosts.iter().all(|host| {
        let located = host.cluster.networks.get(&network).and_then(|view| view.at(address));
        let segment = host.kernel.state().segments.get(&network).expect("each host has an endpoint in it");
        let led_to = segment.remotes.get(&mac).map(|remote| remote.vtep);
        let vtep = on.and_then(|on| world.hosts.iter().find(|h| h.id == on)).map(|h| h.place().vtep);
        let elsewhere = vtep.filter(|_| on != Some(host.id));
        located.map(|l| l.host) == on
            && led_to == elsewhere
            && segment.neighbours.contains_key(&address) == on.is_some()
    })
}

/// An endpoint comes, moves with its address to another host, and goes; each time all hosts know it soon.
fn news_gets_round(seed: u64, loss: u8) -> [Millis; 3] {
    let size = 6;
    let (mut world, network) = World::with_network(seed, size, "10.0.0.0/24");
    for host in 0..size {
        assert!(world.attach(host, network, None).1.is_ok(), "host {host} takes part");
    }
    world.until(BOUND, "all see all", World::is_agreed);
    world.loss = loss;
    let mut longest = [0; 3];
    for turn in 0..20 {
        let (from, to) = (turn % size, (turn + 1) % size);
        let (from_id, to_id) = (world.hosts[from].id, world.hosts[to].id);
        let address = world.untouched(from, network).expect("there is plenty");
        let (endpoint, attached) = world.attach(from, network, Some(address));
        assert_eq!(attached, Ok(address), "it is free and its own");
        let seen = |on| move |world: &World| is_where_it_is(world, network, address, on);
        let came = world.until(BOUND, "an endpoint that came is seen", seen(Some(from_id)));
        world.detach(from, endpoint);
        // Asked at once, before anybody has heard that it is free. A holder that is suspected for a moment is not asked, and
        // an answer may be lost: people try again.
        let again = (0..10).find_map(|_| {
            let attached = world.attach(to, network, Some(address)).1;
            if attached.is_err() {
                world.run(INTERVAL);
            }
            attached.ok()
        });
        assert_eq!(again, Some(address), "it is free");
        let moved = world.now;
        let went = world.until(BOUND, "an endpoint that moved is seen where it is", seen(Some(to_id)));
        assert_eq!(world.now - moved, went);
        let endpoint = world.live[&(network, address)].1;
        world.detach(to, endpoint);
        let gone = world.until(BOUND, "an endpoint that is gone is seen no more", seen(None));
        for (longest, took) in longest.iter_mut().zip([came, went, gone]) {
            *longest = took.max(*longest);
        }
        world.check();
    }
    longest
}

fn all_hear_within_the_bound(loss: u8) {
    let mut longest = [0; 3];
    for seed in 0..10 {
        let took = news_gets_round(seed, loss);
        longest = std::array::from_fn(|n| longest[n].max(took[n]));
    }
    println!("{loss} % lost: seen after {longest:?} ms at the latest (came, moved, gone); the bound is {BOUND} ms");
}

#[test]
fn what_comes_moves_or_goes_is_known_to_all_within_ten_intervals() {
    all_hear_within_the_bound(0);
}

#[test]
fn also_when_each_twentieth_message_is_lost() {
    all_hear_within_the_bound(5);
}

/// Hosts that are all new and were told to join the first one, switched on one after the other within so much time.
fn new_hosts_found_one_cluster(seed: u64, within: Millis) {
    println!("seed {seed}, switched on within {within} ms");
    let mut world = World::dark(seed, 5);
    for index in 0..5 {
        world.power_on(index);
        let pause = world.rng.u64(0..=within);
        world.run(pause / 5);
    }
    let is_one = |world: &World| {
        let founder = world.hosts[0].founder();
        world.hosts.iter().all(|host| host.ledger().is_established() && host.founder() == founder)
    };
    world.until(30_000, "all are members of one cluster", is_one);
    world.run(BOUND);
    let network = world.create("10.0.0.0/25");
    world.run(BOUND);
    for index in 0..5 {
        assert!(world.attach(index, network, None).1.is_ok(), "host {index} takes part");
    }
    world.settle();
}

#[test]
fn hosts_that_are_all_new_found_one_cluster_by_themselves() {
    for seed in 0..10 {
        new_hosts_found_one_cluster(seed, 0);
        new_hosts_found_one_cluster(seed, 20_000);
    }
}
