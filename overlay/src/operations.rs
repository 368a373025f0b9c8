//! What this host decides: a request comes in, changes come out.
//!
//! [`State`] is all that a host keeps of itself: its ledger and its intents. [`decide`] reads it and changes nothing. The caller
//! makes the [`Change`]s durable, gives them to [`State::apply`], and only then lets the answer leave the host. If the disk
//! refuses, nothing has happened.
//!
//! Each kind of request is a type of its own that implements [`Request`]:
//!
//! - [`attach`]: an endpoint of this host gets addresses, a MAC, an interface name and ports, all in one decision.
//! - [`detach`]: endpoints go, because an operator said so or because their network namespace has gone.
//! - [`publish_port`]: ports of this host lead to an endpoint.
//! - [`define_network`]: networks are created and removed.
//! - [`link`]: in a network where containers reach each other by links only, a link is opened or closed.
//! - [`feed`]: which of what other hosts say this host is still to be told.
//! - [`forget`]: which hosts may be forgotten.
//! - [`hear`]: what other hosts say, what the ledger is asked for, and what was noticed of the underlay.

pub mod attach;
pub mod container;
pub mod define_network;
pub mod detach;
pub mod feed;
#[cfg(test)]
mod fixture;
pub mod forget;
pub mod hear;
pub mod link;
pub mod network_refusal;
pub mod publish_port;
mod state;

pub use state::{Change, Decision, Draft, Request, State, decide};
