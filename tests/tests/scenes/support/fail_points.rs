//! Agents that are killed at each of their durable writes.

use anyhow::{Context, bail};

/// More writes than any round takes.
const MANY: u32 = 60;

/// Plays rounds, with an agent that is killed at the first durable write, at the second, and so on. A round returns whether an
/// agent was killed in it: the last one has fewer writes. Returns the number of rounds with a kill.
pub fn at_every(point: &str, mut play: impl FnMut(u32) -> anyhow::Result<bool>) -> anyhow::Result<u32> {
    for nth in 1..MANY {
        if !play(nth).with_context(|| format!("{point}:{nth}"))? {
            return Ok(nth - 1);
        }
    }
    bail!("there is no end of durable writes")
}
