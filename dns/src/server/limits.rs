//! How much the servers take on, in all and for each network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use overlay::model::id::NetworkId;
use tokio::sync::Semaphore;

/// How much the servers take on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Questions a second from one client, in the long run. What comes faster waits for up to a second.
    pub rate: u32,
    /// Questions from one client at once.
    pub burst: u32,
    /// Questions of one network that wait, because their clients ask too often or too much is being forwarded.
    pub waiting_each: usize,
    /// Questions being forwarded, in all: each has a socket for each nameserver that is asked.
    pub forwards: usize,
    /// The same for each network, so that one leaves some to the others.
    pub forwards_each: usize,
    /// TCP connections, in all.
    pub connections: usize,
    /// The same for each network.
    pub connections_each: usize,
}

impl Default for Limits {
    /// At most 896 file descriptors: 256 questions with three nameservers each, and 128 connections.
    fn default() -> Self {
        Self {
            rate: 1_000,
            burst: 2_000,
            waiting_each: 1_024,
            forwards: 256,
            forwards_each: 64,
            connections: 128,
            connections_each: 32,
        }
    }
}

/// What the listeners of one network share.
#[derive(Debug)]
pub(super) struct NetworkLimits {
    pub waiting: Semaphore,
    pub forwards: Semaphore,
    pub connections: Arc<Semaphore>,
}

/// The networks that are served.
#[derive(Debug, Default)]
pub(super) struct Networks(Mutex<HashMap<NetworkId, Weak<NetworkLimits>>>);

impl Networks {
    /// What is left of the limits of a network: the same as long as one of its listeners is there.
    pub(super) fn limits_of(&self, network: NetworkId, limits: Limits) -> Arc<NetworkLimits> {
        let mut networks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        networks.retain(|_, limits| limits.strong_count() > 0);
        if let Some(limits) = networks.get(&network).and_then(Weak::upgrade) {
            return limits;
        }
        let Limits { waiting_each, forwards_each, connections_each, .. } = limits;
        let limits = Arc::new(NetworkLimits {
            waiting: Semaphore::new(waiting_each),
            forwards: Semaphore::new(forwards_each),
            connections: Arc::new(Semaphore::new(connections_each)),
        });
        networks.insert(network, Arc::downgrade(&limits));
        limits
    }
}
