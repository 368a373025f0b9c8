//! Where errno becomes meaning: nothing outside this file looks at a number.

use std::io;

use nix::errno::Errno;

use crate::datapath::kernel_api::{Cause, StepError};

/// What an errno means for a step.
pub(super) fn cause_of(errno: Errno) -> Cause {
    match errno {
        Errno::EEXIST | Errno::EADDRINUSE | Errno::ENOTUNIQ => Cause::AlreadyExists,
        Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::ENXIO | Errno::EADDRNOTAVAIL => Cause::Gone,
        Errno::EBUSY | Errno::EAGAIN | Errno::EINTR => Cause::Busy,
        Errno::EPERM | Errno::EACCES | Errno::EROFS => Cause::Denied,
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::ENOSYS => Cause::Unsupported,
        Errno::ENOMEM | Errno::ENOSPC | Errno::ENOBUFS => Cause::NoSpace,
        Errno::EMFILE | Errno::ENFILE => Cause::TooManyFiles,
        Errno::EXFULL => Cause::BridgeFull,
        _ => Cause::Refused,
    }
}

/// An error of one of the kernel's interfaces that knows what it means.
pub(super) trait Meaning: std::error::Error + Send + Sync + Sized + 'static {
    fn meaning(&self) -> Cause;

    /// The failure of a step that was `doing` something.
    fn of(self, doing: impl Into<String>) -> StepError {
        StepError::new(doing, self.meaning()).said_by(self)
    }
}

impl Meaning for io::Error {
    fn meaning(&self) -> Cause {
        match self.raw_os_error() {
            Some(errno) => cause_of(Errno::from_raw(errno)),
            None => Cause::Refused,
        }
    }
}

impl Meaning for Errno {
    fn meaning(&self) -> Cause {
        cause_of(*self)
    }
}

impl Meaning for rtnetlink::Error {
    fn meaning(&self) -> Cause {
        match errno(self) {
            Some(errno) => cause_of(errno),
            // The socket's task is gone: the next look opens another one.
            None if matches!(self, Self::RequestFailed) => Cause::Busy,
            None => Cause::Refused,
        }
    }

    fn of(self, doing: impl Into<String>) -> StepError {
        match errno(&self) {
            // Said in the system's words, not in those of a netlink message.
            Some(errno) => errno.of(doing),
            None => StepError::new(doing, self.meaning()).said_by(self),
        }
    }
}

/// The number behind a netlink error; `None` if the kernel was not even asked.
fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw(-message.raw_code())),
        _ => None,
    }
}

/// Does the kernel say that no packet goes to an address? A route may say so, too (`prohibit`, `blackhole`).
pub(super) fn is_no_route(error: &rtnetlink::Error) -> bool {
    matches!(errno(error), Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL))
}

/// Reads as a sentence: `request.await.or_doing(|| "make the bridge")?`.
pub(super) trait OrDoing<T> {
    fn or_doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, StepError>;
}

impl<T, E: Meaning> OrDoing<T> for Result<T, E> {
    fn or_doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, StepError> {
        self.map_err(|error| error.of(doing()))
    }
}

/// A request about something that may well be gone already, or there already.
pub(super) trait Unless<E> {
    /// Success if the refusal means just this.
    fn unless(self, cause: Cause) -> Result<(), E>;
}

impl<E: Meaning> Unless<E> for Result<(), E> {
    fn unless(self, cause: Cause) -> Self {
        match self {
            Err(error) if error.meaning() == cause => Ok(()),
            other => other,
        }
    }
}
