//! Fail points: where the daemon kills itself if a test tells it to, so that the test sees what such an end leaves behind.
//! Nothing of it is in a build without the feature `fail-points`.

/// A place on the way of a durable write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// All is written, and not yet durable.
    BeforeCommit,
    /// It is durable, and nobody knows.
    AfterCommit,
    /// The host acts on it and says it, but who asked has no answer.
    BeforeAnswer,
    /// The host has given its identity up, durably, and its endpoints are still there.
    Fenced,
}

/// The daemon is there. It goes on, unless it is told otherwise.
#[cfg(not(feature = "fail-points"))]
pub(crate) fn reach(_: Point) {}

#[cfg(feature = "fail-points")]
pub(crate) use armed::reach;

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    /// `POINT:N`: where, and the how many-th time since the start.
    const VARIABLE: &str = "OVERLAYD_FAIL_POINT";

    static ARMED: LazyLock<Option<(Point, u64)>> = LazyLock::new(|| {
        let said = std::env::var(VARIABLE).ok()?;
        Some(parse(&said).unwrap_or_else(|| {
            eprintln!(
                "overlayd: {VARIABLE} `{said}`: expected before-commit:N, after-commit:N, before-answer:N or fenced:N"
            );
            std::process::exit(2)
        }))
    });

    pub(crate) fn reach(point: Point) {
        static TIMES: AtomicU64 = AtomicU64::new(0);
        let Some((armed, nth)) = *ARMED else { return };
        if armed == point && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process may kill itself");
            loop {
                // Nothing more is done here until the kernel has done it.
                std::thread::park();
            }
        }
    }

    fn parse(said: &str) -> Option<(Point, u64)> {
        let (point, nth) = said.split_once(':')?;
        let point = match point {
            "before-commit" => Point::BeforeCommit,
            "after-commit" => Point::AfterCommit,
            "before-answer" => Point::BeforeAnswer,
            "fenced" => Point::Fenced,
            _ => return None,
        };
        Some((point, nth.parse().ok()?))
    }
}
