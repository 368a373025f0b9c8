//! The way to the daemon: its socket, and one clear sentence if there is nobody.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use overlay_proto::v1::control_client::ControlClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::output::Failure;

/// How long the daemon may take for an answer; what it waits for itself takes ten seconds at most.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The daemon of a run directory.
#[derive(Debug)]
pub struct Client {
    run_dir: PathBuf,
}

impl Client {
    /// The daemon of this run directory.
    pub fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned() }
    }

    /// The run directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Connects.
    pub async fn connect(&self) -> Result<ControlClient<Channel>, Failure> {
        let path = self.run_dir.join("overlayd.sock");
        // Tried by hand first: the reason gets lost in the layers of the channel.
        UnixStream::connect(&path).await.map_err(|error| explain(&path, &error))?;
        let unreachable =
            |e: tonic::transport::Error| Failure::failed(format!("can't talk to {}: {e}", path.display()));
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).map_err(unreachable)?;
        Ok(ControlClient::new(endpoint.timeout(TIMEOUT).connect().await.map_err(unreachable)?))
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let causes = std::iter::successors(std::error::Error::source(&status), |cause| cause.source());
        if causes.into_iter().any(|cause| cause.is::<tonic::TimeoutExpired>()) {
            let seconds = TIMEOUT.as_secs();
            return Self::failed(format!(
                "overlayd has not answered for {seconds} seconds: see its log, or restart it"
            ));
        }
        Self::failed(status.message())
    }
}

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_enum_match_arm, reason = "the system has more kinds of errors than need advice")
)]
fn explain(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::failed(match error.kind() {
        ErrorKind::NotFound => {
            format!(
                "no overlayd runs on {path}: there is no such socket; start overlayd, or name its run directory with --run-dir"
            )
        }
        ErrorKind::ConnectionRefused => {
            format!(
                "no overlayd runs on {path}: nobody answers on the socket; start overlayd, or name its run directory with --run-dir"
            )
        }
        ErrorKind::PermissionDenied => {
            format!("may not use the socket {path}: run overlayctl as root, or as a member of the socket's group")
        }
        ErrorKind::NotADirectory => {
            format!(
                "there can be no socket {path}: its directory is none; name the run directory of overlayd with --run-dir"
            )
        }
        kind => format!("can't use the socket {path}: {kind}; name the run directory of overlayd with --run-dir"),
    })
}
