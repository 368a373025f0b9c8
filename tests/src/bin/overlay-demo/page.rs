//! How the demo speaks: numbered steps, commands as typed, what they printed.

use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use overlay_tests::lab::{Container, Lab};

/// Prints as the demo goes along.
pub struct Page {
    colours: bool,
    step: usize,
    start: Instant,
}

impl Page {
    pub fn new() -> Self {
        let colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, step: 0, start: Instant::now() }
    }

    /// A headline.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        let line = format!("{:2}  {title}", self.step);
        println!("\n{}", self.paint("1;36", &line));
    }

    /// A sentence below it.
    pub fn say(&self, sentence: &str) {
        for line in sentence.lines() {
            println!("{}", format!("    {line}").trim_end());
        }
    }

    /// Something that was measured.
    pub fn took(&self, what: &str, time: Duration) {
        let line = format!("    {what}: {:.1} s", time.as_secs_f32());
        println!("{}", self.paint("32", &line));
    }

    /// Shows a command that somebody else runs.
    pub fn typed(&self, place: &str, line: &str) {
        println!("\n    {} {}", self.paint("2", &format!("[{place}] $")), self.paint("1", line));
    }

    /// Runs a command on a host and shows both.
    pub fn on_host(&self, lab: &Lab, host: &str, line: &str) -> anyhow::Result<String> {
        self.typed(host, line);
        self.shown(lab.host(host)?.sh(line)?, usize::MAX)
    }

    /// The same in the namespace of a network, of which the path is not worth reading.
    pub fn in_segment(&self, lab: &Lab, host: &str, network: &str, line: &str) -> anyhow::Result<String> {
        self.typed(&format!("{host}, namespace of {network}"), line);
        self.shown(lab.in_segment(host, network, line)?, 12)
    }

    /// The same in a container.
    pub fn in_container(&self, container: &Container, line: &str) -> anyhow::Result<String> {
        self.beginning_in_container(container, line, usize::MAX)
    }

    /// The same, of which the first lines are enough.
    pub fn beginning_in_container(&self, container: &Container, line: &str, limit: usize) -> anyhow::Result<String> {
        self.typed(&format!("{} on {}", container.name(), container.host()), line);
        self.shown(container.sh(line)?, limit)
    }

    /// The end: one line, and how long all of it took.
    pub fn verdict(&self, good: bool, sentence: &str) {
        let (colour, word) = if good { ("1;32", "IT WORKS") } else { ("1;31", "IT DOES NOT WORK") };
        let line = format!("{word}: {sentence} ({:.0} s)", self.start.elapsed().as_secs_f32());
        println!("\n{}", self.paint(colour, &line));
    }

    /// Prints a program's output, at most `limit` lines of it.
    fn shown(&self, text: String, limit: usize) -> anyhow::Result<String> {
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().take(limit) {
            println!("{}", format!("    {line}").trim_end());
        }
        if lines.len() > limit {
            println!("    {}", self.paint("2", &format!("... and {} more lines", lines.len() - limit)));
        }
        Ok(text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
