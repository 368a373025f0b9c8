//! The main job: six `redis-server` on three hosts, as one Redis Cluster.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::exec::{Done, Proc};
use super::{Container, Lab};
use crate::eventually::{eventually, eventually_in};
use anyhow::{Context, ensure};

/// How long a node may be silent before the others call it dead, in milliseconds.
const NODE_TIMEOUT_MS: u32 = 2000;
const READY: Duration = Duration::from_secs(20);
/// Node time-out, election and announcement, on a slow machine.
const FAILOVER: Duration = Duration::from_secs(30);
const SLOTS: &str = "16384";

/// One `redis-server` in a container of its own.
#[derive(Debug)]
pub struct Node {
    /// The container, `redis-1` to `redis-6`.
    pub container: Container,
    server: Proc,
}

/// The six of them.
#[derive(Debug)]
pub struct Redis {
    /// In the order of their addresses.
    pub nodes: Vec<Node>,
}

impl Redis {
    /// What `redis-cli` is told. It takes the first three as masters: it knows addresses, but not hosts.
    pub const CREATE: &str = "--cluster create 172.38.0.11:6379 172.38.0.13:6379 172.38.0.15:6379 172.38.0.12:6379 \
                              172.38.0.14:6379 172.38.0.16:6379 --cluster-replicas 1 --cluster-yes";

    /// Connects `redis-1` to `redis-6` with the addresses 172.38.0.11 to 172.38.0.16, two per host, and starts a
    /// server in each. They are no cluster yet.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(lab: &Lab, network: &str) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for number in 1..=6_u8 {
            let host = format!("h{}", number.div_ceil(2));
            let more = format!("--ip {}", address(number));
            let container = lab.connect(&host, network, &format!("redis-{number}"), &more)?;
            nodes.push(Node { server: serve(&container)?, container });
        }
        for node in &nodes {
            eventually(READY, &format!("{} to answer", node.container.name()), || {
                let pong = cli(&node.container, "ping")?.ok()?;
                ensure!(pong.trim() == "PONG", "it says {pong}");
                Ok(())
            })?;
        }
        Ok(Self { nodes })
    }

    /// A node by its number, 1 to 6.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, number: usize) -> anyhow::Result<&Node> {
        number.checked_sub(1).and_then(|index| self.nodes.get(index)).context("no such node")
    }

    /// Makes them a cluster: one master per host, each with a replica on another host. What `redis-cli` says.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self) -> anyhow::Result<String> {
        let said = cli(&self.node(1)?.container, Self::CREATE)?.ok()?;
        ensure!(said.contains("[OK] All 16384 slots covered"), "{said}");
        for node in &self.nodes {
            wait_until_ok(&node.container)?;
            wait_until_in_step(&node.container)?;
        }
        Ok(said)
    }

    /// Kills a node's server, as the kernel does when memory is short.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let node = number.checked_sub(1).and_then(|index| self.nodes.get_mut(index)).context("no such node")?;
        node.server.kill()
    }

    /// Starts a killed node's server again, with the data that it had, and waits until it is in step.
    ///
    /// # Errors
    /// When there is none, or the others do not take it back.
    pub fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        let node = number.checked_sub(1).and_then(|index| self.nodes.get_mut(index)).context("no such node")?;
        node.server = serve(&node.container)?;
        wait_until_ok(&node.container)?;
        wait_until_in_step(&node.container)
    }
}

/// The address of a node.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 38, 0, 10 + number)
}

fn serve(container: &Container) -> anyhow::Result<Proc> {
    let directory = container.file("data");
    fs::create_dir_all(&directory)?;
    let configuration = format!(
        "port 6379\nbind 0.0.0.0\nprotected-mode no\ndir {}\nsave \"\"\nappendonly yes\ncluster-enabled yes\n\
         cluster-config-file nodes.conf\ncluster-node-timeout {NODE_TIMEOUT_MS}\nrepl-diskless-sync-delay 0\n",
        directory.display()
    );
    let path = container.file("redis.conf");
    fs::write(&path, configuration)?;
    container.spawn("redis.log", &format!("redis-server {}", path.display()))
}

/// Runs `redis-cli` in a container; without `-h` it speaks to the server there.
///
/// # Errors
/// When it cannot be run or hangs.
pub fn cli(container: &Container, arguments: &str) -> anyhow::Result<Done> {
    container.try_sh(&format!("redis-cli {arguments}"))
}

/// Waits until the server in a container says that the cluster is whole, and says how long that took.
///
/// # Errors
/// When it is not in time.
pub fn wait_until_ok(container: &Container) -> anyhow::Result<Duration> {
    let what = format!("cluster_state:ok in {}", container.name());
    let probe = || {
        let info = cli(container, "cluster info")?.ok()?;
        let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        ensure!(field("cluster_state") == Some("ok"), "{info}");
        ensure!(field("cluster_slots_ok") == Some(SLOTS), "{info}");
        Ok(())
    };
    eventually_in(FAILOVER, &what, probe).map(|((), took)| took)
}

/// Waits until the server in a container is a master, or a replica that has what its master has: only such a replica
/// may take over.
fn wait_until_in_step(container: &Container) -> anyhow::Result<()> {
    eventually(READY, &format!("{} to have its master's data", container.name()), || {
        let info = cli(container, "info replication")?.ok()?;
        ensure!(info.contains("role:master") || info.contains("master_link_status:up"), "{info}");
        Ok(())
    })
}

/// The addresses of the masters that are alive and have slots, as the server in a container sees it.
///
/// # Errors
/// When it does not answer.
pub fn masters(container: &Container) -> anyhow::Result<Vec<Ipv4Addr>> {
    let nodes = cli(container, "cluster nodes")?.ok()?;
    // id ip:port@bus flags master ping pong epoch link slots...
    let master = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let flags: Vec<&str> = words.get(2)?.split(',').collect();
        let alive = flags.contains(&"master") && !flags.iter().any(|flag| flag.starts_with("fail"));
        (alive && words.len() > 8).then(|| words.get(1)?.split(':').next()?.parse().ok()).flatten()
    };
    let mut masters: Vec<Ipv4Addr> = nodes.lines().filter_map(master).collect();
    masters.sort();
    Ok(masters)
}

/// Waits until `lost` is no master any more and all slots are served again; says how long that took.
///
/// # Errors
/// When no replica takes over in time.
pub fn wait_for_failover(witness: &Container, lost: Ipv4Addr) -> anyhow::Result<Duration> {
    let what = format!("a replica to take over from {lost}");
    let probe = || {
        let masters = masters(witness)?;
        ensure!(masters.len() == 3 && !masters.contains(&lost), "masters are {masters:?}");
        Ok(())
    };
    let ((), took) = eventually_in(FAILOVER, &what, probe)?;
    Ok(took + wait_until_ok(witness)?)
}

/// Writes `count` keys into the cluster from a container, entering at the server called `name`.
///
/// # Errors
/// When one is refused.
pub fn write(container: &Container, name: &str, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let said = cli(container, &format!("-c -h {name} set key:{number} value:{number}"))?.ok()?;
        ensure!(said.trim() == "OK", "set key:{number}: {said}");
    }
    Ok(())
}

/// Reads them back.
///
/// # Errors
/// When one is missing or wrong.
pub fn read(container: &Container, name: &str, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        // After a failover each node finds out for itself that the cluster is whole.
        eventually(READY, &format!("key:{number} to be read"), || {
            let said = cli(container, &format!("-c -h {name} get key:{number}"))?.ok()?;
            ensure!(said.trim() == format!("value:{number}"), "get key:{number}: {said}");
            Ok(())
        })?;
    }
    Ok(())
}
