//! The shell of the overlay network: what the daemon does with the world outside the pure core.
//!
//! ```text
//!  gossip ─► cluster ──────────────┐                         ┌─► dns
//!                                  ├─► reconcile (kernel) ───┤
//!  control ─► operations ─► state ─┘                         └─► status
//!                  │           └─► gossip, peer, membership
//!                  └─► peer (other hosts)
//! ```
//!
//! [`run`] starts them all and hands each the channels and handles that it works with.

#![forbid(unsafe_code)]
// A new case of an enum must be looked at wherever the enum is matched.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod cluster;
pub mod config;
pub mod control;
pub mod dns;
pub mod membership;
pub mod operations;
mod pace;
pub mod peer;
pub mod reconcile;
pub mod run;
pub mod state;
pub mod wire;

/// Runs work that must not be left half done, though its caller may go away: tonic drops a call whose client is gone.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

/// Random bytes for an id.
fn random() -> [u8; 16] {
    let random = ring::rand::generate(&ring::rand::SystemRandom::new());
    random.expect("the system's random numbers are there").expose()
}
