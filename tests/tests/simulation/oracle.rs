//! Sees all hosts at once, and says what no host could: that the promises hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overlay::cluster::{Cluster, Located};
use overlay::ledger::{Account, Denial, Input, Outcome};
use overlay::model::host::Liveness;
use overlay::model::id::{HostId, NetworkId};
use overlay::model::lease::Holder;
use overlay::model::network::BlockId;
use overlay::model::record::Statement;
use overlay::operations::forget::named;

use crate::host::{Host, Power, peer};
use crate::world::World;

/// Long enough for all that was cut, killed or off to be whole again.
const SETTLE: u64 = 60_000;
/// How often the operator then looks whether there is a host to forget.
const ROUNDS: u32 = 12;
/// And how often whether what is owed has arrived.
const MOMENTS: u32 = 40;
const MOMENT: u64 = 250;

impl World {
    /// What holds at any time, whatever happened.
    pub fn check(&self) {
        let trusted = |host: &&Host| host.power != Power::Off && host.ledger().is_established();
        let mut blocks = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for host in self.hosts.iter().filter(trusted) {
            for (network, account) in host.ledger().accounts() {
                let (made, founder) = (self.made.get(network).copied(), host.ledger().membership().founder);
                assert_eq!(made, founder, "host {} has leases of a network of another cluster", host.index);
                for (block, _) in account.held_by(host.id) {
                    let rival = blocks.insert((*network, block), host.index);
                    assert_eq!(rival, None, "S1: host {} holds {block:?} of {network} as well", host.index);
                }
                for address in account.borrowed(host.id).into_keys() {
                    let rival = addresses.insert((*network, address), host.index);
                    assert_eq!(rival, None, "S2: host {} has borrowed {address} of {network} as well", host.index);
                }
            }
        }
        for ((network, address), borrower) in &addresses {
            // At home it is only where its block is, and of that there is one holder.
            let block = self.hosts[*borrower].ledger().accounts()[network].network.block_of(*address);
            let Some(holder) = block.and_then(|block| blocks.get(&(*network, block))) else { continue };
            let host = &self.hosts[*holder];
            let account = &host.ledger().accounts()[network];
            let lent = account.addresses.get(address).is_some_and(|lease| matches!(lease.holder, Holder::Host(_)));
            let used = holder != borrower && !lent && account.may_use(host.id, *address).is_some();
            assert!(!used, "S2: {address} of {network} is lent to host {borrower} and used at home, on host {holder}");
        }
        for ((network, address), (index, endpoint)) in &self.live {
            let host = &self.hosts[*index];
            let bound = host.ledger().accounts().get(network).and_then(|a| a.bound.get(address));
            assert_eq!(bound, Some(endpoint), "host {index} uses {address} of {network} and does not know it");
        }
    }

    /// Everything is healed and left alone: after a while all hosts are members, see the same, and have done it.
    pub fn settle(&mut self) {
        self.part.fill(0);
        self.loss = 0;
        self.insists = true;
        self.spare_all();
        for index in 0..self.hosts.len() {
            self.op_start(index);
        }
        self.run(SETTLE);
        while self.op_trust() {
            self.run(SETTLE / 4);
        }
        // Of one that had come back, or was forgotten after another, it has to be said again.
        for round in 0..ROUNDS {
            // An old disk waits for those who wait for it.
            let some = self.forget_all_that_is_gone() | (round > 0 && self.give_up_disks());
            self.run(SETTLE / 4);
            if !some && round > 0 {
                break;
            }
        }
        // What began to go home last may be on its way.
        for _ in 0..MOMENTS {
            if self.hosts.iter().all(|host| host.ledger().accounts().values().all(|account| account.outbox.is_empty()))
            {
                break;
            }
            self.run(MOMENT);
        }
        self.check();
        self.check_that_no_space_is_lost();
        for index in 0..self.hosts.len() {
            let host = &self.hosts[index];
            if !host.ledger().is_established() || !host.ledger().membership().forgets.is_empty() {
                self.explain_members();
            }
            assert!(host.ledger().is_established(), "host {index}: {:?}", host.ledger().membership().activation);
            assert!(host.is_settled(), "host {index}: its kernel is not as the cluster calls for");
            let owed: Vec<_> =
                host.ledger().accounts().iter().flat_map(|(n, a)| a.outbox.iter().map(|s| (*n, *s))).collect();
            for (network, statement) in &owed {
                self.explain(*network, statement);
            }
            assert_eq!(owed, [], "host {index} owes leases that nobody takes");
            assert_eq!(host.ledger().membership().forgets.len(), 0, "host {index} waits to forget a host");
            self.check_peers(host);
            let of_its_cluster = |other: &&Host| other.founder() == host.founder();
            let members: BTreeSet<HostId> = self.hosts.iter().filter(of_its_cluster).map(|host| host.id).collect();
            let known: BTreeSet<HostId> = host.ledger().membership().others().chain([host.id]).collect();
            assert_eq!(known, members, "host {index} takes others for the members of its cluster");
            let peer = self.hosts.iter().position(|other| of_its_cluster(&other)).expect("it is one itself");
            let (seen, first) = (self.meaning(index), self.meaning(peer));
            assert_eq!(seen.hosts.keys().collect::<Vec<_>>(), first.hosts.keys().collect::<Vec<_>>(), "{index}");
            assert_eq!(seen.networks, first.networks, "hosts {peer} and {index} see different networks");
            assert!(seen == first, "hosts {peer} and {index} see different clusters");
        }
    }

