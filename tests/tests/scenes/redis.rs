//! The main job.

use anyhow::ensure;
use overlay_tests::eventually::eventually;
use overlay_tests::lab::redis::{self, Redis};
use overlay_tests::lab::{Lab, Oracle};

use super::support::{SECOND, took};

const KEYS: usize = 50;

pub fn a_redis_cluster_forms_and_survives_the_loss_of_a_master() -> anyhow::Result<()> {
    let mut lab = Lab::with_agents(3)?;
    lab.network("redis-net", "172.38.0.0/16")?;
    let mut cluster = Redis::start(&lab, "redis-net")?;
    let client = lab.reachable("h3", "redis-net", "client", "")?;
    let watched: Vec<_> = cluster.nodes.iter().map(|node| &node.container).chain([&client]).collect();
    let oracle = Oracle::watch(&watched)?;

    cluster.create()?;
    let check = format!("--cluster check {}:6379", redis::address(4));
    redis::cli(&client, &check)?.ok()?;
    redis::write(&client, "redis-1", KEYS)?;
    redis::read(&client, "redis-4", KEYS)?;

    cluster.kill(1)?;
    took(
        "failover after a master's process",
        redis::wait_for_failover(&cluster.node(3)?.container, redis::address(1))?,
    );
    redis::read(&client, "redis-3", KEYS)?;
    cluster.restart(1)?;
    eventually(20 * SECOND, "the check to be clean again", || {
        let said = redis::cli(&client, &check)?.ok()?;
        ensure!(!said.contains("[ERR]") && said.contains("[OK] All 16384 slots covered"), "{said}");
        Ok(())
    })?;
    oracle.stop()?;

    // A whole host: a master of the remaining ones dies with it.
    lab.crash("h3")?;
    let witness = &cluster.node(2)?.container;
    took("failover after a master's host", redis::wait_for_failover(witness, redis::address(5))?);
    redis::read(&cluster.node(3)?.container, "redis-2", KEYS)
}
