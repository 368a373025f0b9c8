//! Starts gossip, with what this host announces through it.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use overlay::model::id::HostId;
use overlay_gossip::{self as gossip, Announcement, Generations, Gossip, GossipError};

use super::startup::BootstrapPeers;
use super::tasks::Tasks;
use crate::cluster::announce;
use crate::config::Config;
use crate::state;

/// Starts gossip, and keeps it announcing this host's record.
pub(super) async fn start(
    config: &Config,
    me: HostId,
    bootstrap: &BootstrapPeers,
    state: &state::Handle,
    tasks: &mut Tasks,
) -> Result<Gossip, GossipError> {
    let address = SocketAddr::new(config.address, config.port);
    let gossip_config = gossip::Config {
        node: me.to_string(),
        listen: address,
        advertise: address,
        seeds: bootstrap.seeds.clone(),
        expected: bootstrap.expected.clone(),
        interval: config.gossip_interval,
        remembered: gossip::REMEMBERED,
        key: config.key.clone(),
    };
    let record = state.record.clone();
    let (first, _) = announce::readable(&record.borrow(), &Announcement::new());
    let gossip = gossip::spawn(gossip_config, StoredGenerations(state.clone()), first).await?;
    tasks.adopt("the announcements", announce::spawn(record, gossip.announce.clone()));
    Ok(gossip)
}

/// Generations of gossip that are kept on this host's disk. It blocks, on gossip's own thread.
struct StoredGenerations(state::Handle);

impl Generations for StoredGenerations {
    fn next(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.next_generation_blocking(now).unwrap_or_else(|error| {
            tracing::error!(%error, "the generation of this start can't be written to disk");
            now
        })
    }
}