    /// A host keeps on its disk where all others are, and nothing of those that are forgotten.
    fn check_peers(&self, host: &Host) {
        for (id, at) in &*host.state.peers {
            assert!(
                !host.ledger().membership().is_forgotten(*id),
                "host {} keeps where {} was",
                host.index,
                id.short()
            );
            let is_there = self.index(*id).is_none_or(|index| *at == peer(index));
            assert!(is_there, "host {} takes {} to be at {at}", host.index, id.short());
        }
        let others = self.hosts.iter().filter(|other| other.id != host.id);
        let unknown: Vec<usize> =
            others.filter(|other| !host.state.peers.contains_key(&other.id)).map(|o| o.index).collect();
        assert_eq!(unknown, [], "host {} does not keep where they are", host.index);
    }

    /// All of a network is held by hosts that are there, or was given to one that turned out to belong to another cluster.
    /// Unless not all were asked by force: what only those know of stays with the forgotten. Or the disk of the one who created
    /// the network was set back: what nobody had heard of, that host has forgotten itself.
    fn check_that_no_space_is_lost(&self) {
        if self.seen.0.contains_key("forget: by force") {
            return;
        }
        let of_host = |host: &Host, (id, account): (&NetworkId, &Account)| {
            account.held_by(host.id).map(|(block, _)| (*id, block)).collect::<Vec<_>>()
        };
        let of_all = self
            .hosts
            .iter()
            .flat_map(|host| host.ledger().accounts().iter().flat_map(|(id, a)| of_host(host, (id, &**a))));
        let held: BTreeSet<(NetworkId, BlockId)> = of_all.collect();
        for host in &self.hosts {
            let (membership, deleted) = (host.ledger().membership(), host.ledger().tombstones());
            let is_there = |id: &HostId| *id == host.id || membership.others().any(|other| other == *id);
            let is_excused = |id: &HostId| membership.foreign.contains(id) || self.set_back.contains(id);
            // A forgotten host may have been the only one that announced a network. A host that heard of the network after it had
            // sealed that host, and so could not tell the heir, still remembers it, but no host shows the network.
            let is_shown = |id: &NetworkId| self.hosts.iter().any(|host| host.cluster.networks.contains_key(id));
            let there = host.ledger().accounts().iter().filter(|(id, _)| !deleted.contains(id) && is_shown(id));
            for (id, account) in there {
                for block in account.network.blocks().filter(|block| !held.contains(&(*id, *block))) {
                    let lease =
                        self.hosts.iter().filter_map(|host| host.ledger().accounts().get(id)?.blocks.get(&block));
                    let lease = lease.max_by_key(|lease| lease.epoch);
                    let holder = lease.map_or(account.network.creator, |lease| lease.holder);
                    // What a host that is dead gave it, it may never have heard of.
                    let was_given = is_there(&holder) && lease.is_some_and(|lease| lease.epoch > 1);
                    let is_lost = !was_given && !is_excused(&holder);
                    if is_lost {
                        self.explain_members();
                    }
                    assert!(!is_lost, "{block:?} of {id} is lost, with {}", holder.short());
                }
                // Only the holder of a block has to know where its addresses are.
                let lent = account.addresses.iter().filter_map(|(address, lease)| {
                    let block = account.block_lease(*address).filter(|block| block.holder == host.id)?;
                    match lease.holder {
                        Holder::Host(borrower) if block.epoch == lease.version.epoch => Some((address, borrower)),
                        _ => None,
                    }
                });
                for (address, borrower) in lent {
                    assert!(
                        is_there(&borrower) || is_excused(&borrower),
                        "{address} of {id} is lost with {}, as host {} sees it",
                        borrower.short(),
                        host.index
                    );
                }
            }
        }
    }

    /// How many clusters there were to the end, and who was taken for a member of one and belongs to another.
    pub fn note_clusters(&mut self) {
        let founders: BTreeSet<_> = self.hosts.iter().map(Host::founder).collect();
        if founders.len() > 1 {
            self.seen.note("two clusters to the end");
        }
        for _ in 0..self.hosts.iter().map(|host| host.disowned).sum() {
            self.seen.note("taken for a member, and of another cluster");
        }
    }

