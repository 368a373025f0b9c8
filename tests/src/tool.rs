//! What the program `labtool` does inside the lab's hosts. The lab itself only starts and stops it.

pub mod capture;
pub mod enter;
pub mod flow;
pub mod host;
pub mod names;
pub mod sctp;
pub mod stream;
pub mod visit;
