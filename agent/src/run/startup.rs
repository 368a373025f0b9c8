//! The startup of the daemon: its sockets, the kernel, its state, and the hosts to contact first. It reads files and `/proc` with
//! blocking calls: nothing else runs on the runtime yet.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use overlay::datapath::desired::HostConfig;
use overlay::kernel::preflight::preflight;
use overlay::kernel::{self, RealKernel};
use overlay::model::host::{HostInfo, Phase};
use overlay::model::id::HostId;
use tokio::net::{TcpListener, UnixListener};

use super::{RunError, control_socket};
use crate::config::Config;
use crate::reconcile;
use crate::state;
use crate::state::run_marker::RunMarker;
use crate::state::store::{Loaded, Machine, StartupState, Store};

/// The id of a host before it has an identity.
const NO_HOST: HostId = HostId::from_bytes([0; 16]);

/// What this process has before it has an identity.
pub(super) struct Startup {
    /// For the other agents.
    pub listener: TcpListener,
    /// For `overlayctl`.
    pub socket: UnixListener,
    pub kernel: RealKernel,
    pub trace: RunMarker,
    underlay_mtu: u32,
}

impl Startup {
    /// Takes the sockets and the kernel, unless another daemon has them.
    pub async fn claim(config: &Config) -> Result<Self, RunError> {
        if control_socket::is_answered(&config.run_dir).await {
            return Err(RunError::Running(control_socket::path(&config.run_dir)));
        }
        if config.key_is_readable_by_others {
            let file = config.key_file.display();
            tracing::warn!(%file, "other users can read the cluster key, and could join the cluster with it: chmod 600 {file}");
        }
        let underlay_mtu = preflight(config.address, &config.run_dir).await?.underlay_mtu;
        let address = peer_address(config);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| RunError::Listen { address, source })?;
        let socket = control_socket::bind(&config.run_dir)?;
        let trace = RunMarker::new(&config.run_dir, &boot_id());
        let kernel = RealKernel::new(&kernel::Config { run_dir: config.run_dir.clone(), vtep: config.address })?;
        Ok(Self { listener, socket, kernel, trace, underlay_mtu })
    }

    /// Opens the state that this host goes on with. First it removes from the kernel what an earlier identity left there.
    pub async fn open_state(&mut self, config: &Config) -> Result<(Store, Loaded), RunError> {
        let found = StartupState::look(&config.state_dir, &machine(&self.trace))?;
        if found.is_missing() {
            tracing::warn!(
                directory = %config.state_dir.display(),
                "overlayd has run here since the machine booted, but there is no state any more: this host joins as a new \
                 one, and its endpoints are cut off. If the directory was not mounted, stop overlayd, mount it, and start it \
                 again"
            );
        }
        if !found.is_own() {
            // Before all else: on a full disk this host does not get as far as a new identity, and other hosts may be given
            // what the old one had.
            let host = self.host_config(config, NO_HOST);
            reconcile::cut_off(&mut self.kernel, &host).await.map_err(RunError::CutOff)?;
        }
        let (store, loaded) = found.take_up()?;
        if let Some((file, why)) = &loaded.put_aside {
            tracing::warn!(file = %file.display(), %why, "the state file is unusable and was moved away: this host has a new identity");
        }
        Ok((store, loaded))
    }

    pub fn host_config(&self, config: &Config, me: HostId) -> HostConfig {
        HostConfig { me, vtep: config.address, vxlan_port: config.vxlan_port, underlay_mtu: self.underlay_mtu }
    }

    /// What this host announces about itself first.
    pub fn info(&self, config: &Config, loaded: &Loaded) -> HostInfo {
        HostInfo {
            name: config.name.clone(),
            vtep: config.address,
            vxlan_port: config.vxlan_port,
            peer: peer_address(config),
            underlay_mtu: self.underlay_mtu,
            routed: std::collections::BTreeSet::new(),
            stamp: loaded.ledger.stamp(),
            phase: Phase::Joining,
            founder: None,
        }
    }
}

/// The hosts that a host contacts when it starts.
pub(super) struct BootstrapPeers {
    /// The addresses that it was told to join, except its own.
    pub join: Vec<SocketAddr>,
    /// Those, and all addresses at which it has heard hosts before.
    pub seeds: Vec<SocketAddr>,
    /// The addresses at which it has heard hosts before, if it belongs to no cluster yet: it prefers to join theirs.
    pub known: Vec<SocketAddr>,
    /// The ids of the hosts that it has heard before under its present identity.
    pub expected: BTreeSet<String>,
}

impl BootstrapPeers {
    pub fn of(config: &Config, loaded: &Loaded) -> Self {
        let me = peer_address(config);
        let others = || loaded.peers.iter().filter(|(_, address)| **address != me);
        let belongs = loaded.ledger.membership().founder.is_some();
        Self {
            join: config.join.iter().copied().filter(|address| *address != me).collect(),
            seeds: config.join.iter().chain(loaded.peers.values()).copied().collect(),
            known: others().filter(|_| !belongs).map(|(_, address)| *address).collect(),
            expected: others().filter(|_| loaded.put_aside.is_none()).map(|(id, _)| id.to_string()).collect(),
        }
    }
}

fn peer_address(config: &Config) -> SocketAddr {
    SocketAddr::new(config.address, config.port)
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn boot_id() -> String {
    first_line("/proc/sys/kernel/random/boot_id")
}

fn machine(trace: &RunMarker) -> Machine {
    let random = crate::random();
    let nonce = u64::from_be_bytes(*random.first_chunk().expect("16 bytes are 8 and more"));
    Machine { id: first_line("/etc/machine-id"), boot: boot_id(), now: state::now(), ran: trace.find(), nonce }
}
