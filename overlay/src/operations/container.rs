//! A container that an endpoint is put into: what its interface is called there, and which of its networks is its way out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::addr::{IfName, Prefixed, Subnet};
use crate::model::intent::{Intents, NetnsRef};
use crate::model::network::Network;

/// A container as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its network namespace.
    pub netns: NetnsRef,
    /// The interfaces in there, with their addresses.
    pub interfaces: BTreeMap<IfName, Vec<Prefixed>>,
}

/// Why a container can't get an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerRefusal {
    /// An interface of that name is there already.
    InterfaceExists(IfName),
    /// An interface in there has an address whose subnet overlaps that of the network: the container would not know where to send.
    Overlaps {
        /// The network's subnet.
        subnet: Subnet,
        /// What it overlaps with.
        address: IpAddr,
        /// Where that is.
        ifname: IfName,
    },
}

impl Container {
    /// What the interface of an endpoint of `network` is called: as was asked for, or the first of eth0, eth1, ... that is free.
    ///
    /// # Errors
    /// When something in the container speaks against it.
    pub fn interface_for(
        &self,
        network: &Network,
        intents: &Intents,
        wanted: Option<&IfName>,
    ) -> Result<IfName, ContainerRefusal> {
        // An interface that the kernel does not have yet, as after a restart, has its name already.
        let promised: BTreeSet<&IfName> =
            intents.together(&self.netns).into_iter().map(|other| &other.ifname).collect();
        let is_taken = |ifname: &IfName| self.interfaces.contains_key(ifname) || promised.contains(ifname);
        let ifname = match wanted {
            Some(ifname) if self.interfaces.contains_key(ifname) => {
                return Err(ContainerRefusal::InterfaceExists(ifname.clone()));
            }
            Some(ifname) => ifname.clone(),
            None => free_ifname(is_taken),
        };
        self.check_subnets(network)?;
        Ok(ifname)
    }

    fn check_subnets(&self, network: &Network) -> Result<(), ContainerRefusal> {
        for (ifname, prefixed) in &self.interfaces {
            for (found, range) in prefixed.iter().flat_map(|p| network.ranges.iter().map(move |r| (p, r))) {
                let theirs = Subnet::of(found.address, found.len);
                if theirs.is_some_and(|theirs| theirs.overlaps(&range.subnet)) {
                    let (subnet, address, ifname) = (range.subnet, found.address, ifname.clone());
                    return Err(ContainerRefusal::Overlaps { subnet, address, ifname });
                }
            }
        }
        Ok(())
    }
}

fn free_ifname(is_taken: impl Fn(&IfName) -> bool) -> IfName {
    let mut names = (0_u32..).map(|n| format!("eth{n}").parse().expect("at most thirteen letters and digits"));
    names.find(|name| !is_taken(name)).expect("a namespace has fewer interfaces than there are numbers")
}

/// Which of a container's networks is its way out: the one with the highest priority, and of several the one that it was
/// connected to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Priority(i16);

/// A number that is no priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway priority {0} is out of range: choose {min} to {max}", min = Priority::MIN, max = Priority::MAX)]
pub struct PriorityError(i32);

impl Priority {
    const MIN: i32 = -1000;
    const MAX: i32 = 1000;
    /// So many networks of one priority can be told apart by the metrics of their routes.
    const STEP: u32 = 100;

    /// The lowest metric of this priority: the kernel takes the route with the lowest (`ip-route(8)`). 0 is that of other programs,
    /// which set none.
    pub fn metric(self) -> u32 {
        (Self::MAX - i32::from(self.0)).unsigned_abs() * Self::STEP + 1
    }

    /// Is it the priority of an attachment with this metric? What an earlier version attached has none, and had the default.
    pub fn is_that_of(self, metric: u32) -> bool {
        self == Self::default() && metric == 0 || (self.metric()..self.metric() + Self::STEP).contains(&metric)
    }

    /// The metric of a new endpoint in a container: after all that came before with the same priority, also if one of them has gone.
    pub(super) fn free_metric(self, intents: &Intents, netns: &NetnsRef) -> u32 {
        let taken: BTreeSet<u32> = intents.together(netns).into_iter().map(|other| other.metric).collect();
        let band = self.metric()..self.metric() + Self::STEP;
        let next = taken.range(band.clone()).next_back().map_or(self.metric(), |last| last + 1);
        if band.contains(&next) {
            next
        } else {
            band.clone().find(|metric| !taken.contains(metric)).unwrap_or(self.metric())
        }
    }
}

impl TryFrom<i32> for Priority {
    type Error = PriorityError;

    fn try_from(number: i32) -> Result<Self, PriorityError> {
        let fits = (Self::MIN..=Self::MAX).contains(&number);
        i16::try_from(number).ok().filter(|_| fits).map(Self).ok_or(PriorityError(number))
    }
}

#[cfg(test)]
mod tests;
