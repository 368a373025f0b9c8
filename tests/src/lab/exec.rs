//! Running programs: to the end within a time, or as a process that is killed by its own pid.

use std::fs::{File, OpenOptions};
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

/// A program that runs in the background. Killed when dropped.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    line: String,
    output: PathBuf,
}

impl Proc {
    /// Starts a program; what it prints goes to `output`, which is emptied first.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(command: &mut Command, output: &Path) -> anyhow::Result<Self> {
        let file = File::create(output).with_context(|| output.display().to_string())?;
        Self::start_into(command, file, output)
    }

    /// [`Proc::start`] that adds to `output`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start_again(command: &mut Command, output: &Path) -> anyhow::Result<Self> {
        let file = File::options().append(true).create(true).open(output);
        Self::start_into(command, file.with_context(|| output.display().to_string())?, output)
    }

    fn start_into(command: &mut Command, file: File, output: &Path) -> anyhow::Result<Self> {
        let line = shown(command);
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
        Ok(Self { child, line, output: output.to_owned() })
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
        eventually(within, &format!("`{}` to print {word:?}", self.line), || {
            let printed = self.printed()?;
            if !printed.contains(word) {
                let ended = self.child.try_wait()?.map_or_else(|| "it runs".to_owned(), |status| status.to_string());
                bail!("{ended}; it printed: {}", tail(&printed, 20));
            }
            Ok(())
        })
    }

    /// Pid, in the numbering of the lab.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the kernel does not know.
    pub fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(code))
    }

    /// Its standard input; closed when dropped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<i32> {
        let what = format!("the end of `{}`", self.line);
        eventually(within, &what, || self.child.try_wait()?.map(code).context("it still runs"))
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // Fails if it was waited for already: then there is nothing to kill.
        _ = self.child.kill();
        self.child.wait()?;
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
