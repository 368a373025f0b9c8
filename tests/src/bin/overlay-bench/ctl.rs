//! `overlayctl` as a child of this process. Not through the lab, whose ways into a host take some milliseconds themselves.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use overlay_tests::lab::Lab;
use serde_json::Value;

use crate::netns::root;

/// `overlayctl`, asking the agent of one host.
#[derive(Clone, Debug)]
pub struct Ctl {
    program: PathBuf,
    run_dir: PathBuf,
}

impl Ctl {
    pub fn of(lab: &Lab, host: &str) -> anyhow::Result<Self> {
        Ok(Self { program: lab.programs().overlayctl()?, run_dir: root(lab.host(host)?).join("run/overlayd") })
    }

    /// Starts it; `line` is split at blanks.
    pub fn start(&self, line: &str) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("--run-dir").arg(&self.run_dir).args(["-o", "json"]).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| line.to_owned())
    }

    /// Waits for its end, and reads what it printed: null if that is nothing.
    pub fn finish(child: Child) -> anyhow::Result<Value> {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if output.stdout.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&output.stdout)?) }
    }

    /// Runs it to its end.
    pub fn run(&self, line: &str) -> anyhow::Result<Value> {
        Self::finish(self.start(line)?).with_context(|| line.to_owned())
    }
}
