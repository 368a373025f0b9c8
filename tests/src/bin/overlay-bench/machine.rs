//! What the figures were measured on, in a line.

use std::fs;
use std::thread;

/// Version and build, processors, memory, kernel, and how busy the machine was with other things.
pub fn facts() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "a build with debug assertions" } else { "a release build" };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let memory = memory.map_or_else(String::new, |kib| format!(", {:.0} GiB", kib / f64::from(1 << 20)));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "overlay {}, {build}; {cores} cores ({processor}){memory}, Linux {}; load {} at the start",
        env!("CARGO_PKG_VERSION"),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?"),
    )
}

/// The value of the first line `name: value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
