//! Addresses for endpoints of this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Account, Ask, Change, Denial, LedgerStep, Millis, Outcome, Rest};
use crate::model::id::{EndpointId, HostId, NetworkId};
use crate::model::lease::{AddressLease, Holder, Version};
use crate::model::network::Name;
use crate::model::record::Statement;

/// An endpoint of this host wants an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRequest {
    /// The network.
    pub network: NetworkId,
    /// The endpoint. Asking again for the same one gives the same answer.
    pub endpoint: EndpointId,
    /// Its name: what it had under that name before it gets again.
    pub name: Name,
    /// The range of the network that the address is to be of: an endpoint has one of each.
    pub range: u8,
    /// The address that it must have; `None` for any.
    pub address: Option<IpAddr>,
    /// The hosts that can be asked now.
    pub reachable: BTreeSet<HostId>,
    /// What was asked before for this request, whatever came of it: nothing is asked twice, so the request comes to an end.
    pub asked: BTreeSet<Ask>,
}

impl Account {
    pub(super) fn allocate(&self, me: HostId, request: &AddressRequest, now: Millis) -> LedgerStep {
        let of_range =
            |address: &IpAddr| self.network.range_of(*address).is_some_and(|(range, _)| range == request.range);
        let is_meant = |address: &IpAddr| of_range(address) && request.address.is_none_or(|wanted| wanted == *address);
        let had = self.bound.iter().find(|(a, e)| **e == request.endpoint && is_meant(a)).map(|(address, _)| *address);
        if let Some((address, lease)) = had.and_then(|a| Some((a, self.may_use(me, a)?))) {
            return LedgerStep { changes: Vec::new(), outcome: Outcome::Granted { address, lease } };
        }
        if let Some(address) = request.address.filter(|a| !of_range(a) || !self.network.assignable(*a)) {
            return LedgerStep::denied(Denial::NotAssignable(address));
        }
        if let Some((address, endpoint)) = request.address.and_then(|a| Some((a, *self.bound.get(&a)?))) {
            return LedgerStep::denied(Denial::Bound { address, endpoint });
        }
        match request.address {
            Some(address) => self.allocate_static(me, request, address),
            None => self.allocate_any(me, request, now),
        }
    }

    /// Whoever comes to a network takes a part of the space along, so that no host holds so much of it that its death
    /// hurts the others. One host is asked, once: where there are no whole blocks to be had, single addresses gathered
    /// from everybody would only hurt them.
    fn ask_as_newcomer(&self, me: HostId, request: &AddressRequest) -> Option<LedgerStep> {
        let newcomer = request.asked.is_empty() && self.held_in(request.range, me).next().is_none();
        newcomer.then(|| self.ask_for_space(me, request)).flatten()
    }

    /// Asks the reachable host that holds most and was not asked yet.
    fn ask_for_space(&self, me: HostId, request: &AddressRequest) -> Option<LedgerStep> {
        let ask = |of: &HostId| Ask::Space { of: *of, range: request.range };
        let holders = self
            .holders(request.range)
            .into_iter()
            .filter(|(of, _)| *of != me && request.reachable.contains(of) && !request.asked.contains(&ask(of)));
        let richest = holders.max_by_key(|(host, blocks)| (*blocks, std::cmp::Reverse(*host)));
        richest.map(|(of, _)| LedgerStep::ask(ask(&of)))
    }

    fn allocate_static(&self, me: HostId, request: &AddressRequest, address: IpAddr) -> LedgerStep {
        if let Some(lease) = self.may_use(me, address) {
            return self.bind(request, address, lease);
        }
        if let Some(step) = self.ask_as_newcomer(me, request) {
            return step;
        }
        let ask = |of| Ask::Address { of, address };
        match self.block_lease(address) {
            Some(block) if block.holder == me => match self.addresses.get(&address).map(|l| l.holder) {
                Some(Holder::Host(to)) => LedgerStep::denied(Denial::Delegated { address, to }),
                Some(Holder::Home) | None => unreachable!("an address at home in a block of ours may be used"),
            },
            Some(block) if request.reachable.contains(&block.holder) && !request.asked.contains(&ask(block.holder)) => {
                LedgerStep::ask(ask(block.holder))
            }
            Some(block) => LedgerStep::denied(Denial::Unreachable { address, holder: block.holder }),
            None => LedgerStep::denied(Denial::Full { holders: self.holders(request.range) }),
        }
    }

