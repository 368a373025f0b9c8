//! What the daemon stands on before it does anything: its sockets, the kernel, its state, and whom it knew.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use overlay::datapath::desired::HostConfig;
use overlay::kernel::preflight::preflight;
use overlay::kernel::{self, RealKernel};
use overlay::model::host::{HostInfo, Phase};
use overlay::model::id::HostId;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::RunError;
use crate::config::Config;
use crate::reconcile;
use crate::state;
use crate::state::run_marker::RunMarker;
use crate::state::store::{Loaded, Machine, StartupState, Store};

/// Who a host is before it has an identity.
const NOBODY: HostId = HostId::from_bytes([0; 16]);

/// What this process has for itself, whoever it is going to be.
pub(super) struct Ground {
    /// For the other agents.
    pub listener: TcpListener,
    /// For `overlayctl`.
    pub socket: UnixListener,
    pub kernel: RealKernel,
    pub trace: RunMarker,
    underlay_mtu: u32,
}

impl Ground {
    /// Takes it, unless another daemon has it.
    pub async fn claim(config: &Config) -> Result<Self, RunError> {
        if UnixStream::connect(&socket_path(&config.run_dir)).await.is_ok() {
            return Err(RunError::Running(socket_path(&config.run_dir)));
        }
        if config.key_is_readable_by_others {
            let file = config.key_file.display();
            tracing::warn!(%file, "others can read the cluster key, and be members with it: chmod 600 {file}");
        }
        let underlay_mtu = preflight(config.address, &config.run_dir).await?.underlay_mtu;
        let address = peer_address(config);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| RunError::Listen { address, source })?;
        let socket = control_socket(&config.run_dir)?;
        let trace = RunMarker::new(&config.run_dir, &boot_id());
        let kernel = RealKernel::new(&kernel::Config { run_dir: config.run_dir.clone(), vtep: config.address })?;
        Ok(Self { listener, socket, kernel, trace, underlay_mtu })
    }

    /// The state that this host goes on with. What is in the kernel of an identity that is no more is taken out first.
    pub async fn take_up(&mut self, config: &Config) -> Result<(Store, Loaded), RunError> {
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
            // First of all: on a full disk this host does not get as far as a new identity, and others may be given what the
            // old one had.
            let place = self.place(config, NOBODY);
            reconcile::cut_off(&mut self.kernel, &place).await.map_err(RunError::CutOff)?;
        }
        let (store, loaded) = found.take_up()?;
        if let Some((file, why)) = &loaded.put_aside {
            tracing::warn!(file = %file.display(), %why, "the state was put aside: this host has a new identity");
        }
        Ok((store, loaded))
    }

    pub fn place(&self, config: &Config, me: HostId) -> HostConfig {
        HostConfig { me, vtep: config.address, vxlan_port: config.vxlan_port, underlay_mtu: self.underlay_mtu }
    }

    /// What this host says of itself first.
    pub fn info(&self, config: &Config, loaded: &Loaded) -> HostInfo {
        HostInfo {
            name: config.name.clone(),
            vtep: config.address,
            vxlan_port: config.vxlan_port,
            peer: peer_address(config),
            underlay_mtu: self.underlay_mtu,
            stamp: loaded.ledger.stamp(),
            phase: Phase::Joining,
            founder: None,
        }
    }
}

/// Whom a host looks for when it starts.
pub(super) struct Acquaintances {
    /// Those that it was told to join, itself left out.
    pub join: Vec<SocketAddr>,
    /// Those and all that it has heard before.
    pub seeds: Vec<SocketAddr>,
    /// Those that it has heard before, if it belongs to no cluster yet: there may be one, and it rather joins that.
    pub known: Vec<SocketAddr>,
    /// The ids of those that it has heard before as who it is now.
    pub expected: BTreeSet<String>,
}

impl Acquaintances {
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

pub(super) fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("overlayd.sock")
}

/// The control socket, for its owner and group only. One that a killed daemon left is replaced.
fn control_socket(run_dir: &Path) -> Result<UnixListener, RunError> {
    let path = socket_path(run_dir);
    let bind = || {
        std::fs::create_dir_all(run_dir)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // So that nobody gets in between making the socket and closing it to others.
        let before = umask(Mode::from_bits_truncate(0o117));
        let socket = UnixListener::bind(&path);
        umask(before);
        socket
    };
    bind().map_err(|source| RunError::Socket { path: path.clone(), source })
}
