//! What becomes of disks: copies are made of them, and put back; they are wiped; and whole machines are copied.

use std::sync::Arc;

use overlay::ledger::{Activation, Input, Millis};
use overlay::model::id::HostId;

use crate::host::{Disk, Host, Power};
use crate::world::World;

/// Within this a host whose disk is a copy has found out, where nothing is cut off.
const CHECKED: Millis = 60_000;
/// Within this all hear each other, after they were switched on.
const WHOLE: Millis = 5_000;
/// Within this a host that is cut off is not heard any more.
const CUT_OFF: Millis = 10_000;
/// How long it is left alone at a time meanwhile.
const MOMENT: Millis = 100;

impl World {
    /// Somebody copies the disk of a host, as it is at this moment.
    pub fn op_copy_disk(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        // An identity is made in its first boot: before, there is nothing to copy.
        if host.ledger().membership().boot.generation > 0 {
            host.image = Some(host.disk());
        }
    }

    /// A machine loses power and its disk.
    pub fn op_wipe(&mut self, index: usize) {
        if self.is_spared(index) {
            return;
        }
        self.power_off(index);
        let stranger = self.stranger(index);
        self.replace(index, stranger);
        self.seen.note("disk wiped");
    }

    /// A machine loses power, and a copy of its disk that was made some time ago is put in.
    pub fn op_restore(&mut self, index: usize) {
        let Some(image) = self.hosts[index].image.clone().filter(|_| !self.is_spared(index)) else { return };
        // If not all are asked, those that can be reached must be all, or nobody may know better.
        if !self.is_strict {
            let is_whole = self.make_whole_but_for(index);
            let founder = image.state.ledger.membership().founder;
            // One that it once took for a member may belong to another cluster by now, or have had this machine since.
            let testifies = |host: &Host| host.ledger().is_established() && host.founder() == founder;
            let acts = |id: HostId| self.index(id).is_some_and(|at| at != index && testifies(&self.hosts[at]));
            if !is_whole || !image.state.ledger.membership().others().any(acts) {
                return;
            }
        }
        let id = image.id;
        self.set_back.insert(id);
        self.put_in(index, image);
        self.seen.note("old disk put back");
        if self.is_strict {
            return;
        }
        self.power_on(index);
        let is_done = |host: &Host| host.id != id || host.ledger().is_established();
        self.leave_alone_until("an old disk is known for one", |world| is_done(&world.hosts[index]));
    }

    /// The whole machine of a host that runs is copied, and the copy takes the place of another one.
    pub fn op_copy_machine(&mut self, index: usize) {
        let of = self.rng.usize(0..self.hosts.len());
        let acts = self.hosts[of].power == Power::On && self.hosts[of].ledger().is_established();
        if of == index || !acts || self.is_spared(index) || !self.make_whole_but_for(index) {
            return;
        }
        // Somebody has to hear both.
        let founder = self.hosts[of].founder();
        let hears_both = |host: &&Host| host.ledger().is_established() && host.founder() == founder;
        if self.hosts.iter().filter(hears_both).all(|host| host.index == of || host.index == index) {
            return;
        }
        let (id, disk) = (self.hosts[of].id, self.hosts[of].disk());
        self.copied.insert(id);
        self.put_in(index, disk);
        self.power_on(index);
        self.leave_alone_until("a copy gives the identity up", |world| world.hosts[index].id != id);
        let host = &self.hosts[of];
        assert!(host.id == id && host.ledger().is_established(), "host {of} itself was hurt");
        self.seen.note("machine copied");
    }

    /// The same, while the host itself is cut off: the others let the copy in. As soon as the one hears the other, the one that
    /// booted first gives up.
    pub fn op_copy_machine_apart(&mut self, index: usize) {
        let of = self.rng.usize(0..self.hosts.len());
        let acts = self.hosts[of].power == Power::On && self.hosts[of].ledger().is_established();
        let spared = self.is_spared(index) || self.is_spared(of);
        // Where all are asked, the copy waits for the identity whose machine it has taken.
        if of == index || !acts || spared || self.is_strict || !self.make_whole_but_for(index) {
            return;
        }
        let (id, disk) = (self.hosts[of].id, self.hosts[of].disk());
        let founder = self.hosts[of].founder();
        let lets_in = |host: &&Host| host.ledger().is_established() && host.founder() == founder;
        // What the host was asked for and not told yet, the copy has not done.
        let is_owed = |host: &Host| host.ledger().accounts().values().any(|account| !account.outbox.is_empty());
        let others = self.hosts.iter().filter(lets_in).filter(|host| host.index != of && host.index != index);
        if others.count() == 0 || self.hosts.iter().any(is_owed) {
            return;
        }
        self.copied.insert(id);
        self.put_in(index, disk);
        self.part[of] = 1;
        self.run(CUT_OFF);
        self.places.insert(id, index);
        self.hosts[index].own.generation = self.hosts[index].own.generation.max(self.hosts[of].own.generation);
        self.power_on(index);
        // What both do under one identity until they hear of each other, nobody can promise.
        self.run_until("the copy is let in or gives up", |world| {
            let copy = &world.hosts[index];
            copy.id != id || copy.ledger().is_established()
        });
        if self.hosts[index].id == id {
            self.seen.note("a copy acts beside its host");
        }
        self.part[of] = 0;
        self.run_until("one of two who act under one identity gives up", |world| {
            [of, index].iter().filter(|host| world.hosts[**host].id == id).count() < 2
        });
        if self.hosts[index].id == id {
            self.hosts[index].is_copy = false;
        } else if self.hosts[of].id == id {
            self.places.insert(id, of);
        } else {
            // Two boots from one disk: neither is the newer.
            self.places.remove(&id);
        }
        self.check();
    }

