//! One host: a process whose namespaces are the host's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ROOT;
use super::exec::{Done, Proc, run};
use super::programs::Programs;

/// The run directory of the agent: each host has a `/run` of its own.
pub(super) const RUN_DIR: &str = "/run/overlayd";
/// How long a small command in a host may take.
const SHORT: Duration = Duration::from_secs(30);

/// A machine of the lab that is up, or was.
#[derive(Debug)]
pub struct Host {
    name: String,
    pid1: i32,
    keeper: Child,
    labtool: PathBuf,
}

impl Host {
    /// Boots a host: a new boot id, an empty `/run`, the disk as it was.
    pub(super) fn boot(programs: &Programs, name: &str) -> anyhow::Result<Self> {
        let directory = Self::directory(name);
        fs::create_dir_all(directory.join("state"))?;
        fs::write(directory.join("boot_id"), fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
        for (file, text) in [("resolv.conf", String::new()), ("machine-id", machine_id(name))] {
            let path = directory.join(file);
            if !path.exists() {
                fs::write(path, text)?;
            }
        }
        let mut command = Command::new(programs.labtool());
        command.args(["host", "--name", name, "--directory"]).arg(&directory);
        let mut keeper = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("labtool host")?;
        let output = BufReader::new(keeper.stdout.take().context("labtool has no output")?);
        // Its two processes print a line each, whichever comes first.
        let lines = output.lines().take(2).collect::<Result<Vec<String>, _>>()?;
        ensure!(lines.iter().any(|line| line == "ready"), "host {name} did not boot: {lines:?}");
        let pid1 = lines.iter().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
        let pid1 = pid1.with_context(|| format!("host {name} has no pid: {lines:?}"))?;
        Ok(Self { name: name.to_owned(), pid1, keeper, labtool: programs.labtool().to_owned() })
    }

    /// Where the lab keeps what belongs to a host, from its disk to its logs.
    pub fn directory(name: &str) -> PathBuf {
        Path::new(ROOT).join("hosts").join(name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid 1, in the lab's numbering.
    pub fn pid1(&self) -> i32 {
        self.pid1
    }

    /// Whether it has not crashed.
    pub fn is_up(&self) -> bool {
        kill(Pid::from_raw(self.pid1), None).is_ok()
    }

    /// The state directory of its agent: the part of the disk that matters.
    pub fn state_dir(&self) -> PathBuf {
        Self::directory(&self.name).join("state")
    }

    /// The control socket of its agent, as seen from inside the host.
    pub fn socket(&self) -> PathBuf {
        Path::new(RUN_DIR).join("overlayd.sock")
    }

    /// Where to run programs that belong to the host itself.
    pub fn place(&self) -> Place {
        Place { host: self.pid1, netns: None, resolv_conf: None, labtool: self.labtool.clone() }
    }

    /// Runs a small program on the host; `line` is split at blanks.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        self.place().sh(line)
    }

    /// Runs `ip` on the host.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, line: &str) -> anyhow::Result<String> {
        self.sh(&format!("ip {line}"))
    }

    /// Sets a kernel parameter of the host's network namespace.
    ///
    /// # Errors
    /// When there is no such parameter.
    pub fn sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.sh(&format!("sysctl -qw {name}={value}")).map(|_| ())
    }

    /// What programs on the host find in `/etc/resolv.conf` from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_resolv_conf(&self, text: &str) -> anyhow::Result<()> {
        // In place: a bind mount shows a file, not a name.
        Ok(fs::write(Self::directory(&self.name).join("resolv.conf"), text)?)
    }

    /// Kills every process of the host; see `Lab::crash`.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid1), Signal::SIGKILL).with_context(|| format!("{} is down already", self.name))?;
        self.keeper.wait()?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = self.keeper.kill();
        _ = self.keeper.wait();
    }
}

/// Somewhere inside a host: the host itself, or a container of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: i32,
    netns: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
    labtool: PathBuf,
}

impl Place {
    /// The same host, but in a network namespace of it and with another `/etc/resolv.conf`.
    pub(super) fn inside(&self, netns: &Path, resolv_conf: &Path) -> Self {
        Self { netns: Some(netns.to_owned()), resolv_conf: Some(resolv_conf.to_owned()), ..self.clone() }
    }

    /// A command that runs there, given as program and arguments.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_with_pid(words, None)
    }

    /// [`Place::command`] that leaves the program's pid in a file: the process started is only its carrier.
    pub(super) fn command_with_pid(&self, words: &[&str], pid_file: Option<&Path>) -> Command {
        let mut command = Command::new(&self.labtool);
        command.args(["enter", "--host", &self.host.to_string()]);
        let options = [("--netns", &self.netns), ("--resolv-conf", &self.resolv_conf)];
        for (option, value) in options.into_iter().filter_map(|(option, value)| Some((option, value.as_ref()?))) {
            command.arg(option).arg(value);
        }
        if let Some(path) = pid_file {
            command.arg("--pid-file").arg(path);
        }
        command.arg("--").args(words);
        command
    }

    /// Runs a small program there and lets it fail; `line` is split at blanks.
    ///
    /// # Errors
    /// When it cannot be run or hangs.
    pub fn try_sh(&self, line: &str) -> anyhow::Result<Done> {
        run(&mut self.command(&line.split_whitespace().collect::<Vec<_>>()), SHORT)
    }

    /// Runs a small program there; `line` is split at blanks.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        self.try_sh(line)?.ok()
    }

    /// Feeds `input` to a program there, such as `nft -f -`.
    ///
    /// # Errors
    /// When it fails.
    pub fn feed(&self, line: &str, input: &str) -> anyhow::Result<()> {
        use std::io::Write;
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
        let status = child.wait()?;
        if !status.success() {
            bail!("`{line}`: {status}, given: {input}");
        }
        Ok(())
    }

    /// Starts a tool of the lab there (see `labtool --help`) and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn tool(&self, line: &str, output: &Path) -> anyhow::Result<Proc> {
        let labtool = self.labtool.display().to_string();
        let words: Vec<&str> = std::iter::once(labtool.as_str()).chain(line.split_whitespace()).collect();
        let mut tool = self.start(&words, output)?;
        tool.wait_until_ready(SHORT)?;
        Ok(tool)
    }

    /// Starts a program there; what it prints goes to `output`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn(&self, line: &str, output: &Path) -> anyhow::Result<Proc> {
        self.start(&line.split_whitespace().collect::<Vec<_>>(), output)
    }

    fn start(&self, words: &[&str], output: &Path) -> anyhow::Result<Proc> {
        fs::write(output, "").with_context(|| output.display().to_string())?;
        Proc::start(self, words, &[], output)
    }
}

/// Stable for a name, as a machine's is: 32 hex digits.
fn machine_id(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0>32}\n")
}
