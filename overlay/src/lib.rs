//! The idea of the overlay network, as values and pure functions.
//!
//! ```text
//!  records ─► cluster ──┐
//!                       ├─► desired ─► plan(observed, desired) ─► apply ─► report
//!  intents + ledger ────┘                  ▲                        │
//!                                          └────── observe ◄────────┘
//! ```
//!
//! Read [`plan`] first: everything else exists to feed it or to obey it.
//!
//! - [`id`], [`addr`], [`network`], [`endpoint`], [`host`], [`lease`], [`member`], [`member`]: the words, parsed once and never wrong.
//! - [`record`] is what hosts say of themselves, [`said`] how it comes about and who hears it; [`cluster`] is what all of it means together.
//! - [`admission`] says who founds a cluster and who joins one.
//! - [`links`] say which containers reach each other where not all do.
//! - [`intent`] is what this host was asked for; [`ledger`] is which addresses it may use.
//! - [`desired`] and [`observed`] are kernel state as it should be and as it is; [`firewall`] is its rules, and [`gates`] the rules
//!   of others that ours have to get along with.
//! - [`report`] is what became of a plan; [`fake`] is a kernel in memory that obeys the same conformance suite.
//! - `kernel`, with the feature of that name, is the real one: the only code here with effects.
//!
//! Without that feature this crate knows no clock, no randomness and no I/O: time and liveness are arguments.

pub mod addr;
pub mod admission;
pub mod cluster;
pub mod desired;
pub mod endpoint;
pub mod fake;
pub mod firewall;
pub mod gates;
pub mod host;
pub mod id;
pub mod intent;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod lease;
pub mod ledger;
pub mod links;
pub mod member;
pub mod network;
pub mod observed;
pub mod plan;
pub mod publish;
pub mod record;
pub mod report;
pub mod said;
