//! How many neighbours the kernel keeps: one limit for all namespaces of a machine, 1,024 unless somebody has raised it
//! (`neigh/default/gc_thresh3`, Documentation/networking/ip-sysctl.rst). Each container has an entry for each other one that it talks
//! to, so a few dozen that all talk to each other meet it, and then new ones are out of reach.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::settings::ROOT;

/// What each limit has to be at least: entries that are never cleared, that are kept for five seconds, and that there are at most.
/// Docker raises them to the same for its overlay networks.
const LEAST: [(&str, u64); 3] = [("gc_thresh1", 8_192), ("gc_thresh2", 49_152), ("gc_thresh3", 65_536)];

/// A limit that was raised, or could not be.
#[derive(Debug)]
pub struct Limit {
    /// The setting.
    pub path: PathBuf,
    /// What it was.
    pub before: u64,
    /// What it should be at least.
    pub least: u64,
    /// What the kernel said, if it refused.
    pub refused: Option<io::Error>,
}

/// Raises what is too low. Only the first network namespace of the machine has these settings: in another one nothing is done.
pub fn raise() -> Vec<Limit> {
    ["ipv4", "ipv6"]
        .into_iter()
        .flat_map(|family| raise_in(&Path::new(ROOT).join(family).join("neigh/default")))
        .collect()
}

fn raise_in(directory: &Path) -> Vec<Limit> {
    let mut raised = Vec::new();
    // The largest first: none may be above the next one for a moment.
    for (name, least) in LEAST.into_iter().rev() {
        let path = directory.join(name);
        let Some(before) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) else { continue };
        if before < least {
            let refused = fs::write(&path, least.to_string()).err();
            raised.push(Limit { path, before, least, refused });
        }
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_low_is_raised_and_the_rest_is_left() {
        let directory = std::env::temp_dir().join(format!("neighbour-limits-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        for (name, value) in [("gc_thresh1", "128\n"), ("gc_thresh2", "512\n"), ("gc_thresh3", "100000\n")] {
            fs::write(directory.join(name), value).expect("a file");
        }
        let raised = raise_in(&directory);
        let told: Vec<_> = raised.iter().map(|limit| (limit.before, limit.least, limit.refused.is_none())).collect();
        assert_eq!(told, [(512, 49_152, true), (128, 8_192, true)]);
        let now = |name| fs::read_to_string(directory.join(name)).expect("it is there");
        assert_eq!(["gc_thresh1", "gc_thresh2", "gc_thresh3"].map(now), ["8192", "49152", "100000\n"]);
        assert!(raise_in(&directory).is_empty() && raise_in(&directory.join("nowhere")).is_empty());
        fs::remove_dir_all(&directory).expect("it goes");
    }
}