    /// Gossip brings a host what is said elsewhere under its own id.
    pub fn meet_twin(&mut self, index: usize) {
        let host = &self.hosts[index];
        let mut others = self.hosts.iter().filter(|other| other.id == host.id && other.index != index);
        let Some(other) = others.next().filter(|other| other.power == Power::On) else { return };
        let (other, record) = (other.index, Arc::clone(&other.own.record));
        if self.passes(other, index) {
            self.hosts[index].agent.hear_of_itself(record);
        }
    }

    /// The operator answers for a disk that is the host's own, where nobody of a cluster may act, or where it takes all to let it
    /// in: those who wait, and those who forget whom they wait for, would wait for each other. False if there is none.
    pub fn op_trust(&mut self) -> bool {
        let is_unchecked = |host: &&Host| {
            let waits = matches!(host.ledger().membership().activation, Activation::Unchecked { .. });
            waits && host.power == Power::On && !host.is_copy && !self.forgotten.contains(&host.id)
        };
        let acts = |founder| self.hosts.iter().any(|h| h.ledger().is_established() && h.founder() == founder);
        let waits = self.hosts.iter().filter(is_unchecked).find(|host| self.is_strict || !acts(host.founder()));
        let Some(index) = waits.map(|host| host.index) else { return false };
        if self.step(index, &Input::Trust).is_some() {
            self.seen.note("disk trusted");
        }
        true
    }

    /// For a disk that nobody can answer for, or of a host that was to be forgotten, the operator starts the host without one;
    /// false if there is none.
    pub fn give_up_disks(&mut self) -> bool {
        let is_unfit = |host: &Host| host.is_copy || self.forgotten.contains(&host.id);
        let waits = |host: &&Host| is_unfit(host) && !host.ledger().is_established();
        let waiting: Vec<usize> = self.hosts.iter().filter(waits).map(|host| host.index).collect();
        for index in &waiting {
            self.renew(*index);
            self.seen.note("disk given up");
        }
        !waiting.is_empty()
    }

    fn put_in(&mut self, index: usize, disk: Disk) {
        self.power_off(index);
        let mut host = Host::with(disk, index);
        host.is_copy = true;
        self.replace(index, host);
    }

    /// Is it one of the last whose disks know of its cluster? Were those lost, nobody would go on.
    fn is_spared(&self, index: usize) -> bool {
        let Some(founder) = self.hosts[index].founder() else { return false };
        let is_member = |host: &Host| !matches!(host.ledger().membership().activation, Activation::Joining { .. });
        let is_left =
            |host: &&Host| host.index != index && host.founder() == Some(founder) && is_member(host) && !host.is_copy;
        self.hosts.iter().filter(is_left).filter(|host| !self.forgotten.contains(&host.id)).count() < 2
    }

    /// All others are switched on, and nothing is lost or cut off. Do they hear each other soon?
    fn make_whole_but_for(&mut self, index: usize) -> bool {
        self.part.fill(0);
        self.loss = 0;
        for other in (0..self.hosts.len()).filter(|other| *other != index) {
            self.op_start(other);
        }
        self.spare_all();
        self.run(WHOLE);
        let others = || self.hosts.iter().filter(|host| host.index != index);
        let hears_all = |by: &Host| others().all(|host| host.id == by.id || by.hears(host.id));
        let knows_better = |host: &Host| !matches!(host.ledger().membership().activation, Activation::Unchecked { .. });
        others().all(|host| host.power == Power::On && knows_better(host) && hears_all(host))
    }

    /// Nothing is done to anybody until it is so, and what is promised holds all the while.
    fn leave_alone_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.run_until(what, |world| {
            world.check();
            is_so(world)
        });
    }

    /// Nothing is done to anybody until it is so.
    fn run_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + CHECKED;
        while !is_so(self) {
            assert!(self.now < end, "not within {CHECKED} ms: {what}");
            self.run(MOMENT);
        }
    }
}