    /// What the name had before; else the lowest address that nobody had lately; else, of those that have rested, the one
    /// that has rested longest; else one that is borrowed and idle; else what other hosts give; else, of those that still rest,
    /// the one that has rested longest: rest is a preference, and no reason to refuse an endpoint.
    fn allocate_any(&self, me: HostId, request: &AddressRequest, now: Millis) -> LedgerStep {
        let resting = || self.resting_of(request.range);
        let of_name = resting().filter(|(_, rest)| rest.name.as_ref() == Some(&request.name));
        let kept = of_name.filter_map(|(a, rest)| Some((rest.since, *a, self.may_use(me, *a)?))).max();
        if let Some((_, address, lease)) = kept {
            return self.bind(request, address, lease);
        }
        if let Some(step) = self.ask_as_newcomer(me, request) {
            return step;
        }
        let fresh = || {
            let free = self.held_in(request.range, me).flat_map(|(block, epoch)| self.free_in(block, epoch));
            free.into_iter().find(|a| !self.resting.contains_key(a))
        };
        // Not by going through all that is free: an IPv6 subnet has more of that than time has seconds.
        let rested = || self.longest_resting(me, request.range).filter(|a| self.resting[a].is_over(now));
        let here = fresh().or_else(rested).and_then(|a| Some((a, self.may_use(me, a)?)));
        if let Some((address, lease)) = here.or_else(|| self.spare(me, request, now)) {
            return self.bind(request, address, lease);
        }
        if let Some(step) = self.ask_for_space(me, request) {
            return step;
        }
        // One that has come for a request that asked for it by number rests for no name until that request is made again.
        let is_left =
            |a: &IpAddr, rest: &Rest| self.is_free(me, *a) || (rest.name.is_some() && self.network.is_offered(*a));
        let left = resting().filter(|(a, rest)| is_left(a, rest));
        let usable = left.filter_map(|(a, rest)| Some((rest.since, *a, self.may_use(me, *a)?)));
        match usable.min() {
            Some((_, address, lease)) => self.bind(request, address, lease),
            None => LedgerStep::denied(Denial::Full { holders: self.holders(request.range) }),
        }
    }

    /// Of the free addresses of `me`'s blocks that rest, the one that has rested longest.
    pub(super) fn longest_resting(&self, me: HostId, range: u8) -> Option<IpAddr> {
        let free = self.resting_of(range).filter(|(address, _)| self.is_free(me, **address));
        free.map(|(address, rest)| (rest.since, *address)).min().map(|(_, address)| address)
    }

    /// A borrowed address that is bound to nobody and kept for nobody. One that has just come may be for another request,
    /// which asked for it by number, unless this one has asked as well.
    fn spare(&self, me: HostId, request: &AddressRequest, now: Millis) -> Option<(IpAddr, Version)> {
        let kept = |r: &Rest| !r.is_over(now) && (r.name.is_some() || request.asked.is_empty());
        let idle = |a: &IpAddr| !self.bound.contains_key(a) && !self.resting.get(a).is_some_and(kept);
        let of_range = |a: &IpAddr| self.network.range_of(*a).is_some_and(|(range, _)| range == request.range);
        self.borrowed(me).into_iter().find(|(a, _)| of_range(a) && self.network.is_offered(*a) && idle(a))
    }

    fn bind(&self, request: &AddressRequest, address: IpAddr, lease: Version) -> LedgerStep {
        LedgerStep {
            changes: vec![Change::Bind(self.network.id, address, request.endpoint)],
            outcome: Outcome::Granted { address, lease },
        }
    }

    pub(super) fn release(&self, endpoint: EndpointId, name: &Name, now: Millis) -> Vec<Change> {
        let bound = self.bound.iter().filter(|(_, e)| **e == endpoint);
        bound.map(|(a, _)| Change::Unbind(self.network.id, *a, Rest { name: Some(name.clone()), since: now })).collect()
    }

    /// A borrowed address that has rested goes home, also one that came too late for the endpoint it was borrowed for.
    pub(super) fn tick(&self, me: HostId, now: Millis) -> Vec<Change> {
        let idle = |a: &IpAddr| !self.bound.contains_key(a) && self.resting.get(a).is_some_and(|r| r.is_over(now));
        let go_home = |(address, version): (IpAddr, Version)| {
            let version = Version { count: version.count + 1, ..version };
            let id = self.network.id;
            [
                Change::Rested(id, address),
                Change::Address(id, address, AddressLease { version, holder: Holder::Home }),
                Change::Enqueue(id, Statement::Return { address, version }),
            ]
        };
        self.borrowed(me).into_iter().filter(|(a, _)| idle(a)).flat_map(go_home).collect()
    }
}
