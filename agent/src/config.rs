//! How the daemon is told what to do: flags, then the environment, then the file, then what goes without saying.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use overlay::model::network::Name;
use serde::Deserialize;

use overlay_gossip::ClusterKey;

/// What can be said, each by flag, environment variable or line of the configuration file.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// What this host is called; one DNS label [default: the first label of the host's name]
    #[arg(long, env = "OVERLAYD_NAME")]
    pub name: Option<String>,
    /// This host's address on the underlay: the others reach its tunnels and its agent there
    #[arg(long, env = "OVERLAYD_ADDRESS", value_name = "IP")]
    pub address: Option<String>,
    /// Port for gossip (UDP) and for the other agents (TCP) [default: 7946]
    #[arg(long, env = "OVERLAYD_PORT", value_parser = port)]
    pub port: Option<u16>,
    /// UDP port of the tunnels, the same on all hosts [default: 4789]
    #[arg(long, env = "OVERLAYD_VXLAN_PORT", value_name = "PORT", value_parser = port)]
    pub vxlan_port: Option<u16>,
    /// A host of the cluster to begin with; may be given several times, and may be this host itself
    #[arg(long, env = "OVERLAYD_JOIN", value_name = "IP:PORT", value_delimiter = ',')]
    #[serde(default)]
    pub join: Vec<String>,
    /// The cluster's secret, as `overlayctl cluster keygen` makes it
    #[arg(long, env = "OVERLAYD_CLUSTER_KEY_FILE", value_name = "FILE")]
    pub cluster_key_file: Option<PathBuf>,
    /// What must survive a reboot [default: /var/lib/overlayd]
    #[arg(long, env = "OVERLAYD_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// What lives as long as the host is up: the control socket and the networks' namespaces [default: /run/overlayd]
    #[arg(long, env = "OVERLAYD_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Names the nameservers for questions that are not about containers [default: /etc/resolv.conf]
    #[arg(long, env = "OVERLAYD_RESOLV_CONF", value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Found a cluster, whatever hosts to join are named
    #[arg(long, env = "OVERLAYD_BOOTSTRAP")]
    pub bootstrap: bool,
    /// After a boot, whose word it takes that this host's leases still hold: that of all members that can be reached
    /// (`reachable`), or of all there are (`strict`), which sees every restored disk [default: reachable]
    #[arg(long, env = "OVERLAYD_BOOT_CHECK", value_name = "reachable|strict")]
    pub boot_check: Option<String>,
    /// Between two rounds of gossip, 200 to 500 milliseconds; the same on all hosts [default: 250]
    #[arg(long, env = "OVERLAYD_GOSSIP_INTERVAL_MS", value_name = "MS")]
    pub gossip_interval_ms: Option<u64>,
}

