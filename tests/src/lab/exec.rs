//! Running programs: to the end within a time, or as a process that is killed by its own pid.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::host::Place;
use crate::eventually::eventually;

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// Exit status; 128 + n if signal n ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Done {
    /// Standard output.
    ///
    /// # Errors
    /// When it failed: the text has the line, the status and what it said.
    pub fn ok(self) -> anyhow::Result<String> {
        ensure!(self.code == 0, "`{}` ended with {}: {}{}", self.line, self.code, self.stderr, self.stdout);
        Ok(self.stdout)
    }

    /// Standard output, read as JSON.
    ///
    /// # Errors
    /// When it failed or printed something else.
    pub fn json(self) -> anyhow::Result<Value> {
        let line = self.line.clone();
        let text = self.ok()?;
        serde_json::from_str(&text).with_context(|| format!("`{line}` printed no JSON: {text}"))
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be run, or does not end `within` the time and is killed.
pub fn run(command: &mut Command, within: Duration) -> anyhow::Result<Done> {
    let line = shown(command);
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run `{line}`"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = eventually(within, &format!("the end of `{line}`"), || child.try_wait()?.context("it still runs"));
    if status.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let read = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    let (stdout, stderr) = (read(stdout), read(stderr));
    let status = status.with_context(|| format!("it had printed: {stdout}{stderr}"))?;
    Ok(Done { line, code: code(status), stdout, stderr, took: start.elapsed() })
}

/// Everything that comes out of a pipe, read while the program runs.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A program that runs in the background, somewhere inside a host. Killed when dropped.
#[derive(Debug)]
pub struct Proc {
    /// `labtool enter`, which ends when the program does, and with its status.
    carrier: Child,
    line: String,
    output: PathBuf,
    pid_file: PathBuf,
}

impl Proc {
    /// Starts a program; what it prints is added to `output`.
    pub(super) fn start(
        place: &Place,
        words: &[&str],
        environment: &[(&str, &Path)],
        output: &Path,
    ) -> anyhow::Result<Self> {
        let pid_file = output.with_extension("pid");
        if pid_file.exists() {
            fs::remove_file(&pid_file)?;
        }
        let file = File::options().append(true).create(true).open(output);
        let file = file.with_context(|| output.display().to_string())?;
        let mut command = place.command_with_pid(words, Some(&pid_file));
        let line = shown(&command);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let carrier = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
        Ok(Self { carrier, line, output: output.to_owned(), pid_file })
    }

    /// What it printed until now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn printed(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.output)?).into_owned())
    }

    /// Waits until it printed `word`.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn wait_for(&mut self, word: &str, within: Duration) -> anyhow::Result<()> {
        self.wait_for_line(word, within, |line| line.contains(word))
    }

    /// Waits until a tool of the lab printed `ready`: the whole line, for an address can be al*ready* in use.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub(super) fn wait_until_ready(&mut self, within: Duration) -> anyhow::Result<()> {
        self.wait_for_line("ready", within, |line| line == "ready")
    }

    fn wait_for_line(&mut self, what: &str, within: Duration, is_it: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        eventually(within, &format!("`{}` to print {what:?}", self.line), || {
            let printed = self.printed()?;
            if !printed.lines().any(&is_it) {
                let ended = self.carrier.try_wait()?.map_or_else(|| "it runs".to_owned(), |status| status.to_string());
                bail!("{ended}; it printed: {}", tail(&printed, 20));
            }
            Ok(())
        })
    }

    /// The program's pid, in the numbering of the lab.
    ///
    /// # Errors
    /// When it was not started yet.
    pub fn pid(&self) -> anyhow::Result<i32> {
        let text = fs::read_to_string(&self.pid_file).with_context(|| self.pid_file.display().to_string())?;
        text.trim().parse().with_context(|| format!("`{}` has no pid yet", self.line))
    }

    /// The program's pid, in the numbering of the host that it runs on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid_on_host(&self) -> anyhow::Result<i32> {
        let file = format!("/proc/{}/status", self.pid()?);
        let status = fs::read_to_string(&file).with_context(|| format!("{file}: `{}` is gone", self.line))?;
        // From the outermost namespace that is seen here to its own (proc_pid_status(5)).
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("a kernel without NSpid")?;
        Ok(pids.split_whitespace().next_back().context("no pid")?.parse()?)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the kernel does not know.
    pub fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.carrier.try_wait()?.map(code))
    }

    /// Its standard input; closed when dropped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.carrier.stdin.take()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid()?), signal).with_context(|| format!("`{}` is gone", self.line))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<i32> {
        let what = format!("the end of `{}`", self.line);
        eventually(within, &what, || self.carrier.try_wait()?.map(code).context("it still runs"))
    }

    /// Ends it at once; when this returns, it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // The program itself, so that its end comes before the carrier's: a carrier that is killed takes it along,
        // but does not wait for it.
        if self.carrier.try_wait()?.is_none() && self.signal(Signal::SIGKILL).is_err() {
            // It has not started yet, or has just ended.
            self.carrier.kill()?;
        }
        self.carrier.wait()?;
        Ok(())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        _ = self.kill();
    }
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The last `count` lines of a text.
pub(super) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// The command as a person would type it: without the tool that carries it into a host.
fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let own = words.iter().position(|word| *word == "--").map_or(0, |at| at + 1);
    let word = |word: &&std::ffi::OsStr| word.to_string_lossy().into_owned();
    words.get(own..).unwrap_or_default().iter().map(word).collect::<Vec<_>>().join(" ")
}
