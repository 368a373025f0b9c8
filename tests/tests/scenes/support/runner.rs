//! Plays the scenes: each in a process and a sandbox of its own, several at a time, with a limit on how long one may take.

use std::env;
use std::fs;
use std::panic;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use overlay_tests::eventually::pass;
use overlay_tests::{lab, sandbox};

use super::report::{Played, Report};
use super::shares::{Load, Shares};

/// A scene: the module that it stands in, its name, its load, and what it does.
pub struct Scene {
    pub group: &'static str,
    pub name: &'static str,
    pub load: Load,
    pub play: fn() -> anyhow::Result<()>,
}

/// Tells this program, started again by itself, which scene it is to play.
const PLAY: &str = "OVERLAY_SCENE";
/// Begins the line in which a scene tells its processor time, in milliseconds.
const COMPUTED: &str = "processor time in ms: ";
/// A scene that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(480);

static SHARES: Shares = Shares::new();
static REPORT: Report = Report::new();

/// Plays the scenes that the command line asks for, or the one that the environment names.
///
/// # Errors
/// When a scene of that name fails, or the report can't be written.
pub fn main(scenes: &'static [Scene]) -> anyhow::Result<ExitCode> {
    if let Ok(name) = env::var(PLAY) {
        return play(scenes, &name);
    }
    let start = Instant::now();
    let trial = |(place, scene): (usize, &'static Scene)| {
        let run = move || SHARES.take(place, scene.load, || stage(scene, start.elapsed()));
        Trial::test(scene.name, run).with_kind(scene.group)
    };
    let mut arguments = Arguments::from_args();
    // All scenes wait for their turn at once: who runs when is for `SHARES` to say.
    arguments.test_threads.get_or_insert(scenes.len());
    let conclusion = libtest_mimic::run(&arguments, scenes.iter().enumerate().map(trial).collect());
    REPORT.write(start.elapsed())?;
    Ok(conclusion.exit_code())
}

/// Plays a scene in a process of its own and shows what it printed.
fn stage(scene: &Scene, waited: Duration) -> Result<(), Failed> {
    let Scene { group, name, load, play: _ } = *scene;
    let mut command = Command::new(env::current_exe().map_err(|e| e.to_string())?);
    let start = Instant::now();
    // A backtrace of an error that a scene reports says nothing that its text does not.
    command.env(PLAY, name).env("RUST_LIB_BACKTRACE", "0");
    // The limit inside is the shorter one: it shows the logs.
    let done = lab::run(&mut command, LIMIT + Duration::from_secs(20)).map_err(|e| format!("{e:#}"))?;
    let took = start.elapsed();
    let (told, lines): (Vec<&str>, Vec<&str>) = done.stdout.lines().partition(|line| line.starts_with(COMPUTED));
    let computed = told.iter().find_map(|line| line.strip_prefix(COMPUTED)?.parse().ok()).unwrap_or_default();
    let computed = Duration::from_millis(computed);
    REPORT.add(Played { group, name, load, waited, took, computed });
    if done.code != 0 {
        return Err(format!("{}\n{}", lines.join("\n"), done.stderr).into());
    }
    let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    print!("\n  {name}: {:.1} s, {:.1} s of processor time\n{lines}", took.as_secs_f32(), computed.as_secs_f32());
    Ok(())
}

fn play(scenes: &[Scene], name: &str) -> anyhow::Result<ExitCode> {
    // A test runner that is killed takes its scenes with it.
    set_pdeathsig(Signal::SIGKILL)?;
    sandbox::enter()?;
    let scene = scenes.iter().find(|scene| scene.name == name).with_context(|| format!("there is no scene {name}"))?;
    thread::spawn(|| {
        pass(LIMIT);
        eprintln!("the scene is not over after {LIMIT:?}\n{}", lab::tails());
        std::process::exit(124)
    });
    let result = panic::catch_unwind(scene.play).unwrap_or_else(|_| Err(anyhow::anyhow!("the scene panicked")));
    if result.is_err() {
        eprintln!("{}", lab::tails());
    }
    println!("{COMPUTED}{}", computed()?);
    result?;
    Ok(ExitCode::SUCCESS)
}

/// The processor time in ms of this process, of its children, and of those that the sandbox's pid 1 has inherited and reaped.
fn computed() -> anyhow::Result<u64> {
    let mut ticks = 0;
    for process in ["self", "1"] {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // proc(5): the name, in parentheses, is the second field; utime, stime, cutime and cstime are the 14th to 17th.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let times = fields.split_whitespace().skip(11).take(4);
        ticks += times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    }
    // USER_HZ is 100 on every architecture that we build for.
    Ok(ticks * 10)
}
