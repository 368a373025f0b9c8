//! Kernel state: as it should be, as it is, and the steps from one to the other.
//!
//! [`desired`] follows from cluster and intents, [`observed`] from a look at the kernel. [`plan`](mod@plan) compares them, and
//! [`round`] runs one round on a [kernel](kernel_api): look, plan, apply, [`report`].
//! [`attention`] decides which parts a round looks at, [`rounds`] remembers what that takes from one round to the next,
//! [`announcer`] what containers have to be told, [`contested`] what others undo, and [`status`] says how the last one ended. [`firewall`] has our packet filter rules as values, [`foreign_chains`] decides about the
//! chains of other programs. [`inspected`] is what people are shown of the kernel.

pub mod announcer;
pub mod attention;
pub mod contested;
pub mod desired;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod firewall;
pub mod foreign_chains;
pub mod inspected;
pub mod kernel_api;
pub mod names;
pub mod observed;
pub mod plan;
pub mod report;
pub mod round;
pub mod rounds;
pub mod status;
