//! The core of the overlay network, as values and pure functions.
//!
//! ```text
//!  records ─► cluster ──┐
//!                       ├─► desired ─► plan(observed, desired) ─► apply ─► report
//!  intents + ledger ────┘                  ▲                        │
//!                                          └────── observe ◄────────┘
//! ```
//!
//! Read [`datapath::plan`] first: everything else exists to feed it or to obey it.
//!
//! - [`model`]: the words, parsed once and never wrong.
//! - [`ledger`]: which addresses this host may use.
//! - [`cluster`]: what hosts say of themselves, and what all of it means together.
//! - [`datapath`]: kernel state as it should be and as it is, and the plan between them.
//! - [`operations`]: what this host decides when it is asked for something, over ledger and intents together.
//! - `kernel`, with the feature of that name: the real kernel, the only code here with effects.
//!
//! Without that feature this crate knows no clock, no randomness and no I/O: time and liveness are arguments. The feature `fake`
//! adds a kernel in memory that obeys the same conformance suite as the real one.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod cluster;
pub mod datapath;
#[cfg(feature = "kernel")]
// Netlink enums are open: a newer kernel may say more.
#[cfg_attr(not(test), allow(clippy::wildcard_enum_match_arm))]
pub mod kernel;
pub mod ledger;
pub mod model;
pub mod operations;
