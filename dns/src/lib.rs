//! Names of the overlay networks: who is called what, and a DNS server in each network that says so.
//!
//! ```text
//!  cluster ─► zone ─► answer(zone, asker, question) ─┬─► records, NODATA or NXDOMAIN, at once
//!                                                    └─► forward: the host's own nameservers
//! ```
//!
//! - [`zone`] and [`answer`] are pure: what exists, and what an endpoint is told about it.
//! - [`forward`] asks the nameservers of the host's `resolv.conf` about everything else.
//! - [`server`] is the shell: sockets, limits and counters around the two, on hickory-server.
//!
//! An endpoint is told of the networks that it is in and of no others; that is the promise this crate exists for.
//! It never opens a socket in a network: those are made inside the network's namespace and given to
//! [`server::Resolver::listen`].

#![forbid(unsafe_code)]
// Not for tests, and not in the workspace yet: a new case of an enum must be looked at wherever the enum is matched.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod answer;
pub mod forward;
pub mod server;
pub mod zone;

mod counts;
mod limit;
mod resolv_conf;
mod reverse;
mod tcp;

#[cfg(test)]
mod fixture;