/// Everything the daemon needs, checked.
#[derive(Debug)]
pub struct Config {
    /// What this host is called.
    pub name: Name,
    /// Its address on the underlay.
    pub address: IpAddr,
    /// For gossip and the other agents.
    pub port: u16,
    /// For the tunnels.
    pub vxlan_port: u16,
    /// Hosts to begin with.
    pub join: Vec<SocketAddr>,
    /// Does this host found a cluster, whatever it hears?
    pub bootstrap: bool,
    /// After a boot, does it take all members to let it in, or those that can be reached?
    pub strict_boot_check: bool,
    /// The cluster's secret.
    pub key: ClusterKey,
    /// Where that is kept.
    pub key_file: PathBuf,
    /// May anybody but its owner read it there?
    pub key_is_readable_by_others: bool,
    /// What survives a reboot.
    pub state_dir: PathBuf,
    /// What does not.
    pub run_dir: PathBuf,
    /// Names the host's nameservers.
    pub resolv_conf: PathBuf,
    /// Between two rounds of gossip.
    pub gossip_interval: std::time::Duration,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The file says nothing sensible.
    #[error("configuration file {}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Something is not said.
    #[error("--{flag} is missing: {hint}")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// What to give.
        hint: &'static str,
    },
    /// Something can't be what is said.
    #[error("--{flag} `{value}`: {why}")]
    Wrong {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key can't be had.
    #[error("cluster key file {}: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Read if it is there and no other is named.
const FILE: &str = "/etc/overlayd/config.toml";

impl Options {
    /// What is left unsaid here is taken from the file.
    ///
    /// # Errors
    /// When the file can't be read, or says what is not understood.
    pub fn or_file(self, named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(FILE)).to_owned();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => String::new(),
            Err(error) => {
                let why = unreadable(&error, "write one, or name another with --config");
                return Err(ConfigError::File { path, why });
            }
            Ok(text) => text,
        };
        let file: Self = toml::from_str(&text).map_err(|error| {
            let line =
                error.span().map_or(1, |s| text.as_bytes().iter().take(s.start).filter(|b| **b == b'\n').count() + 1);
            ConfigError::Syntax { path, what: format!("line {line}: {}", error.message().replace('\n', " ")) }
        })?;
        Ok(Self {
            name: self.name.or(file.name),
            address: self.address.or(file.address),
            port: self.port.or(file.port),
            vxlan_port: self.vxlan_port.or(file.vxlan_port),
            join: if self.join.is_empty() { file.join } else { self.join },
            cluster_key_file: self.cluster_key_file.or(file.cluster_key_file),
            state_dir: self.state_dir.or(file.state_dir),
            run_dir: self.run_dir.or(file.run_dir),
            resolv_conf: self.resolv_conf.or(file.resolv_conf),
            bootstrap: self.bootstrap || file.bootstrap,
            boot_check: self.boot_check.or(file.boot_check),
            gossip_interval_ms: self.gossip_interval_ms.or(file.gossip_interval_ms),
        })
    }

    /// Checks all of it.
    ///
    /// # Errors
    /// With the first thing that is missing or wrong.
    pub fn check(self) -> Result<Config, ConfigError> {
        let name = self.name.map_or_else(host_name, Ok)?;
        let address = self.address.ok_or(ConfigError::Missing {
            flag: "address",
            hint: "give this host's address on the network that connects the hosts",
        })?;
        let key_file = self.cluster_key_file.ok_or(ConfigError::Missing {
            flag: "cluster-key-file",
            hint: "make one with `overlayctl cluster keygen` and copy it to all hosts",
        })?;
        let address: IpAddr = parsed("address", &address, "not an IP address: give this host's own, like 192.0.2.1")?;
        if !is_reachable(address) {
            let why = "the tunnels need an address that other hosts can reach, IPv4 or IPv6".to_owned();
            return Err(ConfigError::Wrong { flag: "address", value: address.to_string(), why });
        }
        let interval = self.gossip_interval_ms.unwrap_or(250);
        if !(200..=500).contains(&interval) {
            let why = "200 to 500 milliseconds".to_owned();
            return Err(ConfigError::Wrong { flag: "gossip-interval-ms", value: interval.to_string(), why });
        }
        let strict_boot_check = match self.boot_check.as_deref() {
            None | Some("" | "reachable") => false,
            Some("strict") => true,
            Some(other) => {
                let why = "expected `reachable` or `strict`".to_owned();
                return Err(ConfigError::Wrong { flag: "boot-check", value: other.to_owned(), why });
            }
        };
        let port = not_zero("port", self.port.unwrap_or(7946))?;
        let vxlan_port = not_zero("vxlan-port", self.vxlan_port.unwrap_or(4789))?;
        if vxlan_port == port {
            let why = "gossip has this UDP port (--port): give the tunnels another one; 4789 is usual".to_owned();
            return Err(ConfigError::Wrong { flag: "vxlan-port", value: vxlan_port.to_string(), why });
        }
        let (key, key_is_readable_by_others) = read_key(&key_file)?;
        Ok(Config {
            bootstrap: self.bootstrap,
            strict_boot_check,
            name: name.parse().map_err(|e: overlay::model::network::NameError| ConfigError::Wrong {
                flag: "name",
                value: name.clone(),
                why: e.to_string(),
            })?,
            address,
            port,
            vxlan_port,
            // A variable that is set to nothing is no host.
            join: self.join.iter().filter(|j| !j.is_empty()).map(|j| joined(j, address)).collect::<Result<_, _>>()?,
            key,
            key_file,
            key_is_readable_by_others,
            state_dir: self.state_dir.unwrap_or_else(|| "/var/lib/overlayd".into()),
            run_dir: self.run_dir.unwrap_or_else(|| "/run/overlayd".into()),
            resolv_conf: self.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
            gossip_interval: std::time::Duration::from_millis(interval),
        })
    }
}

