//! A container: a network namespace on a host, and what runs in it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    /// Network and addresses, once attached.
    pub(super) endpoint: Option<(String, Vec<IpAddr>)>,
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

    /// Takes over what `network connect` printed: addresses and name server.
    ///
    /// # Errors
    /// When that is not in it.
    pub fn attached(&mut self, endpoint: &Value) -> anyhow::Result<()> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
        let addresses = endpoint["addresses"].as_array().with_context(|| format!("no address in {endpoint}"))?;
        let address = |value: &Value| Ok(text(value)?.split('/').next().unwrap_or_default().parse()?);
        let addresses = addresses.iter().map(address).collect::<anyhow::Result<_>>()?;
        let dns = text(&endpoint["dns"]).with_context(|| format!("no name server in {endpoint}"))?;
        self.set_resolv_conf(&format!("nameserver {dns}\noptions timeout:2 attempts:2\n"))?;
        self.endpoint = Some((text(&endpoint["network"])?, addresses));
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

    /// Its IPv4 address on the overlay.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> anyhow::Result<Ipv4Addr> {
        let v4 = |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(*v4) } else { None };
        self.addresses()?.iter().find_map(v4).with_context(|| format!("{} has no IPv4 address", self.name))
    }

    /// Its IPv6 address on the overlay.
    ///
    /// # Errors
    /// When it has none.
    pub fn address6(&self) -> anyhow::Result<Ipv6Addr> {
        let v6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(*v6) } else { None };
        self.addresses()?.iter().find_map(v6).with_context(|| format!("{} has no IPv6 address", self.name))
    }

    /// All its addresses on the overlay.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn addresses(&self) -> anyhow::Result<&[IpAddr]> {
        Ok(&self.endpoint.as_ref().with_context(|| format!("{} is not attached", self.name))?.1)
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
