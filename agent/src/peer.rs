//! What agents ask of each other, over mutual TLS. A host is known by the hash of its key, and it is a member because
//! that hash is in the sealed gossip: no certificate authority, no names, no expiry.
//!
//! - [`Service`] answers the other agents, [`Peers`] asks them; `connections` keeps a connection to each of them.
//! - `accept` takes connections and limits those that have not proved who they are; `tls` is the proof.

mod accept;
mod client;
mod connections;
mod service;
mod tls;

pub(crate) use accept::ACCEPT_PAUSE;
pub use accept::Refusals;
pub use client::{CallError, Peers};
pub use service::Service;

#[cfg(test)]
pub(crate) mod tests;
