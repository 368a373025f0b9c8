//! The life of endpoints: containers that go, come back, or were never containers.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use overlay_tests::eventually::{eventually, eventually_in};
use overlay_tests::lab::Lab;

use super::support::{SECOND, took};

/// The kernel clears namespaces one after the other, also those that another scene leaves behind.
const RELEASED: Duration = Duration::from_secs(15);

pub fn an_endpoint_whose_namespace_is_gone_is_released() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let witness = lab.reachable("h1", "web", "witness", "")?;
    let going = lab.reachable("h2", "web", "going", "")?;
    let stays = lab.reachable("h2", "web", "stays", "")?;
    ensure!(lab.kernel_rows("h1", "web", "h2")?.len() == 2, "h1 lacks rows");

    going.remove()?;
    let ((), after) = eventually_in(RELEASED, "the endpoint to be released everywhere", || {
        for host in ["h1", "h2"] {
            let rows = lab.rows(host, "endpoint ls web")?;
            ensure!(rows.iter().all(|row| row["name"] != "going"), "{host} lists it");
        }
        ensure!(lab.kernel_rows("h1", "web", "h2")?.len() == 1, "h1 has its row");
        ensure!(witness.dig("going")?.status == "NXDOMAIN", "its name is answered");
        Ok(())
    })?;
    took("an endpoint without namespace is released", after);
    let log = lab.agent("h2")?.log()?;
    let told = log.lines().find(|line| line.contains("released")).context("its release is not logged")?;
    ensure!(told.contains("endpoint=going network=web"), "not by their names: {told}");
    witness.ping(stays.address()?, SECOND)
}

pub fn an_endpoint_lives_as_long_as_anybody_is_in_its_namespace() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let witness = lab.reachable("h2", "web", "witness", "")?;
    // Two processes in one namespace, of which there is no other trace.
    let pod = lab.container("h1", "pod")?;
    let (mut first, mut second) = (pod.spawn("first", "sleep 600")?, pod.spawn("second", "sleep 600")?);
    let pid = eventually(5 * SECOND, "the first process to run", || first.pid_on_host())?;
    eventually(5 * SECOND, "the second process to run", || second.pid_on_host())?;
    pod.remove()?;
    let app = lab.json("h1", &format!("network connect web --pid {pid} --name app"))?;
    let address = app["addresses"][0].as_str().and_then(|text| text.split('/').next()).context("no address")?;
    eventually(5 * SECOND, "it to be reached", || witness.ping(address, SECOND))?;

    // The path is gone, the container is not.
    first.kill()?;
    let spare = lab.container("h1", "spare")?;
    let refused = lab.ctl("h1", "network connect web --netns /run/netns/spare --name app")?;
    let told = ["name `app`", "in use", "host `h1`"].iter().all(|word| refused.stderr.contains(word));
    ensure!(refused.code == 1 && told, "its name was taken over, or it is not told who has it: {refused:?}");
    let rows = lab.rows("h1", "endpoint ls web")?;
    ensure!(rows.iter().any(|row| row["id"] == app["id"]), "it was released: {rows:?}");
    witness.ping(address, SECOND)?;

    second.kill()?;
    let ((), after) = eventually_in(RELEASED, "the endpoint to be released everywhere", || {
        for host in ["h1", "h2"] {
            let rows = lab.rows(host, "endpoint ls web")?;
            ensure!(rows.iter().all(|row| row["name"] != "app"), "{host} lists it");
        }
        Ok(())
    })?;
    took("released after its last process", after);
    let again = lab.json("h1", "network connect web --netns /run/netns/spare --name app")?;
    ensure!(again["addresses"] == app["addresses"], "it had {address} and got {again}");

    // A runtime that starts a container again at once waits for nobody.
    spare.remove()?;
    let _quick = lab.container("h1", "quick")?;
    // If the old namespace is cleared later than one request waits for, the next one finds it gone.
    let quick = eventually(RELEASED, "the next one to be attached", || {
        lab.json("h1", "network connect web --netns /run/netns/quick --name app")
    })?;
    ensure!(quick["addresses"] == app["addresses"], "it had {address} and got {quick}");
    Ok(())
}

pub fn a_restarted_container_keeps_its_address() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let witness = lab.reachable("h2", "web", "witness", "")?;
    let first = lab.reachable("h1", "web", "app", "")?;
    let address = first.address()?;
    first.remove()?;
    eventually(RELEASED, "the old one to be noticed", || {
        ensure!(lab.rows("h1", "endpoint ls web")?.iter().all(|row| row["name"] != "app"), "it is listed");
        Ok(())
    })?;
    // A newcomer in between does not get the address that is held.
    let newcomer = lab.connect("h1", "web", "newcomer", "")?;
    ensure!(newcomer.address()? != address, "the address was given away at once");
    let again = lab.reachable("h1", "web", "app", "")?;
    ensure!(again.address()? == address, "it had {address} and got {:?}", again.address());
    witness.ping("app", SECOND)
}

