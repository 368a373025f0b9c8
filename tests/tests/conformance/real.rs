//! The bench of the real kernel: a network namespace that plays the host, and the programs that people use.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use libtest_mimic::Failed;
use nix::sched::{CloneFlags, setns};
use overlay::datapath::attention::Look;
use overlay::datapath::fake::Fault;
use overlay::datapath::foreign_chains::{Calls, ChainName, Policy};
use overlay::datapath::kernel_api::Kernel;
use overlay::kernel::{Config, RealKernel, netns};
use overlay::model::addr::IfName;
use overlay::model::id::{NetworkId, Vni};
use overlay::model::intent::NetnsRef;

use crate::bench::Bench;
use crate::world::{PORT, VTEP, vni};

/// Runs a case on the real kernel, in a fresh host.
pub fn run<C, F>(case: C) -> Result<(), Failed>
where
    C: FnOnce(RealBench) -> F + Send,
    F: Future<Output = anyhow::Result<()>>,
{
    // A thread of its own: it leaves its namespace for good.
    let outcome = std::thread::scope(|scope| scope.spawn(|| run_here(case)).join());
    match outcome {
        Ok(result) => result.map_err(|error| format!("{error:#}").into()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn run_here<C, F>(case: C) -> anyhow::Result<()>
where
    C: FnOnce(RealBench) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bench = RealBench::new()?;
        case(bench).await
    })
}

pub struct RealBench {
    kernel: RealKernel,
    config: Config,
    name: String,
    sockets: Vec<UdpSocket>,
    foreign: u32,
}

/// Names in this process's sandbox.
static NEXT: AtomicU32 = AtomicU32::new(1);

fn next() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl RealBench {
    /// Moves the calling thread into a fresh network namespace, which plays the host.
    pub fn new() -> anyhow::Result<Self> {
        Self::with_vtep(VTEP.into())
    }

    /// A host whose VTEP has this address.
    pub fn with_vtep(vtep: IpAddr) -> anyhow::Result<Self> {
        let name = format!("host{}", next());
        sh(&format!("ip netns add {name}"))?;
        let netns = fs::File::open(Path::new("/run/netns").join(&name))?;
        setns(netns, CloneFlags::CLONE_NEWNET).context("enter the host's namespace")?;
        sh(&format!("ip link set lo up && ip addr add {vtep}/32 dev lo"))?;
        let config = Config { run_dir: PathBuf::from("/run/lab").join(&name), vtep: VTEP.into() };
        Ok(Self { kernel: RealKernel::new(&config)?, config, name, sockets: Vec::new(), foreign: 0 })
    }

    /// The host's name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn run_dir(&self) -> &Path {
        &self.config.run_dir
    }

    /// Another agent's kernel, which has looked once and whose sockets nobody serves any more: its questions are neither
    /// sent nor answered, and once the guard is dropped they all fail.
    pub fn restart_unserved(&mut self) -> anyhow::Result<Unserved> {
        let idle = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let unserved = Unserved(Some(idle));
        let look = || {
            let idle = unserved.0.as_ref().context("a runtime")?;
            idle.block_on(async {
                let mut kernel = RealKernel::new(&self.config)?;
                kernel.observe(&Look::Everything).await?;
                anyhow::Ok(kernel)
            })
        };
        // Elsewhere: one runtime can't run on another.
        let looked = std::thread::scope(|scope| scope.spawn(look).join());
        self.kernel = looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(unserved)
    }

    /// Runs a command line inside a segment; what it printed.
    pub fn inside(&self, network: NetworkId, command: &str) -> anyhow::Result<String> {
        inside(&self.kernel.netns_path(network), command)
    }
}

/// A runtime that carries sockets and never runs.
pub struct Unserved(Option<tokio::runtime::Runtime>);

