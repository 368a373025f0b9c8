//! What agents ask of each other, over mutual TLS. A host is known by the hash of its key, and it is a member because
//! that hash is in the sealed gossip: no certificate authority, no names, no expiry.

use std::sync::Arc;
use std::time::Duration;

use overlay::id::{EndpointId, HostId};
use overlay::ledger::{Input, Outcome, Share};
use overlay::record::Statement;
use overlay_proto::v1 as wire;
use overlay_proto::v1::peer_server::{Peer, PeerServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Response, Status};

use crate::convert::{Wire, network_id};
use crate::gossip;
use crate::identity::{Identity, host_id};
use crate::local;
use crate::reconcile::Settled;
use crate::view::Seen;

mod client;
mod door;
mod tls;

pub use client::{CallError, Line, Peers};
pub(crate) use door::ACCEPT_PAUSE;
pub use door::Refusals;

/// The service that this host offers the others.
#[derive(Clone)]
pub struct Service {
    local: local::Handle,
    seen: watch::Receiver<Seen>,
    settled: watch::Receiver<Arc<Settled>>,
    gossip: gossip::Handle,
    refusals: Arc<Refusals>,
}

/// How long a host may take to find the way to another's new endpoint.
const WAY: Duration = Duration::from_secs(1);

impl Service {
    /// A service on this host's ledger, view and kernel.
    pub fn new(
        local: local::Handle,
        seen: watch::Receiver<Seen>,
        settled: watch::Receiver<Arc<Settled>>,
        gossip: gossip::Handle,
    ) -> Self {
        Self { local, seen, settled, gossip, refusals: Arc::default() }
    }

    /// Who is not let in.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Serves until `stop` resolves.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        identity: &Identity,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let incoming = door::enter(listener, tls::acceptor(identity, self.seen.clone()), self.refusals());
        tonic::transport::Server::builder()
            .add_service(PeerServer::new(self))
            .serve_with_incoming_shutdown(incoming, stop)
            .await
    }

    /// Who asks, if it is a member.
    fn caller<T>(&self, request: &Request<T>) -> Result<HostId, Status> {
        let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificate = info.and_then(TlsConnectInfo::peer_certs).and_then(|certs| certs.first().cloned());
        let certificate = certificate.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let key = tls::public_key_info(&certificate).map_err(|e| Status::unauthenticated(e.to_string()))?;
        let id = host_id(&key);
        if self.seen.borrow().cluster.hosts.contains_key(&id) {
            Ok(id)
        } else {
            Err(Status::permission_denied(format!("host {} is not in the gossip of this cluster", id.short())))
        }
    }

    async fn give(&self, input: Input) -> Result<Response<wire::GiveReply>, Status> {
        let outcome = self.local.call(move |local| local.step(&input)).await;
        let reply = match outcome.map_err(|e| Status::internal(e.to_string()))? {
            Outcome::Given(statements) => {
                wire::GiveReply { statements: statements.iter().map(Wire::to_wire).collect(), denial: None }
            }
            Outcome::Denied(denial) => wire::GiveReply { statements: Vec::new(), denial: Some(denial.to_wire()) },
            other => return Err(Status::internal(format!("the ledger answered {other:?}"))),
        };
        Ok(Response::new(reply))
    }
}

fn bad(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Peer for Service {
    async fn give_space(&self, request: Request<wire::GiveSpaceRequest>) -> Result<Response<wire::GiveReply>, Status> {
        let to = self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        self.give(Input::GiveSpace { network, to, share: Share::Quarter }).await
    }

    async fn give_address(
        &self,
        request: Request<wire::GiveAddressRequest>,
    ) -> Result<Response<wire::GiveReply>, Status> {
        let to = self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let address = request.get_ref().address.parse().map_err(bad)?;
        self.give(Input::GiveAddress { network, to, address }).await
    }

    async fn deliver(&self, request: Request<wire::DeliverRequest>) -> Result<Response<wire::DeliverReply>, Status> {
        let from = self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let statement = request.get_ref().statement.as_ref().ok_or_else(|| bad("no statement"))?;
        let input = Input::Stated { network, from, statement: Statement::from_wire(statement).map_err(bad)? };
        match self.local.call(move |local| local.step(&input)).await {
            Ok(Outcome::Done) => Ok(Response::new(wire::DeliverReply {})),
            Ok(other) => Err(Status::failed_precondition(format!("{other:?}"))),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    async fn await_endpoint(
        &self,
        request: Request<wire::AwaitEndpointRequest>,
    ) -> Result<Response<wire::AwaitEndpointReply>, Status> {
        self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let endpoint = EndpointId::try_from(request.get_ref().endpoint.as_slice()).map_err(bad)?;
        let mut settled = self.settled.clone();
        let reached = tokio::time::timeout(WAY, settled.wait_for(|s| s.reaches(network, endpoint))).await;
        match reached {
            Ok(Ok(_)) => Ok(Response::new(wire::AwaitEndpointReply {})),
            Ok(Err(_)) => Err(Status::unavailable("the agent stops")),
            Err(_) => Err(Status::deadline_exceeded("the endpoint is not known here yet")),
        }
    }

    async fn snapshot(&self, request: Request<wire::SnapshotRequest>) -> Result<Response<wire::SnapshotReply>, Status> {
        self.caller(&request)?;
        if !self.seen.borrow().synced {
            // What it does not know yet would be taken for what is not there.
            return Err(Status::unavailable("this host has just started and does not know all of it itself"));
        }
        let parts = self.gossip.snapshot().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(wire::SnapshotReply { parts }))
    }
}

#[cfg(test)]
mod tests;
