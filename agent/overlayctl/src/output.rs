//! How things are said: tables for people, JSON for scripts, and one line for what went wrong.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// Columns, for people.
    Table,
    /// JSON with stable keys, for scripts.
    Json,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    message: String,
    misuse: bool,
}

impl Failure {
    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), misuse: false }
    }

    /// It was called the wrong way.
    pub fn misused(message: impl Into<String>) -> Self {
        Self { message: message.into(), misuse: true }
    }

    /// Says so in one line.
    pub fn report(&self) -> ExitCode {
        // Nobody left to tell is no reason to panic.
        let _ = writeln!(std::io::stderr(), "overlayctl: {self}");
        ExitCode::from(if self.misuse { 2 } else { 1 })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message.replace('\n', " "))
    }
}

/// What clap has to say: help as it is, an error as one line.
pub fn misuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match write!(std::io::stdout(), "{}", error.render()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
            Ok(()) | Err(_) => ExitCode::SUCCESS,
        };
    }
    let text = error.render().to_string();
    if !text.starts_with("error:") {
        // A noun without a verb: its help says which there are.
        let _ = write!(std::io::stderr(), "{text}");
        return ExitCode::from(2);
    }
    let said = text.trim_start_matches("error:").lines().map(str::trim).take_while(|line| !line.is_empty());
    let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
    let hint = usage.map_or_else(|| "see `overlayctl --help`".to_owned(), |usage| format!("usage: {usage}"));
    Failure::misused(format!("{}; {hint}", said.collect::<Vec<_>>().join(" "))).report()
}

/// Prints rows with a header, or `value` as JSON.
pub fn print<T: Serialize, const N: usize>(
    format: Format,
    value: &T,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    match format {
        Format::Json => json(value),
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(header);
            table.add_rows(rows);
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
            let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
            line(&lines.join("\n"))
        }
    }
}

/// Prints JSON.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::failed(format!("can't print: {e}")))?;
    line(&text)
}

/// Prints text. A reader that has heard enough is no error.
pub fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(format!("can't print: {error}"))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// `-` for what is not there.
pub fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}
