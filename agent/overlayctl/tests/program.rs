//! `overlayctl` as people and scripts start it: what it prints, how it ends, and what of a sandbox outlives it.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const OVERLAYCTL: &str = env!("CARGO_BIN_EXE_overlayctl");

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(20);

fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_wrong_flag_is_told_in_one_line() {
    let out = output(OVERLAYCTL, &["network", "--no-such"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert_eq!((said.lines().count(), out.stdout.len()), (1, 0), "{said}");
    assert!(["overlayctl:", "--no-such", "usage:"].iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn a_run_directory_that_is_none_is_told_with_the_way_out() {
    let out = output(OVERLAYCTL, &["--run-dir", "/dev/null", "status"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("/dev/null") && said.contains("--run-dir") && !said.contains("os error"), "{said}");
}

#[test]
fn a_key_comes_for_people_and_for_scripts() {
    let plain = output(OVERLAYCTL, &["cluster", "keygen"]);
    let json = output(OVERLAYCTL, &["cluster", "keygen", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    let key = value["key"].as_str().expect("it has a key");
    assert_eq!(text(&plain.stdout).trim_end().len(), key.len());
}

#[test]
fn completions_for_a_reader_that_goes_away_are_no_error() {
    let mut command = Command::new(OVERLAYCTL);
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be started");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
    assert!(text(&output(OVERLAYCTL, &["completions", "bash"]).stdout).contains("_overlayctl"));
}

/// The inner half of `overlayctl run`, with the test as the outer.
struct Sandbox {
    child: Child,
    said: Receiver<String>,
}

impl Sandbox {
    /// Runs a script there, which talks on stderr; `None` if this user may not.
    fn run(script: &str) -> Option<Self> {
        let run_dir = std::env::temp_dir();
        let mut command = Command::new(OVERLAYCTL);
        command.args(["sandbox-for-run", "--ready", "1", "--go", "0", "--run-dir"]).arg(run_dir);
        command.args(["--", "sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let mut ready = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut ready).expect("it can be read");
        if ready != "ready" {
            eprintln!("not tried: {ready}");
            child.wait().expect("it ends");
            return None;
        }
        child.stdin.take().expect("a pipe").write_all(b"nameserver 192.0.2.53\n").expect("it listens");
        let mut stderr = child.stderr.take().expect("a pipe");
        let (say, said) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Until nobody in there has it open any more; that is told with nothing.
            while let Ok(length) = stderr.read(&mut buffer) {
                let _ = say.send(text(&buffer[..length]));
                if length == 0 {
                    break;
                }
            }
        });
        Some(Self { child, said })
    }

    fn hear(&self, what: &str) {
        assert_eq!(self.said.recv_timeout(TIMEOUT).expect("it says something"), what);
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// All that was said until everything in there had ended, and the status.
    fn end(mut self) -> (String, ExitStatus) {
        let mut all = String::new();
        loop {
            let said = self.said.recv_timeout(TIMEOUT).expect("everything in there ends");
            if said.is_empty() {
                return (all, self.child.wait().expect("it ends"));
            }
            all += &said;
        }
    }
}

#[test]
fn nothing_outlives_a_sandbox_that_is_killed() {
    let script = "sleep 1000 & setsid sleep 1000 & echo up >&2; wait";
    let Some(sandbox) = Sandbox::run(script) else { return };
    sandbox.hear("up\n");
    sandbox.send(Signal::SIGKILL);
    assert_eq!(sandbox.end().0, "");
}

#[test]
fn nothing_outlives_the_command_and_its_status_is_told() {
    let Some(sandbox) = Sandbox::run("setsid sleep 1000 & exit 7") else { return };
    let (_, status) = sandbox.end();
    assert_eq!(status.code(), Some(7));
    let Some(sandbox) = Sandbox::run("kill -9 $$") else { return };
    assert_eq!(sandbox.end().1.code(), Some(137));
}

#[test]
fn the_command_has_its_own_names_and_sees_only_its_own_processes() {
    let Some(sandbox) = Sandbox::run("{ cat /etc/resolv.conf; cat /proc/1/cmdline | tr '\\0' ' '; } >&2") else {
        return;
    };
    let (said, status) = sandbox.end();
    assert!(status.success() && said.starts_with("nameserver 192.0.2.53\n"), "{said}");
    assert!(said.contains("sandbox-for-run"), "pid 1 is the sandbox's: {said}");
}

#[test]
fn signals_that_are_sent_to_it_alone_reach_the_command() {
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGQUIT, "QUIT"), (Signal::SIGTERM, "TERM")] {
        let script = format!("trap 'echo {name} >&2; exit 3' {name}; echo up >&2; while :; do sleep 0.05; done");
        let Some(sandbox) = Sandbox::run(&script) else { return };
        sandbox.hear("up\n");
        sandbox.send(signal);
        let (said, status) = sandbox.end();
        assert_eq!((said.as_str(), status.code()), (format!("{name}\n").as_str(), Some(3)));
    }
}
