//! How long each scene took, and what kept it from running earlier: `target/scenes.txt`, slowest first.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs};

use anyhow::Context;

use super::shares::Load;

/// One scene that was played.
#[derive(Debug)]
pub struct Played {
    pub group: &'static str,
    pub name: &'static str,
    pub load: Load,
    /// From the start of the run until this scene had its share of the machine.
    pub waited: Duration,
    pub took: Duration,
    /// The processor time of the scene and all that it started.
    pub computed: Duration,
}

/// All scenes that were played, in the order of their ends.
#[derive(Debug, Default)]
pub struct Report(Mutex<Vec<Played>>);

impl Report {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub fn add(&self, played: Played) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(played);
    }

    /// Writes the table of all scenes; nothing, if fewer than two were played.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, whole: Duration) -> anyhow::Result<()> {
        let mut played = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if played.len() < 2 {
            return Ok(());
        }
        played.sort_by_key(|scene| std::cmp::Reverse(scene.took));
        let path = path()?;
        fs::write(&path, table(&played, whole)).with_context(|| format!("can't write {}", path.display()))
    }
}

/// `scenes.txt` in the directory of all that is built: the test is in `target/PROFILE/deps`.
fn path() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(3).context("the test is not in a directory of cargo's")?;
    Ok(target.join("scenes.txt"))
}

fn table(played: &[Played], whole: Duration) -> String {
    let mut text = format!("{} scenes in {:.0} s.\n", played.len(), whole.as_secs_f32());
    for load in [Load::Alone, Load::Heavy, Load::Light] {
        let of = || played.iter().filter(|scene| scene.load == load);
        let (took, computed): (Duration, Duration) =
            (of().map(|scene| scene.took).sum(), of().map(|scene| scene.computed).sum());
        _ = writeln!(
            text,
            "{load:?}: {} scenes took {:.0} s in sum, and {:.0} s of processor time.",
            of().count(),
            took.as_secs_f32(),
            computed.as_secs_f32()
        );
    }
    _ = writeln!(text, "\n{:>7} {:>7} {:>8}  {:<6} scene", "took", "CPU", "waited", "load");
    for Played { group, name, load, waited, took, computed } in played {
        let [took, computed, waited] = [took, computed, waited].map(Duration::as_secs_f32);
        let load = format!("{load:?}").to_lowercase();
        _ = writeln!(text, "{took:5.1} s {computed:5.1} s {waited:6.0} s  {load:<6} {group}::{name}");
    }
    text
}
