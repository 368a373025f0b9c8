//! What scenes share: how they are run, and what several of them do or look at.

use std::time::Duration;

pub mod complaint;
pub mod docker;
pub mod fail_points;
pub mod leases;
pub mod members;
pub mod report;
pub mod runner;
pub mod service;
pub mod shares;

pub const SECOND: Duration = Duration::from_secs(1);
pub const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// Tells the reader of a test run how long something took.
pub fn took(what: &str, time: Duration) {
    println!("{:6} ms  {what}", time.as_millis());
}
