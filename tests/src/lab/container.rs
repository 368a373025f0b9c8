//! A container: a network namespace on a host, and what runs in it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::exec::{Done, Proc};
use super::host::{Host, Place};

/// A network namespace with a name and, once it is attached, an address.
#[derive(Debug)]
pub struct Container {
    name: String,
    host: String,
    place: Place,
    host_place: Place,
    netns: PathBuf,
    directory: PathBuf,
    /// Network and address, once attached.
    pub(super) endpoint: Option<(String, Ipv4Addr)>,
}

impl Container {
    pub(super) fn new(host: &Host, name: &str) -> anyhow::Result<Self> {
        host.sh(&format!("ip netns add {name}"))?;
        let netns = Path::new("/run/netns").join(name);
        let directory = Host::directory(host.name()).join("containers").join(name);
        fs::create_dir_all(&directory)?;
        let resolv_conf = directory.join("resolv.conf");
        fs::write(&resolv_conf, "")?;
        let place = host.place().inside(&netns, &resolv_conf);
        place.sh("ip link set lo up")?;
        Ok(Self {
            name: name.to_owned(),
            host: host.name().to_owned(),
            place,
            host_place: host.place(),
            netns,
            directory,
            endpoint: None,
        })
    }

    /// Takes over what `network connect` printed: address and name server.
    ///
    /// # Errors
    /// When that is not in it.
    pub fn attached(&mut self, endpoint: &Value) -> anyhow::Result<()> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
        let address = text(&endpoint["addresses"][0]).with_context(|| format!("no address in {endpoint}"))?;
        let address = address.split('/').next().unwrap_or_default().parse()?;
        let dns = text(&endpoint["dns"]).with_context(|| format!("no name server in {endpoint}"))?;
        self.set_resolv_conf(&format!("nameserver {dns}\noptions timeout:2 attempts:2\n"))?;
        self.endpoint = Some((text(&endpoint["network"])?, address));
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host that it is on.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its namespace, as seen from inside the host.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Where programs run that belong to it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its address on the overlay.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn address(&self) -> anyhow::Result<Ipv4Addr> {
        Ok(self.endpoint.as_ref().with_context(|| format!("{} is not attached", self.name))?.1)
    }

    /// What its programs find in `/etc/resolv.conf` from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_resolv_conf(&self, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.directory.join("resolv.conf"), text)?)
    }

    /// Runs a small program in it; `line` is split at blanks.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, line: &str) -> anyhow::Result<String> {
        self.place.sh(line)
    }

    /// Runs a small program in it and lets it fail.
    ///
    /// # Errors
    /// When it cannot be run or hangs.
    pub fn try_sh(&self, line: &str) -> anyhow::Result<Done> {
        self.place.try_sh(line)
    }

    /// Starts a program in it; `label` names its output file.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn(&self, label: &str, line: &str) -> anyhow::Result<Proc> {
        self.place.spawn(line, &self.file(label))
    }

    /// Starts a tool of the lab in it.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn tool(&self, label: &str, line: &str) -> anyhow::Result<Proc> {
        self.place.tool(line, &self.file(label))
    }

    /// A file or directory of its own, from inside and outside.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether one ping to `to` is answered within `within`.
    ///
    /// # Errors
    /// When it is not: the text has what ping said.
    pub fn ping(&self, to: impl std::fmt::Display, within: Duration) -> anyhow::Result<()> {
        let seconds = within.as_secs_f32();
        let done = self.try_sh(&format!("ping -n -c 1 -W {seconds} {to}"))?;
        ensure!(done.code == 0, "{} on {} gets no answer from {to}: {}", self.name, self.host, done.stdout);
        Ok(())
    }

    /// Removes its namespace, as a runtime does when the container ends. What runs in it must have ended.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn remove(self) -> anyhow::Result<()> {
        self.host_place.sh(&format!("ip netns delete {}", self.name)).map(|_| ())
    }
}
