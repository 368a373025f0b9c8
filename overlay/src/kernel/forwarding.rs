//! The host's switches for forwarding. They are the whole host's, and stay on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::OrDoing;
use super::netns::Netns;
use super::netns_sockets::NetnsSockets;
use crate::datapath::kernel_api::StepError;
use crate::model::addr::IpVersion;

/// The settings of each interface under IPv6, and those of all.
const INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Where it is switched.
const fn switch(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "/proc/sys/net/ipv4/ip_forward",
        IpVersion::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

/// The switches of the host's namespace, kept open: an open switch stays the one of the namespace that it was opened in, whoever
/// reads it. So a look needs no thread that enters the namespace.
pub(super) struct Switches(Vec<(IpVersion, File)>);

impl Switches {
    /// Opens them. A kernel without IPv6 has no switch for it.
    pub(super) fn open(host: &Netns) -> Result<Self, StepError> {
        let mut switches = Vec::new();
        for version in IpVersion::ALL {
            let doing = || format!("read {}", switch(version));
            match host.run(|| File::open(switch(version))).or_doing(doing)? {
                Ok(file) => switches.push((version, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).or_doing(doing),
            }
        }
        Ok(Self(switches))
    }

    /// What is forwarded now. It is read from memory: nothing is waited for.
    pub(super) fn seen(&self) -> Result<BTreeSet<IpVersion>, StepError> {
        let mut seen = BTreeSet::new();
        for (version, file) in &self.0 {
            let mut text = [0; 16];
            let len = file.read_at(&mut text, 0).or_doing(|| format!("read {}", switch(*version)))?;
            if text[..len].trim_ascii() != b"0" {
                seen.insert(*version);
            }
        }
        Ok(seen)
    }
}

/// Turns it on.
pub(super) async fn enable(host: &NetnsSockets, version: IpVersion) -> Result<(), StepError> {
    let doing = || format!("turn on {version} forwarding in {}", switch(version));
    let switched = host.netns.run_off(move || {
        if version == IpVersion::V6 {
            keep_hearing_routers()?;
        }
        fs::write(switch(version), "1")
    });
    switched.await.or_doing(doing)?.or_doing(doing)
}

/// A host that forwards takes no more notice of routers' advertisements, and would lose the addresses and routes that it has of
/// them when they run out, unless an interface is told to take notice all the same (2: `ip-sysctl`, `accept_ra`).
fn keep_hearing_routers() -> io::Result<()> {
    for entry in fs::read_dir(INTERFACES)? {
        let directory = entry?.path();
        let is = |setting: &str, value: &str| is_set(&directory, setting, value);
        if is("forwarding", "0") && is("accept_ra", "1") {
            match fs::write(directory.join("accept_ra"), "2") {
                // The interface has gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn is_set(directory: &Path, setting: &str, value: &str) -> bool {
    fs::read_to_string(directory.join(setting)).is_ok_and(|text| text.trim() == value)
}