impl Drop for Unserved {
    fn drop(&mut self) {
        // Not as it is dropped by itself: that waits, which is not allowed on another runtime.
        self.0.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

/// Runs a command line inside a namespace; what it printed.
pub fn inside(netns: &Path, command: &str) -> anyhow::Result<String> {
    sh(&format!("nsenter --net={} {command}", netns.display()))
}

/// Runs a command line in the calling thread's namespace; what it printed.
pub fn sh(command: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`{command}`: {} {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Bench for RealBench {
    type Kernel = RealKernel;

    fn kernel(&mut self) -> &mut RealKernel {
        &mut self.kernel
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.kernel = RealKernel::new(&self.config)?;
        Ok(())
    }

    fn open_container(&mut self, name: &str) -> anyhow::Result<NetnsRef> {
        let name = format!("{name}-{}", next());
        sh(&format!("ip netns add {name} && ip -n {name} link set lo up"))?;
        Ok(netns::identify(&Path::new("/run/netns").join(name))?)
    }

    fn close_container(&mut self, netns: &NetnsRef) -> anyhow::Result<()> {
        let name = netns.path.file_name().context("a path with a name")?.to_string_lossy().into_owned();
        // A namespace ends some time after its last user: its links are gone before it says so here.
        sh(&format!(
            "ip -n {name} link | sed -n 's/^[0-9]*: \\([^@:]*\\)@.*/\\1/p' | xargs -rn1 ip -n {name} link del"
        ))?;
        sh(&format!("ip netns del {name}"))?;
        Ok(())
    }

    fn interfaces(&mut self, netns: &NetnsRef) -> anyhow::Result<BTreeSet<IfName>> {
        let lines = inside(&netns.path, "ip -o link")?;
        let names = lines.lines().filter_map(|line| line.split(['@', ':']).nth(1)).map(str::trim);
        names.filter(|name| *name != "lo").map(|name| Ok(name.parse()?)).collect()
    }

    fn add_foreign_interface(&mut self, netns: &NetnsRef, ifname: &IfName) -> anyhow::Result<()> {
        inside(&netns.path, &format!("ip link add {ifname} type bridge"))?;
        Ok(())
    }

    fn take_vni(&mut self, vni: Vni, port: u16) -> anyhow::Result<()> {
        self.foreign += 1;
        let name = format!("theirs{}", self.foreign);
        sh(&format!("ip link add {name} type vxlan id {vni} dstport {port} local {VTEP}"))?;
        Ok(())
    }

    fn take_udp_port(&mut self, port: u16) -> anyhow::Result<()> {
        self.sockets.push(UdpSocket::bind(("0.0.0.0", port))?);
        Ok(())
    }

    fn add_chain(&mut self, name: &ChainName, policy: Policy, calls: Calls) -> anyhow::Result<()> {
        let hook = "type filter hook forward priority 0; policy";
        let base = match policy {
            Policy::Accept => format!("{{ {hook} accept; }}"),
            Policy::Drop => format!("{{ {hook} drop; }}"),
            Policy::Return => String::new(),
        };
        sh(&format!("nft add table {} {}", name.family, name.table))?;
        sh(&format!("nft 'add chain {name} {base}' && nft add rule {name} tcp dport 1 accept comment theirs"))?;
        if calls == Calls::DockerUser {
            sh(&format!("nft insert rule {name} counter jump DOCKER-USER"))?;
        }
        Ok(())
    }

    fn add_way_out(&mut self, ifname: &IfName) -> anyhow::Result<()> {
        sh(&format!("ip link add {ifname} type veth peer name far"))?;
        // An address that makes itself would differ from one look to the next.
        sh(&format!("ip link set {ifname} addrgenmode none && ip link set far addrgenmode none"))?;
        sh(&format!("ip addr add 203.0.113.2/24 dev {ifname} && ip link set far up && ip link set {ifname} up"))?;
        sh("ip route add default via 203.0.113.1")?;
        Ok(())
    }

    fn inject(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::ForwardingOff => drop(sh("echo 0 > /proc/sys/net/ipv4/ip_forward")?),
            Fault::DeleteAcceptRules(chain) => {
                let handles = "sed -n 's/.*\"overlayd:.* handle //p'";
                drop(sh(&format!(
                    "nft -a list chain {chain} | {handles} | xargs -rn1 nft delete rule {chain} handle"
                ))?);
            }
            Fault::DeleteHostTable => drop(sh("nft delete table inet overlay")?),
            Fault::DeleteNamespace(network) => {
                drop(sh(&format!("umount {0} && rm {0}", self.kernel.netns_path(*network).display()))?);
            }
            Fault::DeletePort(network, ifname) => drop(self.inside(*network, &format!("ip link del {ifname}"))?),
            Fault::DeleteTable(network) => drop(self.inside(*network, "nft flush ruleset")?),
            Fault::AddRule(network) => {
                drop(self.inside(*network, "nft insert rule inet overlay forward tcp dport 1 accept")?);
            }
            Fault::DeleteBridge(network) => drop(self.inside(*network, "ip link del br0")?),
            Fault::BridgeDown(network) => drop(self.inside(*network, "ip link set br0 down")?),
            Fault::DeleteAddress(network, address) => {
                drop(self.inside(*network, &format!("ip addr flush dev br0 to {address}"))?);
            }
            Fault::DeleteTunnel(network) => drop(self.inside(*network, "ip link del vx0")?),
            Fault::LetFlood(network) => {
                drop(self.inside(*network, "bridge link set dev vx0 flood on learning on")?);
                let all = format!(
                    "bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.99 port {PORT} vni {} self",
                    vni(5)
                );
                drop(self.inside(*network, &all)?);
            }
            Fault::DeleteUplink(network) => {
                drop(sh(&format!("ip link del {}", overlay::datapath::desired::uplink_ifname(*network)))?);
            }
            Fault::DeleteDefaultRoute(network) => drop(self.inside(*network, "ip route del default")?),
            Fault::AddAddress(network) => drop(self.inside(*network, "ip addr add 169.254.77.7/16 dev up0")?),
            Fault::Alter(network) => drop(self.inside(*network, "ip link set br0 arp off")?),
            Fault::DetachPort(network, ifname) => {
                drop(self.inside(*network, &format!("ip link set {ifname} nomaster"))?);
            }
            Fault::NarrowPort(network, ifname) => {
                drop(self.inside(*network, &format!("ip link set {ifname} mtu 1280"))?);
            }
            Fault::Unmark(network, ifname) => {
                drop(self.inside(*network, &format!("ip link set {ifname} alias ''"))?);
            }
            Fault::DeleteRemote(network, mac) => {
                drop(self.inside(*network, &format!("bridge fdb del {mac} dev vx0 master"))?);
                drop(self.inside(*network, &format!("bridge fdb del {mac} dev vx0 self"))?);
            }
            Fault::DeleteBridgeRow(network, mac) => {
                drop(self.inside(*network, &format!("bridge fdb del {mac} dev vx0 master"))?);
            }
            Fault::DeleteTunnelRow(network, mac) => {
                drop(self.inside(*network, &format!("bridge fdb del {mac} dev vx0 self"))?);
            }
            Fault::LetAge(network, mac) => {
                drop(self.inside(*network, &format!("bridge fdb del {mac} dev vx0 master"))?);
                drop(self.inside(*network, &format!("bridge fdb replace {mac} dev vx0 master dynamic"))?);
            }
            Fault::DeleteNeighbour(network, address) => {
                drop(self.inside(*network, &format!("ip neigh del {address} dev br0"))?);
            }
        }
        Ok(())
    }

    fn inventory(&mut self, containers: &[&NetnsRef]) -> anyhow::Result<String> {
        let look =
            "ip -o link | sed 's/ mtu .* link/ link/'; ip -o addr; ip route show table all; ip neigh; nft list ruleset";
        let mut all = sh(look)?;
        for netns in containers {
            all += &inside(&netns.path, &format!("sh -c \"{look}\""))?;
        }
        for entry in fs::read_dir(self.config.run_dir.join("netns"))? {
            all += &format!("{}\n", entry?.path().display());
        }
        all += &sh("cat /proc/sys/net/ipv4/ip_forward; ss -Hlun")?;
        Ok(all)
    }
}
