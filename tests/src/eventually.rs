//! Bounded waiting: the only place of the lab that sleeps, but for the tools that send at a rate.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks of a wait that is long already: a look often starts programs, and several scenes share a machine.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// The pause after this time of waiting: a twentieth of it, so that it adds little to what is measured.
fn pause(waited: Duration) -> Duration {
    (waited / 20).clamp(PAUSE, LONG_PAUSE)
}

/// Asks `probe` until it has an answer, and says how long that took. An answer counts from the moment at which it was
/// asked for; the last time to ask is the end of `within`.
///
/// # Errors
/// When there is none in time: the probe's last error, under a line that names `what`.
pub fn eventually_in<T>(
    within: Duration,
    what: &str,
    mut probe: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let asked = start.elapsed();
        match probe() {
            Ok(answer) => return Ok((answer, asked)),
            Err(e) if start.elapsed() >= within => {
                return Err(e).with_context(|| format!("{what}: not within {within:?}"));
            }
            Err(_) => thread::sleep(pause(start.elapsed()).min(within.saturating_sub(start.elapsed()))),
        }
    }
}

/// [`eventually_in`] for those who do not care how long it took.
///
/// # Errors
/// As there.
pub fn eventually<T>(within: Duration, what: &str, probe: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eventually_in(within, what, probe).map(|(answer, _)| answer)
}

/// Checks that `probe` goes on being true `during` a time: for what must *not* happen.
///
/// # Errors
/// The probe's first error.
pub fn always(during: Duration, what: &str, mut probe: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < during {
        probe().with_context(|| format!("{what}: no longer so after {:?}", start.elapsed()))?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Lets time pass: for faults that last for a while, and for moments that nothing marks.
pub fn pass(time: Duration) {
    thread::sleep(time);
}