    /// What each host knows of what a statement is about: for the one who looks into a failure.
    fn explain(&self, network: NetworkId, statement: &Statement) {
        println!("{statement:?} of {network}:");
        for host in &self.hosts {
            let account = host.ledger().accounts().get(&network);
            let known = account.map(|account| match statement {
                Statement::Transfer { block, .. } => (account.blocks.get(block).copied(), None),
                Statement::Delegate { address, .. } | Statement::Return { address, .. } => {
                    (account.block_lease(*address), account.addresses.get(address).copied())
                }
            });
            println!("  {} {} {known:?} {:?}", host.index, host.id.short(), host.ledger().membership().seals);
        }
    }

    /// What each host knows of the members, for the same.
    fn explain_members(&self) {
        let short = |hosts: &mut dyn Iterator<Item = HostId>| hosts.map(|id| id.short()).collect::<Vec<_>>().join(" ");
        for host in &self.hosts {
            let membership = host.ledger().membership();
            println!("  {} {} {:?} {:?}", host.index, host.id.short(), host.power, membership.activation);
            println!("    members {}", short(&mut membership.others()));
            println!("    seals {:?}", membership.seals);
            for (of, forget) in &membership.forgets {
                let missing = short(&mut host.ledger().missing(*of).into_iter());
                println!("    forgets {} of boot {:?}, waits for {missing}", of.short(), forget.boot);
            }
        }
    }

    /// The operator forgets the identities that nobody has any more, wherever `host ls` shows some; false if there are none.
    fn forget_all_that_is_gone(&mut self) -> bool {
        let present: Vec<HostId> = self.hosts.iter().map(|host| host.id).collect();
        let mut some = false;
        for by in 0..self.hosts.len() {
            let ledger = self.hosts[by].ledger();
            let membership = ledger.membership();
            let mut gone: BTreeSet<HostId> = membership.others().filter(|id| !present.contains(id)).collect();
            // And those that it waits to forget since it was said of them, together, as it asks for.
            gone.extend(membership.forgets.keys());
            // A host that has come back is refused by its name.
            let cluster = &self.hosts[by].cluster;
            let gone: Vec<HostId> =
                gone.into_iter().filter(|id| named(ledger, cluster, *id).boot().is_some()).collect();
            if gone.is_empty() || !ledger.is_established() {
                continue;
            }
            some = true;
            let outcome = self.forget(by, &gone);
            // Of several heirs the lowest goes on.
            let goes_on = matches!(outcome, Outcome::Done | Outcome::Denied(Denial::Rival { .. }));
            assert!(goes_on, "host {by} can't forget what is gone: {outcome:?}");
        }
        some
    }

    /// The operator says that these are off, and insists if they are many.
    pub fn forget(&mut self, by: usize, hosts: &[HostId]) -> Outcome {
        let heir = &self.hosts[by];
        let boot = |host: &HostId| Some((*host, named(heir.ledger(), &heir.cluster, *host).boot()?));
        let hosts: BTreeMap<_, _> = hosts.iter().filter_map(boot).collect();
        let said = |force| Input::Forget { hosts: hosts.clone(), force };
        let outcome = match self.step(by, &said(false)) {
            Some(Outcome::Denied(Denial::TooMany)) if self.insists => {
                self.seen.note("forget: by force");
                self.step(by, &said(true))
            }
            outcome => outcome,
        };
        // Killed at it, the host may have written it all the same.
        if matches!(outcome, None | Some(Outcome::Done)) {
            self.forgotten.extend(hosts.into_keys());
        }
        outcome.unwrap_or(Outcome::Denied(Denial::Joining))
    }

    /// What a host sees, but for itself being nearer to itself.
    fn meaning(&self, index: usize) -> Cluster {
        let mut cluster = Cluster::clone(&self.hosts[index].cluster);
        let gone: Vec<HostId> = cluster.forgotten.keys().copied().collect();
        gone.into_iter().for_each(|id| drop(cluster.forgotten.remove(&id)));
        cluster.hosts.values_mut().for_each(|host| Arc::make_mut(host).generation = 0);
        // The old identities of hosts that were fenced before anybody forgot them stay for the operator to forget.
        cluster.hosts.retain(|_, host| host.liveness != Liveness::Dead);
        // One may be late for a moment.
        cluster.hosts.values_mut().for_each(|host| Arc::make_mut(host).liveness = Liveness::Live);
        for view in cluster.networks.values_mut().map(Arc::make_mut) {
            let there = view.endpoints.values().filter(|located| located.liveness != Liveness::Dead);
            view.endpoints = there.map(|located| Located { liveness: Liveness::Live, ..located.clone() }).collect();
        }
        cluster
    }
}
