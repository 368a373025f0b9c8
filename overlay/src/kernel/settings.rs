//! The settings of a network namespace under `/proc/sys/net`: writing one, and what those of a link are and were.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const ROOT: &str = "/proc/sys/net";
/// Where the settings of links are: for each link a directory of its name.
const DIRECTORIES: [&str; 4] = ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"];
/// The kernel changes the first with the link's MTU, and lets no program read the second.
const LEFT_OUT: [&str; 2] = ["mtu", "stable_secret"];

/// The values of a link's settings, each by its path under `/proc/sys/net`.
pub(super) type Settings = BTreeMap<PathBuf, String>;

/// The directories with the settings of a link.
pub(super) fn directories(link: &str) -> impl Iterator<Item = PathBuf> {
    DIRECTORIES.into_iter().map(move |directory| Path::new(ROOT).join(directory).join(link))
}

/// Writes a setting of the calling thread's namespace; a kernel without it needs none.
pub(super) fn set_if_there(name: impl AsRef<Path>, value: &str) -> io::Result<()> {
    match fs::write(Path::new(ROOT).join(name), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a setting of the calling thread's namespace if it has another value: a program that watches it is told of each write.
pub(super) fn set_if_other(name: &str, value: &str) -> io::Result<()> {
    let is_same = |text: String| text.trim() == value;
    if fs::read_to_string(Path::new(ROOT).join(name)).is_ok_and(is_same) {
        return Ok(());
    }
    set_if_there(name, value)
}

/// All settings of a link of the calling thread's namespace. A version of IP that the link has not has none.
pub(super) fn read(link: &str) -> io::Result<Settings> {
    let mut settings = Settings::new();
    for directory in directories(link) {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // They may go while they are read, with their link.
        for entry in entries.map_while(Result::ok) {
            let path = entry.path();
            if LEFT_OUT.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            // Some can't be read: they have no value, or are only written.
            if let (Ok(value), Ok(name)) = (fs::read_to_string(&path), path.strip_prefix(ROOT)) {
                settings.insert(name.to_owned(), value.trim().to_owned());
            }
        }
    }
    Ok(settings)
}

/// Sets those back that are otherwise than `before`, in the calling thread's namespace. A setting may have gone with its link.
pub(super) fn restore(before: &Settings, now: &Settings) -> io::Result<()> {
    changed(before, now).try_for_each(|(name, value)| set_if_there(name, value))
}

/// Of the settings that both have, those that differ; with the values that they had.
pub(super) fn changed<'a>(before: &'a Settings, now: &'a Settings) -> impl Iterator<Item = (&'a Path, &'a str)> {
    now.iter().filter_map(|(name, value)| {
        let had = before.get(name).filter(|had| *had != value)?;
        Some((name.as_path(), had.as_str()))
    })
}
