//! The control socket: the Unix socket on which `overlayctl` reaches this daemon.

use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use overlay_proto::v1::control_server::ControlServer;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::control;
use crate::peer::ACCEPT_PAUSE;

/// Where the socket is.
pub(super) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("overlayd.sock")
}

/// Does another daemon answer there?
pub(super) async fn is_answered(run_dir: &Path) -> bool {
    UnixStream::connect(&path(run_dir)).await.is_ok()
}

/// Makes the socket, for its owner and group only. One that a killed daemon left is replaced. It blocks for as long as the file
/// system does, so it is for the startup only, when nothing else runs.
pub(super) fn bind(run_dir: &Path) -> Result<UnixListener, RunError> {
    let path = path(run_dir);
    let bind = || {
        std::fs::create_dir_all(run_dir)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // So that no other user can connect between making the socket and closing it to others.
        let before = umask(Mode::from_bits_truncate(0o117));
        let socket = UnixListener::bind(&path);
        umask(before);
        socket
    };
    bind().map_err(|source| RunError::Socket { path: path.clone(), source })
}

/// Serves `overlayctl` until the token is cancelled and the calls under way are answered.
pub(super) async fn serve(
    socket: UnixListener,
    control: control::Service,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let connections = futures::stream::unfold((socket, false), |(socket, mut has_warned)| async move {
        loop {
            match socket.accept().await {
                Ok((stream, _)) => return Some((Ok::<_, std::io::Error>(stream), (socket, has_warned))),
                Err(error) => {
                    if !std::mem::replace(&mut has_warned, true) {
                        tracing::warn!(%error, "connections of overlayctl are refused by the system: are its file descriptors used up?");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    tonic::transport::Server::builder()
        .add_service(ControlServer::new(control))
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
        .map_err(RunError::Control)
}
