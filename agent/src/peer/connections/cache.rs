//! What is kept of the connections: at most one per host, at most so many, the least recently used goes first. Pure: time is
//! an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay::model::id::HostId;
use tokio::time::Instant;

use super::Route;

#[derive(Debug)]
pub(super) struct Cache<V> {
    limit: usize,
    next: u64,
    entries: BTreeMap<HostId, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    route: Route,
    number: u64,
    used: Instant,
    value: V,
}

impl<V: Clone> Cache<V> {
    /// An empty one that holds at most `limit`, which is more than zero.
    pub fn new(limit: usize) -> Self {
        Self { limit, next: 0, entries: BTreeMap::new() }
    }

    /// The value of exactly this route, with its number. It counts as used now.
    pub fn get(&mut self, route: Route, now: Instant) -> Option<(u64, V)> {
        let entry = self.entries.get_mut(&route.host).filter(|entry| entry.route == route)?;
        entry.used = now;
        Some((entry.number, entry.value.clone()))
    }

    /// Takes the place of what was there for this host; returns the number.
    pub fn insert(&mut self, route: Route, value: V, now: Instant) -> u64 {
        self.next += 1;
        self.entries.insert(route.host, Entry { route, number: self.next, used: now, value });
        if self.entries.len() > self.limit {
            let oldest =
                self.entries.iter().filter(|(host, _)| **host != route.host).min_by_key(|(_, e)| (e.used, e.number));
            let oldest = oldest.map(|(host, _)| *host);
            oldest.and_then(|host| self.entries.remove(&host));
        }
        self.next
    }

    /// Removes what has this number, and not what has taken its place since.
    pub fn remove(&mut self, host: HostId, number: u64) {
        if self.entries.get(&host).is_some_and(|entry| entry.number == number) {
            self.entries.remove(&host);
        }
    }

    /// Keeps what was used within the last `idle`, if its route is still good.
    pub fn retain(&mut self, (now, idle): (Instant, Duration), is_good: impl Fn(&Route) -> bool) {
        self.entries.retain(|_, entry| entry.used + idle > now && is_good(&entry.route));
    }

    /// When that was used which was not used for the longest time.
    pub fn least_recent_use(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.used).min()
    }
}

#[cfg(test)]
mod tests;
