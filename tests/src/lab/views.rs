//! What the product says, and what the kernel shows, in the form in which scenes ask for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Container, Lab};
use crate::eventually::eventually;

/// How long a change may take to reach every host of a quiet lab.
const SPREAD: Duration = Duration::from_secs(5);
/// How long new hosts that hear each other may take to be members, on a wire that loses packets.
const MEMBERSHIP: Duration = Duration::from_secs(20);

impl Lab {
    /// Creates a network on `h1`, as soon as that is a member, and waits until every host with an agent knows it.
    ///
    /// # Errors
    /// When it is refused or does not spread.
    pub fn network(&self, name: &str, subnet: &str) -> anyhow::Result<()> {
        let line = format!("network create {name} --subnet {subnet}");
        eventually(MEMBERSHIP, &format!("network {name} to be made"), || self.json("h1", &line))?;
        for host in self.agents.keys() {
            eventually(SPREAD, &format!("{host} to know network {name}"), || {
                self.json(host, &format!("network inspect {name}")).map(|_| ())
            })?;
        }
        Ok(())
    }

    /// The rows of a listing, such as `endpoint ls NETWORK`.
    ///
    /// # Errors
    /// When it is no list.
    pub fn rows(&self, host: &str, listing: &str) -> anyhow::Result<Vec<Value>> {
        let value = self.json(host, listing)?;
        value.as_array().cloned().with_context(|| format!("`{listing}` is no list: {value}"))
    }

    /// Where the namespace of a network is on a host.
    ///
    /// # Errors
    /// When the network has no endpoint there.
    pub fn segment(&self, host: &str, network: &str) -> anyhow::Result<PathBuf> {
        let inspected = self.json(host, &format!("network inspect {network}"))?;
        match inspected[0]["Overlay"]["Netns"].as_str() {
            Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
            _ => bail!("network {network} has no namespace on {host}: {inspected}"),
        }
    }

    /// Runs a small program in the namespace of a network on a host.
    ///
    /// # Errors
    /// When it fails.
    pub fn in_segment(&self, host: &str, network: &str, line: &str) -> anyhow::Result<String> {
        let netns = self.segment(host, network)?;
        self.host(host)?.sh(&format!("nsenter --net={} -- {line}", netns.display()))
    }

    /// The container MACs that the kernel of `host` sends to the VTEP of `peer`, by the VXLAN device's own rows.
    ///
    /// # Errors
    /// When the network has no namespace there.
    pub fn kernel_rows(&self, host: &str, network: &str, peer: &str) -> anyhow::Result<BTreeSet<String>> {
        let rows = self.in_segment(host, network, "bridge -j fdb show dev vx0")?;
        let rows: Value = serde_json::from_str(&rows).context(rows)?;
        let vtep = self.underlay(peer)?.to_string();
        let mine = rows.as_array().into_iter().flatten().filter(|row| row["dst"] == vtep.as_str());
        Ok(mine.filter_map(|row| row["mac"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until the kernel of every host in the network has what it needs to reach `container`.
    ///
    /// # Errors
    /// When one has not in time.
    pub fn wait_until_reachable(&self, network: &str, container: &Container) -> anyhow::Result<()> {
        let address = container.addresses()?.first().context("no address")?;
        for host in self.agents.keys() {
            if host == container.host() || self.segment(host, network).is_err() {
                continue;
            }
            eventually(SPREAD, &format!("{host} to have the rows of {}", container.name()), || {
                let rows = self.rows(host, &format!("fdb {network}"))?;
                let row = rows.iter().find(|row| row["name"] == container.name());
                let row = row.with_context(|| format!("no row of {address} in {rows:?}"))?;
                ensure!(row["kernel"] == "yes", "not in the kernel: {row}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Checks that all agents list the same endpoints of a network. What only an endpoint's own host knows is left out.
    ///
    /// # Errors
    /// When two of them differ: the text has both lists.
    pub fn endpoints_are_alike(&self, network: &str) -> anyhow::Result<()> {
        const OWN: [&str; 5] = ["ifname", "host_ifname", "netns", "netns_cookie", "ports"];
        let mut seen = BTreeMap::new();
        for host in self.agents.keys() {
            let mut rows = self.rows(host, &format!("endpoint ls {network}"))?;
            for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                row.retain(|key, _| !OWN.contains(&key.as_str()));
            }
            seen.entry(Value::Array(rows).to_string()).or_insert(host);
        }
        ensure!(seen.len() == 1, "they list different endpoints: {seen:#?}");
        Ok(())
    }

    /// Checks that every agent finds in its kernel what it wants there.
    ///
    /// # Errors
    /// When one does not: the text has what it could not do.
    pub fn kernels_are_as_they_should_be(&self) -> anyhow::Result<()> {
        for host in self.agents.keys() {
            let status = self.json(host, "status")?;
            let fine = status["settled"] == true && status["failures"] == serde_json::json!([]);
            ensure!(fine, "the kernel of {host} is not as it should be: {status}");
        }
        Ok(())
    }

    /// Connects a container and waits until the other hosts can reach it.
    ///
    /// # Errors
    /// When either fails.
    pub fn reachable(&self, host: &str, network: &str, name: &str, more: &str) -> anyhow::Result<Container> {
        let container = self.connect(host, network, name, more)?;
        self.wait_until_reachable(network, &container)?;
        Ok(container)
    }
}

/// What a name server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Such as `NOERROR` or `NXDOMAIN`; `NONE` if nothing came.
    pub status: String,
    /// The data of the answers, in order.
    pub answers: Vec<String>,
}

impl Reply {
    /// The addresses among the answers, sorted.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        let mut addresses: Vec<Ipv4Addr> = self.answers.iter().filter_map(|answer| answer.parse().ok()).collect();
        addresses.sort();
        addresses
    }
}

impl Container {
    /// Asks the name server of its `resolv.conf`; `question` is in the notation of `dig`.
    ///
    /// # Errors
    /// When `dig` cannot be run.
    pub fn dig(&self, question: &str) -> anyhow::Result<Reply> {
        let done = self.try_sh(&format!("dig +noall +comments +answer +time=2 +tries=1 {question}"))?;
        let status = done.stdout.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        let answers = done.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
        Ok(Reply {
            status: status.unwrap_or("NONE").to_owned(),
            answers: answers.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect(),
        })
    }
}
