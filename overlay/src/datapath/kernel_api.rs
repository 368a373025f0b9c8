//! What a kernel is to the core: something that can be looked at and that executes steps, and why it refuses one.

use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::net::IpAddr;

use crate::datapath::attention::Look;
use crate::datapath::observed::Observed;
use crate::datapath::plan::Step;

/// A kernel: the real one, or the one in memory. It executes and decides nothing.
pub trait Kernel {
    /// The VTEPs that tunnels lead to: a look at the host's part says what the ways to them carry.
    fn set_peers(&mut self, peers: &BTreeSet<IpAddr>);

    /// All that is ours in these parts, as it is now. Of the other parts the answer has nothing.
    fn observe(&mut self, look: &Look) -> impl Future<Output = Result<Observed, StepError>> + Send;

    /// Executes steps that do not depend on each other, in any order or at once; the results are in their order.
    /// A step that finds its work done succeeds. Without any step it only clears what no observation shows: what is left in
    /// a namespace that lost its path.
    fn apply(&mut self, steps: &[Step]) -> impl Future<Output = Vec<Result<(), StepError>>> + Send;
}

/// Why the kernel refused: errno turned into meaning where it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Cause {
    /// Something of that name or number is there already (EEXIST, EADDRINUSE).
    #[error("something of that name or number is there already")]
    AlreadyExists,
    /// What it is about is not there (ENOENT, ENODEV, ESRCH).
    #[error(
        "the object is gone: check that the container runs and that no other program removes its interfaces; overlayd tries again"
    )]
    Gone,
    /// Somebody else is at it; try again (EBUSY, EAGAIN, EINTR).
    #[error("the kernel is busy: it is tried again")]
    Busy,
    /// A capability is missing (EPERM, EACCES).
    #[error("the kernel denied it: CAP_NET_ADMIN and CAP_SYS_ADMIN are needed")]
    Denied,
    /// This kernel can't do it (EOPNOTSUPP, EPROTONOSUPPORT).
    #[error("this kernel does not support it: use Linux 5.14 or newer with vxlan, bridge, veth and nftables")]
    Unsupported,
    /// Memory, or the disk, or a table is full (ENOMEM, ENOSPC, ENOBUFS).
    #[error("memory, or a table of the kernel, is full: it is tried again")]
    NoSpace,
    /// A bridge takes 1,023 ports (EXFULL; `BR_MAX_PORTS` in Linux), and one of them is the tunnel.
    #[error(
        "the bridge of this network has 1,023 ports, which is the limit of Linux, or 1,022 endpoints on this host: attach on another host, or disconnect one here"
    )]
    BridgeFull,
    /// This process, or all together, may have no more files open (EMFILE, ENFILE).
    #[error(
        "overlayd may have no more files open, and a network takes about a dozen: raise LimitNOFILE= of its unit (`ulimit -n`), or remove a network from this host"
    )]
    TooManyFiles,
    /// Anything else: our mistake (EINVAL and others).
    #[error("the kernel refused it: see `dmesg`, and report it if it stays; it is tried again")]
    Refused,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", why(*cause, detail.as_deref()))]
pub struct StepError {
    /// What was tried, and on which object.
    pub doing: String,
    /// What the refusal means.
    pub cause: Cause,
    /// Where more is known than the number says: who is in the way, and what to do. It is told in the cause's place.
    pub detail: Option<String>,
    /// What the kernel, or the program that talks to it, said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

fn why(cause: Cause, detail: Option<&str>) -> String {
    detail.map_or_else(|| cause.to_string(), str::to_owned)
}

impl StepError {
    /// Trying `doing` failed, as far as is known for this cause only.
    pub fn new(doing: impl Into<String>, cause: Cause) -> Self {
        Self { doing: doing.into(), cause, detail: None, source: None }
    }

    /// The same, as told by `source`.
    #[must_use]
    pub fn said_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    /// The same, with what a person should know instead of the bare cause.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

#[cfg(test)]
mod tests;
