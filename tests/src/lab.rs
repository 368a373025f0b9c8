//! Hosts on a switch, with real agents: what a scene or the demo is played on.
//!
//! ```text
//!             internet (192.0.2.254, beyond it 198.51.100.1 with a name server)
//!                │
//!   h1 ─────── switch ─────── h3        each a process with its own mount, network, PID and UTS
//!  192.0.2.1     │        192.0.2.3     namespaces; the wire can be cut, slowed, made lossy, listened to
//!  2001:db8::1   │        2001:db8::3
//!                h2
//!             192.0.2.2
//! ```
//!
//! Lives in a [`sandbox`](crate::sandbox): the lab makes no attempt to clean up after itself, its end is the
//! sandbox's end. All of its files are below `/run/lab`; a host's own `/run` is private to the host.

mod agent;
mod capture;
mod container;
mod disk;
mod exec;
mod host;
mod observe;
mod programs;
pub mod redis;
mod traffic;
mod views;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

pub use agent::{Agent, Ending};
pub use capture::{Capture, Inner, Tally};
pub use container::Container;
pub use disk::Image;
pub use exec::{Done, Proc, run};
pub use host::{Host, Place};
pub use observe::Oracle;
pub use programs::Programs;
pub use traffic::{Flow, Stream};
pub use views::Reply;
pub use wire::{Wire, mapped};

/// Where the lab keeps its files.
pub const ROOT: &str = "/run/lab";
/// The machine beyond the switch, seen from the hosts: their default gateway.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// An address in the wide world, where a name server and an echo may listen.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The same under IPv6, but for the name server.
pub const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// How long an `overlayctl` may take before the lab calls it hung.
const CTL: Duration = Duration::from_secs(30);

/// The whole set-up.
#[derive(Debug)]
pub struct Lab {
    programs: Programs,
    hosts: BTreeMap<String, Host>,
    agents: BTreeMap<String, Agent>,
    /// What every agent is told beside what it needs.
    told: Vec<String>,
    /// Do the agents deal with each other under IPv6?
    over_ipv6: bool,
    /// How often an agent was doomed.
    dooms: u32,
    /// The underlay: what hosts say to each other goes through it.
    pub wire: Wire,
    internet: Host,
}

impl Lab {
    /// Boots `count` hosts, `h1` and so on, with the addresses 192.0.2.1 and so on. No agent runs yet.
    ///
    /// # Errors
    /// When a program is missing, or this is no sandbox.
    pub fn new(count: u8) -> anyhow::Result<Self> {
        ensure!(PathBuf::from(ROOT).is_dir(), "{ROOT} is missing: a lab needs a sandbox around it");
        let programs = Programs::find()?;
        let wire = Wire::new(&programs)?;
        let internet = Host::boot(&programs, "internet")?;
        wire.plug(&internet, ROUTER)?;
        internet.ip(&format!("address add {WORLD}/32 dev lo"))?;
        internet.ip(&format!("address add {WORLD6}/128 dev lo"))?;
        internet.sysctl("net.ipv4.ip_forward", "1")?;
        let (hosts, agents) = (BTreeMap::new(), BTreeMap::new());
        let mut lab = Self { programs, hosts, agents, told: Vec::new(), over_ipv6: false, dooms: 0, wire, internet };
        for number in 1..=count {
            lab.boot(&format!("h{number}"))?;
        }
        Ok(lab)
    }

    /// [`Lab::new`] with an agent on every host, all of which see each other.
    ///
    /// # Errors
    /// When an agent does not come up; the text has the end of its log.
    pub fn with_agents(count: u8) -> anyhow::Result<Self> {
        Self::with_agents_told(count, "")
    }

    /// [`Lab::with_agents`] with the hosts' IPv6 addresses only: for gossip, for calls, and as tunnel ends.
    ///
    /// # Errors
    /// As there.
    pub fn with_agents_over_ipv6(count: u8) -> anyhow::Result<Self> {
        Self { over_ipv6: true, ..Self::new(count)? }.all_started()
    }