fn parsed<T: std::str::FromStr>(flag: &'static str, value: &str, why: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::Wrong { flag, value: value.to_owned(), why: why.to_owned() })
}

/// It is not a port.
#[derive(Debug, thiserror::Error)]
#[error("a port is a number, 1 to 65535")]
struct NotAPort;

fn port(text: &str) -> Result<u16, NotAPort> {
    text.parse().ok().filter(|port| *port != 0).ok_or(NotAPort)
}

/// Can another host send to it as it is written? A link-local address says nothing without a link.
fn is_reachable(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_special)
}

/// A host to join. Neither gossip nor tunnels lead from one version of IP to the other.
fn joined(text: &str, own: IpAddr) -> Result<SocketAddr, ConfigError> {
    let peer: SocketAddr = parsed("join", text, "expected IP:PORT like 192.0.2.1:7946 or [2001:db8::1]:7946")?;
    if !is_reachable(peer.ip()) || peer.port() == 0 {
        let why = "expected the address and port of another host, like 192.0.2.1:7946 or [2001:db8::1]:7946".to_owned();
        return Err(ConfigError::Wrong { flag: "join", value: text.to_owned(), why });
    }
    if peer.is_ipv4() == own.is_ipv4() {
        return Ok(peer);
    }
    let why = format!(
        "--address is {own}, and all hosts of a cluster have addresses of one version of IP: give that host's other one"
    );
    Err(ConfigError::Wrong { flag: "join", value: text.to_owned(), why })
}

/// A port that the file may have named.
fn not_zero(flag: &'static str, port: u16) -> Result<u16, ConfigError> {
    let wrong = || ConfigError::Wrong { flag, value: port.to_string(), why: NotAPort.to_string() };
    if port == 0 { Err(wrong()) } else { Ok(port) }
}

fn host_name() -> Result<String, ConfigError> {
    let missing = ConfigError::Missing { flag: "name", hint: "give this host a name: one DNS label" };
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|_| missing)?;
    Ok(name.trim().split('.').next().unwrap_or_default().to_owned())
}

/// The key in a file, and whether anybody but the file's owner may read it.
fn read_key(path: &Path) -> Result<(ClusterKey, bool), ConfigError> {
    let wrong = |why: String| ConfigError::Key { path: path.to_owned(), why };
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok((text, file.metadata()?.mode()))
    };
    let next = "make one with `overlayctl cluster keygen` and copy it to all hosts";
    let (text, mode) = read().map_err(|error: std::io::Error| wrong(unreadable(&error, next)))?;
    let key = ClusterKey::parse(&text).map_err(|error| wrong(format!("{error}; {next}")))?;
    Ok((key, mode & 0o044 != 0))
}

/// Why a file can't be read and what to do about it; `otherwise`, if the file is not what it should be.
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_enum_match_arm, reason = "the system has more kinds of errors than need advice")
)]
fn unreadable(error: &std::io::Error, otherwise: &str) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("there is no such file: {otherwise}"),
        ErrorKind::IsADirectory => format!("it is a directory, not a file: {otherwise}"),
        ErrorKind::InvalidData => format!("it is not a text: {otherwise}"),
        ErrorKind::PermissionDenied => "overlayd may not read it: run it as root, or as the file's owner".to_owned(),
        kind => format!("{kind}: {otherwise}"),
    }
}

#[cfg(test)]
mod tests;
