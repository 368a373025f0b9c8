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
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use super::Point;

    /// Names a file. As long as it is there it says `POINT:N`: where, and the how many-th time since the daemon found that
    /// in it. What comes after a blank only tells it from what it said before.
    const VARIABLE: &str = "OVERLAYD_FAIL_POINT";

    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(VARIABLE).map(PathBuf::from));

    /// What the file said, and how often the daemon was there since.
    static TIMES: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

    pub(crate) fn reach(point: Point) {
        let Some(said) = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) else { return };
        let Some((armed, nth)) = parse(&said) else {
            eprintln!(
                "overlayd: {VARIABLE} `{said}`: expected before-commit:N, after-commit:N, before-answer:N or fenced:N"
            );
            std::process::exit(2)
        };
        if armed != point {
            return;
        }
        let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
        if times.0 != said {
            *times = (said, 0);
        }
        times.1 += 1;
        if times.1 == nth {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("a process may kill itself");
            loop {
                // Nothing more is done here until the kernel has done it.
                std::thread::park();
            }
        }
    }

    fn parse(said: &str) -> Option<(Point, u64)> {
        let (point, nth) = said.split_whitespace().next()?.split_once(':')?;
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