    /// [`Lab::with_agents`] with further arguments for each agent, also when it is started again; they are split at blanks.
    ///
    /// # Errors
    /// As there.
    pub fn with_agents_told(count: u8, more: &str) -> anyhow::Result<Self> {
        let mut lab = Self::new(count)?;
        lab.tell(more);
        lab.all_started()
    }

    fn all_started(mut self) -> anyhow::Result<Self> {
        for host in self.names() {
            self.start(&host)?;
        }
        self.wait_until_all_see_all()?;
        self.wait_until_all_are_members()?;
        Ok(self)
    }

    /// Gives further arguments to each agent that is started from now on, instead of those before; they are split at blanks.
    pub fn tell(&mut self, more: &str) {
        self.told = more.split_whitespace().map(str::to_owned).collect();
    }

    /// The names of all hosts, also of crashed ones.
    pub fn names(&self) -> Vec<String> {
        self.hosts.keys().cloned().collect()
    }

    /// A host by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn host(&self, name: &str) -> anyhow::Result<&Host> {
        self.hosts.get(name).with_context(|| format!("the lab has no host {name}"))
    }

    /// The machine beyond the switch.
    pub fn internet(&self) -> &Host {
        &self.internet
    }

    /// Where the programs are that the lab runs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    fn boot(&mut self, name: &str) -> anyhow::Result<()> {
        let host = Host::boot(&self.programs, name)?;
        self.wire.plug(&host, underlay(name)?)?;
        host.ip(&format!("route add default via {ROUTER}"))?;
        host.ip(&format!("route add default via {}", mapped(ROUTER)))?;
        self.hosts.insert(name.to_owned(), host);
        Ok(())
    }

    /// Pulls a host's plug: every process in it is killed, its namespaces and containers are gone, its disk stays.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn crash(&mut self, name: &str) -> anyhow::Result<()> {
        self.host(name)?;
        // The wire first: a dying host says nothing any more, not even that a port is closed.
        self.wire.unplug(name)?;
        if let Some(host) = self.hosts.get_mut(name) {
            host.kill()?;
        }
        if self.agents.contains_key(name) {
            self.reap(name)?;
        }
        Ok(())
    }

    /// Boots a crashed host again: new boot id, empty `/run`, same disk. Its agent is not started.
    ///
    /// # Errors
    /// When it cannot be booted.
    pub fn reboot(&mut self, name: &str) -> anyhow::Result<()> {
        self.boot(name)
    }

    /// Starts the agent of a host and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends, or does not get ready in time: the text has the end of its log.
    pub fn start(&mut self, name: &str) -> anyhow::Result<()> {
        self.start_with(name, str::to_owned)
    }

    /// [`Lab::start`] with changed arguments.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(&mut self, name: &str, change: impl Fn(&str) -> String) -> anyhow::Result<()> {
        let arguments: Vec<String> = self.overlayd_arguments(name)?.iter().map(|argument| change(argument)).collect();
        self.spare(name)?;
        let mut agent = self.spawn_agent(name, &arguments)?;
        agent.wait_until_ready()?;
        self.agents.insert(name.to_owned(), agent);
        Ok(())
    }

    /// [`Lab::start`] of an agent that kills itself at the `nth` time that it comes to a fail point, such as `after-commit`.
    /// Says whether it is ready: it may be killed before. It needs to be built with its feature `fail-points`.
    ///
    /// # Errors
    /// As there.
    pub fn start_to_fail(&mut self, name: &str, point: &str, nth: u32) -> anyhow::Result<bool> {
        self.doom(name, point, nth)?;
        let mut agent = self.spawn_agent(name, &self.overlayd_arguments(name)?)?;
        let ready = agent.wait_until_ready();
        if agent.is_killed()? {
            return Ok(false);
        }
        self.agents.insert(name.to_owned(), agent);
        ready.map(|()| true)
    }

    /// The agent of a host, which runs or is started next, kills itself at the `nth` time from now that it comes to a fail
    /// point.
    ///
    /// # Errors
    /// When it can't be told.
    pub fn doom(&mut self, name: &str, point: &str, nth: u32) -> anyhow::Result<()> {
        self.dooms += 1;
        let (file, draft) = (fate(name), fate(name).with_extension("draft"));
        fs::write(&draft, format!("{point}:{nth} {}", self.dooms))?;
        // It may be read at any time: as a whole.
        fs::rename(draft, file).context("a fate is sealed")
    }

    /// Takes [`Lab::doom`] back. Every [`Lab::start`] does.
    ///
    /// # Errors
    /// When it can't be told.
    pub fn spare(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(fate(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("a fate is not undone"),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn spawn_agent(&self, name: &str, arguments: &[String]) -> anyhow::Result<Agent> {
        let fate = fate(name);
        Agent::start(&self.programs, self.host(name)?, arguments, &[("OVERLAYD_FAIL_POINT", fate.as_path())])
    }

    /// Whether the agent of a host, which was started, is killed; if so, it is collected.
    ///
    /// # Errors
    /// When it ended in another way, or was not started.
    pub fn is_killed(&mut self, name: &str) -> anyhow::Result<bool> {
        let agent = self.agents.get_mut(name).with_context(|| format!("no agent was started on {name}"))?;
        let killed = agent.is_killed()?;
        if killed {
            self.agents.remove(name);
        }
        Ok(killed)
    }

    /// Whether the agent of a host has not ended.
    ///
    /// # Errors
    /// When its process cannot be asked.
    pub fn is_running(&mut self, name: &str) -> anyhow::Result<bool> {
        self.agents.get_mut(name).map_or(Ok(false), Agent::is_running)
    }

    /// What the lab starts a host's agent with: the other hosts are its seeds.
    ///
    /// # Errors
    /// When there is no such host, or no cluster key can be made.
    pub fn overlayd_arguments(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let host = self.host(name)?;
        let flag = |flag: &str, value: String| [flag.to_owned(), value];
        let mut arguments = Vec::from(flag("--name", name.to_owned()));
        arguments.extend(flag("--address", self.underlay(name)?.to_string()));
        for peer in self.hosts.keys().filter(|peer| *peer != name).take(3) {
            arguments.extend(flag("--join", SocketAddr::new(self.underlay(peer)?, 7946).to_string()));
        }
        arguments.extend(flag("--cluster-key-file", self.cluster_key()?.display().to_string()));
        arguments.extend(flag("--state-dir", host.state_dir().display().to_string()));
        arguments.extend(flag("--run-dir", host::RUN_DIR.to_owned()));
        arguments.extend(self.told.iter().cloned());
        Ok(arguments)
    }

    /// The address of a host that its agent uses.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn underlay(&self, name: &str) -> anyhow::Result<IpAddr> {
        let address = underlay(name)?;
        Ok(if self.over_ipv6 { mapped(address).into() } else { address.into() })
    }

    fn cluster_key(&self) -> anyhow::Result<PathBuf> {
        let path = PathBuf::from(ROOT).join("cluster.key");
        if !path.exists() {
            let mut keygen = std::process::Command::new(self.programs.overlayctl()?);
            let key = run(keygen.args(["cluster", "keygen"]), CTL)?.ok()?;
            exec::write_private(&path, &key)?;
        }
        Ok(path)
    }

    /// Ends the agent of a host; nothing else of the host is touched.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn stop(&mut self, name: &str, ending: Ending) -> anyhow::Result<()> {
        let mut agent = self.agents.remove(name).with_context(|| format!("no agent runs on {name}"))?;
        agent.stop(ending)
    }

    /// Collects the agent of a host, which something else killed.
    ///
    /// # Errors
    /// When none was started, or it lives.
    pub fn reap(&mut self, name: &str) -> anyhow::Result<()> {
        let mut agent = self.agents.remove(name).with_context(|| format!("no agent was started on {name}"))?;
        agent.reap()
    }

    /// A host's running agent.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent(&self, name: &str) -> anyhow::Result<&Agent> {
        self.agents.get(name).with_context(|| format!("no agent runs on {name}"))
    }

    /// The program `overlayctl`, for scripts that run it.
    ///
    /// # Errors
    /// When it is not built.
    pub fn overlayctl(&self) -> anyhow::Result<std::path::PathBuf> {
        self.programs.overlayctl()
    }

    /// Runs `overlayctl` on a host; `arguments` are split at blanks.
    ///
    /// # Errors
    /// When it cannot be run or hangs; that it fails is in [`Done`].
    pub fn ctl(&self, host: &str, arguments: &str) -> anyhow::Result<Done> {
        let program = self.programs.overlayctl()?.display().to_string();
        let words: Vec<&str> = std::iter::once(program.as_str()).chain(arguments.split_whitespace()).collect();
        run(&mut self.host(host)?.place().command(&words), CTL)
    }

    /// Starts `overlayctl` on a host and does not wait for its end; `label` names its output file.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start_ctl(&self, host: &str, arguments: &str, label: &str) -> anyhow::Result<Proc> {
        let line = format!("{} {arguments}", self.programs.overlayctl()?.display());
        self.host(host)?.place().spawn(&line, &Host::directory(host).join(label))
    }

    /// Runs `overlayctl -o json` on a host and reads what it prints.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, host: &str, arguments: &str) -> anyhow::Result<Value> {
        self.ctl(host, &format!("-o json {arguments}"))?.json()
    }

    /// Makes a container (a network namespace) on a host.
    ///
    /// # Errors
    /// When there is one of that name on the host.
    pub fn container(&self, host: &str, name: &str) -> anyhow::Result<Container> {
        Container::new(self.host(host)?, name)
    }

    /// Makes a container on a host and connects it: `more` has further flags, split at blanks.
    ///
    /// # Errors
    /// When it cannot be connected.
    pub fn connect(&self, host: &str, network: &str, name: &str, more: &str) -> anyhow::Result<Container> {
        let mut container = self.container(host, name)?;
        let line = format!("network connect {network} --netns {} --name {name} {more}", container.netns().display());
        container.attached(&self.json(host, &line)?)?;
        Ok(container)
    }

    /// Waits until every running agent sees every other one.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_all_see_all(&self) -> anyhow::Result<()> {
        crate::eventually::eventually(Duration::from_secs(20), "all hosts see all hosts", || {
            for name in self.agents.keys() {
                let seen = self.json(name, "host ls")?;
                let live = seen.as_array().map_or(0, |rows| rows.iter().filter(|row| row["state"] == "alive").count());
                ensure!(live == self.agents.len(), "{name} sees {live} live hosts of {}: {seen}", self.agents.len());
                let status = self.json(name, "status")?;
                ensure!(status["synced"] == true, "{name} has not caught up: {status}");
            }
            Ok(())
        })
    }

    /// Waits until every running agent is a member of its cluster: to hear each other is not enough to make a network.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_all_are_members(&self) -> anyhow::Result<()> {
        crate::eventually::eventually(Duration::from_secs(20), "all hosts to be members", || {
            for name in self.agents.keys() {
                let status = self.json(name, "status")?;
                ensure!(status["phase"] == "established", "{name} is none yet: {status}");
            }
            Ok(())
        })
    }
}

/// The last lines of every agent's log, for a scene that failed.
pub fn tails() -> String {
    let hosts = fs::read_dir(PathBuf::from(ROOT).join("hosts")).into_iter().flatten().flatten();
    let mut logs: Vec<PathBuf> = hosts.map(|host| host.path().join("overlayd.log")).collect();
    logs.sort();
    let tail = |path: &PathBuf| {
        let log = fs::read_to_string(path).ok()?;
        Some(format!("--- {}, last lines\n{}\n", path.display(), exec::tail(&log, 40)))
    };
    logs.iter().filter_map(tail).collect()
}

/// Where it is written at which fail point the agent of a host is to kill itself.
fn fate(name: &str) -> PathBuf {
    Host::directory(name).join("fail-point")
}

/// The underlay address of the host `hN`.
///
/// # Errors
/// When the name is not of that form.
pub fn underlay(name: &str) -> anyhow::Result<Ipv4Addr> {
    let number = name.strip_prefix('h').and_then(|number| number.parse().ok());
    number.map(|number| Ipv4Addr::new(192, 0, 2, number)).with_context(|| format!("{name} is no host of the lab"))
}