pub fn a_network_goes_with_its_last_trace() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    let before = traces(&lab, "h1")?;
    lab.network("web", "10.20.0.0/24")?;
    let container = lab.connect("h1", "web", "app", "")?;
    let segment = lab.segment("h1", "web")?;
    lab.ctl("h1", "network disconnect web app")?.ok()?;
    let left = container.sh("ip -br link")?;
    ensure!(left.lines().count() == 1, "the container still has {left}");
    lab.ctl("h1", "network rm web")?.ok()?;
    eventually(5 * SECOND, "nothing to be left of the network", || {
        for host in ["h1", "h2"] {
            ensure!(lab.rows(host, "network ls")?.is_empty(), "{host} lists it");
        }
        let after = traces(&lab, "h1")?;
        ensure!(before == after, "before {before}\nafter {after}");
        let file = lab.host("h1")?.place().try_sh(&format!("test -e {}", segment.display()))?;
        ensure!(file.code != 0, "{} is left", segment.display());
        Ok(())
    })
}

/// Links, mounts and rules of a host, but for the lab's container namespaces.
fn traces(lab: &Lab, host: &str) -> anyhow::Result<String> {
    let host = lab.host(host)?;
    let mounts = host.sh("cat /proc/self/mounts")?;
    let mounts: Vec<&str> = mounts.lines().filter(|line| line.contains("/run/overlayd")).collect();
    Ok(format!("{}{}{}", host.sh("ip -br link")?, mounts.join("\n"), host.sh("nft -s list ruleset")?))
}

pub fn run_passes_exit_status_and_leaves_nothing() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let far = lab.reachable("h2", "web", "far", "--ip 10.20.0.9")?;
    let keep = lab.reachable("h1", "web", "keep", "")?;
    let before = traces(&lab, "h1")?;
    let run = |line: &str| lab.ctl("h1", &format!("run --network web --name job {line}"));

    let shown = run("--ip 10.20.0.33 -- ip -br address")?.ok()?;
    ensure!(shown.contains("10.20.0.33/24"), "it has {shown}");
    // The far host learns of the job's address at about the time at which the first packet arrives.
    let pinged = run("-- ping -n -c 3 -i 0.2 -W 1 far")?;
    ensure!(pinged.code == 0, "the name of a far container, by its own resolv.conf: {pinged:?}");
    ensure!(run("-- /no/such/program")?.code != 0, "a command that is none");
    let script = Path::new("/run/lab/exit-7");
    std::fs::write(script, "exit 7\n")?;
    ensure!(run("-- sh /run/lab/exit-7")?.code == 7, "the exit status is lost");
    std::fs::write(script, "kill -TERM $$\n")?;
    ensure!(run("-- sh /run/lab/exit-7")?.code == 128 + 15, "the signal is lost");

    eventually(RELEASED, "the endpoint to be gone with its process", || {
        let rows = lab.rows("h2", "endpoint ls web")?;
        ensure!(rows.iter().all(|row| row["name"] != "job"), "{rows:?}");
        let after = traces(&lab, "h1")?;
        ensure!(before == after, "before {before}\nafter {after}");
        Ok(())
    })?;
    keep.ping(far.address()?, SECOND)
}

pub fn any_address_can_be_asked_for_on_any_host() -> anyhow::Result<()> {
    let lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/24")?;
    let mut all = Vec::new();
    for (host, last) in [("h1", 11), ("h2", 12), ("h3", 13), ("h1", 250), ("h2", 251), ("h3", 252)] {
        let name = format!("at-{last}");
        let container = lab.reachable(host, "web", &name, &format!("--ip 10.20.0.{last}"))?;
        ensure!(container.address()? == Ipv4Addr::new(10, 20, 0, last), "{name} has {:?}", container.address());
        all.push(container);
    }
    for container in &all {
        lab.wait_until_reachable("web", container)?;
    }
    for (from, to) in all.iter().zip(all.iter().cycle().skip(1)) {
        from.ping(to.address()?, SECOND).with_context(|| format!("{} to {}", from.name(), to.name()))?;
    }
    // Where each lives is what the leases say.
    ensure!(!lab.rows("h1", "lease ls web")?.is_empty(), "no leases");
    Ok(())
}

pub fn dynamic_addresses_are_never_doubled() -> anyhow::Result<()> {
    const EACH: usize = 12;
    let lab = Lab::with_agents(3)?;
    lab.network("web", "10.20.0.0/25")?;
    // All hosts at once.
    let containers = std::thread::scope(|scope| {
        let hosts = lab.names().into_iter().map(|host| {
            let lab = &lab;
            scope.spawn(move || {
                let connect = |number| lab.connect(&host, "web", &format!("{host}-{number}"), "");
                (0..EACH).map(connect).collect::<anyhow::Result<Vec<_>>>()
            })
        });
        let hosts: Vec<_> = hosts.collect();
        let joined = hosts.into_iter().map(|host| host.join().map_err(|_| anyhow::anyhow!("a thread died"))?);
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let containers: Vec<_> = containers.iter().flatten().collect();
    let oracle = overlay_tests::lab::Oracle::watch(&containers)?;
    let addresses: std::collections::BTreeSet<_> =
        containers.iter().map(|container| container.address()).collect::<Result<_, _>>()?;
    ensure!(addresses.len() == 3 * EACH, "{} addresses for {} containers", addresses.len(), 3 * EACH);
    oracle.stop()?;
    Ok(())
}
