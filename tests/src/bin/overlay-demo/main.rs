//! The demo: a Redis Cluster of six on three hosts, over one overlay network. It loses a master, then a host.

#![forbid(unsafe_code)]

mod page;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use overlay_tests::eventually::eventually_in;
use overlay_tests::lab::redis::{self, Redis};
use overlay_tests::lab::{Lab, tails};
use overlay_tests::sandbox::{self, Sandbox};

use page::Page;

/// A Redis Cluster on three hosts over one overlay network, in a private world of namespaces
#[derive(Parser)]
#[command(name = "demo.sh", version)]
struct Cli {
    /// Leave the hosts up at the end, and say how to enter them
    #[arg(long)]
    keep: bool,
}

const NETWORK: &str = "redis-net";
const SUBNET: &str = "172.38.0.0/16";
const KEYS: usize = 20;
/// A crashed host's names and rows are to be gone within this time.
const WITHDRAWN: Duration = Duration::from_secs(3);

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let sandbox = sandbox::enter()?;
    let mut page = Page::new();
    let mut lab = None;
    let played = play(&mut page, &mut lab);
    match &played {
        Ok(_) => page.verdict(true, "the cluster lost a master and a host, and no key"),
        Err(e) => {
            eprintln!("\n{}\n{e:#}", tails());
            page.verdict(false, "see above");
        }
    }
    if let (true, Some(lab)) = (cli.keep, &lab) {
        keep(&page, lab, sandbox)?;
    }
    Ok(if played.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays it all; the servers live as long as what is returned.
fn play(page: &mut Page, lab: &mut Option<Lab>) -> anyhow::Result<Redis> {
    page.step("Three hosts, an overlayd on each");
    page.say(
        "Each host is a set of namespaces on a switch, 192.0.2.0/24; this machine's own network is not touched.\n\
         The agents find each other by gossip, sealed with one cluster key. There is no store and no manager.",
    );
    let lab = lab.insert(Lab::with_agents(3)?);
    page.on_host(lab, "h1", "overlayctl host ls")?;

    page.step("One network for all of them");
    page.on_host(lab, "h1", &format!("overlayctl network create {NETWORK} --subnet {SUBNET}"))?;
    page.say("\nEvery host knows it at once:");
    eventually_in(WITHDRAWN, "h3 to know the network", || lab.json("h3", &format!("network inspect {NETWORK}")))?;
    page.on_host(lab, "h3", "overlayctl network ls")?;

    page.step("Six containers with fixed addresses, two per host, a redis-server in each");
    let mut cluster = Redis::start(lab, NETWORK)?;
    for node in &cluster.nodes {
        lab.wait_until_reachable(NETWORK, &node.container)?;
    }
    page.say("Each was attached like this one:");
    page.say("  overlayctl network connect redis-net --netns /run/netns/redis-1 --name redis-1 --ip 172.38.0.11");
    page.on_host(lab, "h2", &format!("overlayctl endpoint ls {NETWORK}"))?;

    kernel(page, lab, &cluster)?;
    names(page, &cluster)?;

    page.step("A Redis Cluster: three masters, a replica each, on another host than its master");
    let first = &cluster.node(1)?.container;
    page.typed("redis-1 on h1", &format!("redis-cli {}", Redis::CREATE));
    let said = cluster.create()?;
    let (masters, rest) = said.split_once("Adding replica").unwrap_or((&said, ""));
    page.say(&plain(masters));
    page.say(&format!("Adding replica{}", plain(rest).lines().take(3).collect::<Vec<_>>().join("\n")));
    page.beginning_in_container(first, "redis-cli cluster info", 5)?;

    keys(page, lab)?;
    lose_a_master(page, lab, &mut cluster)?;
    lose_a_host(page, lab, &cluster)?;
    Ok(cluster)
}

/// The tables that a reader of a Docker networking guide looks for.
fn kernel(page: &mut Page, lab: &Lab, cluster: &Redis) -> anyhow::Result<()> {
    page.step("What that is in the kernel");
    page.say("In the container: an ordinary interface, with the gateway as default route.");
    let first = &cluster.node(1)?.container;
    page.in_container(first, "ip -brief address")?;
    page.in_container(first, "ip route")?;
    page.say("\nOn the host, a namespace per network: a bridge with a veth port per container, and the tunnel, vx0.");
    page.in_segment(lab, "h1", NETWORK, "ip -brief link")?;
    page.in_segment(lab, "h1", NETWORK, "bridge link")?;
    page.say("\nOne row per far container says behind which host it is; nothing is ever flooded.");
    page.in_segment(lab, "h1", NETWORK, "bridge fdb show dev vx0")?;
    page.in_segment(lab, "h1", NETWORK, "ip neighbour show dev br0")?;
    page.say("\nThe same as overlayctl shows it, and which host may hand out which addresses:");
    page.on_host(lab, "h1", &format!("overlayctl fdb {NETWORK}"))?;
    page.on_host(lab, "h1", &format!("overlayctl lease ls {NETWORK}")).map(|_| ())
}

fn names(page: &mut Page, cluster: &Redis) -> anyhow::Result<()> {
    page.step("Names, and the first packet");
    let last = &cluster.node(6)?.container;
    page.in_container(last, "dig +short redis-1")?;
    page.in_container(last, "dig +short redis-1.redis-net")?;
    page.in_container(last, "dig +short -x 172.38.0.11")?;
    page.in_container(last, "ping -c 2 redis-1").map(|_| ())
}

fn keys(page: &mut Page, lab: &Lab) -> anyhow::Result<()> {
    page.step("Keys, written and read by name");
    page.say("The client is a process on h3; `overlayctl run` gives it an interface for as long as it runs.");
    let client = format!("overlayctl run --network {NETWORK} --name client --");
    let said = page.on_host(lab, "h3", &format!("{client} redis-cli -c -h redis-1 set greeting hello"))?;
    ensure!(said.trim() == "OK", "the cluster did not take the key: {said}");
    let said = page.on_host(lab, "h3", &format!("{client} redis-cli -c -h redis-4 get greeting"))?;
    ensure!(said.trim() == "hello", "the cluster lost the key: {said}");
    let writer = lab.reachable("h2", NETWORK, "writer", "")?;
    redis::write(&writer, "redis-1", KEYS)?;
    redis::read(&writer, "redis-6", KEYS)?;
    page.say(&format!("\n{KEYS} more keys were written on h2 and read back."));
    Ok(())
}

fn lose_a_master(page: &mut Page, lab: &Lab, cluster: &mut Redis) -> anyhow::Result<()> {
    page.step("A master's process is killed");
    let lost = redis::address(1);
    cluster.kill(1)?;
    page.say(&format!("redis-1 ({lost}) on h1 got a SIGKILL."));
    let witness = &cluster.node(3)?.container;
    page.took("A replica took over, all 16384 slots served", redis::wait_for_failover(witness, lost)?);
    page.in_container(witness, "redis-cli cluster nodes")?;
    redis::read(witness, "redis-3", KEYS)?;
    let client = format!("overlayctl run --network {NETWORK} --name client --");
    let said = page.on_host(lab, "h3", &format!("{client} redis-cli -c -h redis-4 get greeting"))?;
    ensure!(said.trim() == "hello", "the key is gone: {said}");
    page.say(&format!("\nAll {} keys are there.", KEYS + 1));
    cluster.restart(1)?;
    page.say("redis-1 is started again, as a replica, and the cluster is as whole as it was:");
    let check = format!("--cluster check {}:6379", redis::address(4));
    page.typed("redis-4 on h2", &format!("redis-cli {check}"));
    let said = plain(&redis::cli(&cluster.node(4)?.container, &check)?.ok()?);
    ensure!(!said.contains("[ERR]"), "the check is not clean: {said}");
    said.lines().filter(|line| line.starts_with("[OK]")).for_each(|line| page.say(line));
    Ok(())
}

fn lose_a_host(page: &mut Page, lab: &mut Lab, cluster: &Redis) -> anyhow::Result<()> {
    page.step("A whole host dies");
    page.say("h3 with a master, a replica and its agent: every process is killed, the link is gone.");
    ensure!(!lab.kernel_rows("h1", NETWORK, "h3")?.is_empty(), "h1 has no rows for h3");
    lab.crash("h3")?;
    let witness = &cluster.node(2)?.container;
    let ((), gone) = eventually_in(WITHDRAWN, "names and rows of h3 to be withdrawn", || {
        let reply = witness.dig("redis-5")?;
        ensure!(reply.status == "NXDOMAIN", "redis-5 is still answered: {reply:?}");
        let rows = lab.kernel_rows("h1", NETWORK, "h3")?;
        ensure!(rows.is_empty(), "h1 still sends to h3: {rows:?}");
        Ok(())
    })?;
    page.took("Its names and rows are withdrawn on the others", gone);
    page.on_host(lab, "h1", "overlayctl host ls")?;
    page.in_segment(lab, "h1", NETWORK, "bridge fdb show dev vx0")?;
    page.say("\nThe name of a container that lived there is gone, that of another one is not:");
    page.beginning_in_container(witness, "dig +noall +comments redis-5", 2)?;
    page.in_container(witness, "dig +short redis-4")?;
    page.say("\n");
    page.took("A replica took over from its master", redis::wait_for_failover(witness, redis::address(5))?);
    redis::read(witness, "redis-4", KEYS)?;
    let said = page.in_container(witness, "redis-cli -c get greeting")?;
    ensure!(said.trim() == "hello", "the key is gone: {said}");
    page.say(&format!("\nAll {} keys are there.", KEYS + 1));
    Ok(())
}

/// Without the escape sequences that redis-cli paints with.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// Leaves the lab up until somebody has had enough.
fn keep(page: &Page, lab: &Lab, sandbox: Sandbox) -> anyhow::Result<()> {
    let labtool = std::fs::canonicalize(lab.programs().labtool())?;
    let enter = |pid: i32, more: &str| {
        let (target, labtool) = (sandbox.outer_pid, labtool.display());
        let user = if sandbox.own_user_namespace { " --user --preserve-credentials" } else { "" };
        format!("nsenter -t {target}{user} --mount --net --ipc --uts --pid {labtool} enter --host {pid}{more} bash")
    };
    page.say("\nThe hosts are up until you press Ctrl-C. From another terminal, as the same user:\n ");
    for name in lab.names() {
        let host = lab.host(&name)?;
        // A crashed host's pid is nobody's.
        if host.is_up() {
            page.say(&format!("# {name}\n{}\n ", enter(host.pid1(), "")));
        }
    }
    let first = lab.host("h1").context("no h1")?;
    let container = " --netns /run/netns/redis-1 --resolv-conf /run/lab/hosts/h1/containers/redis-1/resolv.conf";
    page.say(&format!("# redis-1, a container on h1\n{}\n ", enter(first.pid1(), container)));
    page.say("There, try: overlayctl status; overlayctl endpoint ls; redis-cli -c -h redis-4 get greeting");

    let mut ends = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| ends.add(signal));
    ends.thread_block()?;
    ends.wait()?;
    Ok(())
}
