//! The lab: hosts as network namespaces on a switch, real `overlayd` in them, and ways to hurt them.
//!
//! - [`sandbox`] is the private world that everything happens in; nothing of it outlives the process.
//! - [`lab`] is what scenes and the demo see: hosts, agents, containers, the wire between the hosts.
//! - [`tool`] is what the program `labtool` does inside the hosts.
//! - [`eventually`] is how they wait.

#![deny(unsafe_code)]

pub mod eventually;
pub mod lab;
#[expect(unsafe_code, reason = "`set_var`, while there is one thread")]
pub mod sandbox;
#[expect(unsafe_code, reason = "`fork`, while there is one thread")]
mod supervise;
pub mod tool;
