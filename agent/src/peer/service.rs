//! What this host answers the other agents.

use std::sync::Arc;
use std::time::Duration;

use overlay::datapath::status::ReconcileStatus;
use overlay::ledger::{Answer, Asker, Claim, Question, SealRequest};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::model::record::Statement;
use overlay_proto::v1 as pb;
use overlay_proto::v1::peer_server::{Peer, PeerServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Response, Status};

use crate::cluster::ClusterView;
use crate::state;
use crate::state::identity::{Identity, host_id};
use crate::wire::{Wire, boot_from_wire, founder_from_wire, network_id};

use super::accept::{self, Refusals};
use super::tls;

/// The service that this host offers the others.
#[derive(Clone)]
pub struct Service {
    state: state::Handle,
    seen: watch::Receiver<ClusterView>,
    settled: watch::Receiver<Arc<ReconcileStatus>>,
    gossip: overlay_gossip::Handle,
    refusals: Arc<Refusals>,
}

/// How long this host waits for its forwarding entry to a new endpoint of another host.
const AWAIT_ENDPOINT_TIMEOUT: Duration = Duration::from_secs(1);

impl Service {
    /// A service on this host's ledger, view and kernel.
    pub fn new(
        state: state::Handle,
        seen: watch::Receiver<ClusterView>,
        settled: watch::Receiver<Arc<ReconcileStatus>>,
        gossip: overlay_gossip::Handle,
    ) -> Self {
        Self { state, seen, settled, gossip, refusals: Arc::default() }
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
        let incoming = accept::accepted(listener, tls::acceptor(identity, self.seen.clone()), self.refusals());
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

    /// Is the caller's identity alive at another address than the one that it calls from? Then its disk was copied.
    fn is_elsewhere<T>(&self, caller: HostId, request: &Request<T>) -> bool {
        let from = request.remote_addr();
        from.is_some_and(|from| self.seen.borrow().cluster.is_elsewhere(caller, from.ip()))
    }

    async fn give(&self, to: HostId, question: Question) -> Result<Response<pb::GiveReply>, Status> {
        let asker = Asker { host: to, stamp: Stamp::default(), elsewhere: false };
        let reply = match self.answer(question, asker).await? {
            (Answer::Given(statements), stamp) => {
                let statements = statements.iter().map(Wire::to_wire).collect();
                pb::GiveReply { statements, denial: None, stamp: Some(stamp.to_wire()) }
            }
            (Answer::Denied(denial), _) => {
                pb::GiveReply { statements: Vec::new(), denial: Some(denial.to_wire()), stamp: None }
            }
            (other, _) => return Err(unexpected(&other)),
        };
        Ok(Response::new(reply))
    }

    async fn member_list(&self, question: Question, asker: Asker) -> Result<Response<pb::MemberListReply>, Status> {
        use pb::member_list_reply::Kind;
        let kind = match self.answer(question, asker).await? {
            (Answer::MemberList(member_list), _) => Kind::MemberList(member_list.to_wire()),
            (Answer::Denied(denial), _) => Kind::Denial(denial.to_wire()),
            (other, _) => return Err(unexpected(&other)),
        };
        Ok(Response::new(pb::MemberListReply { kind: Some(kind) }))
    }

    /// What the ledger answers, durably, and how far it has come with that.
    async fn answer(&self, question: Question, asker: Asker) -> Result<(Answer, Stamp), Status> {
        let done = self.state.tell(question.input(asker)).await;
        let outcome = done.map_err(|error| Status::internal(error.to_string()))?.answer;
        let answer = Answer::try_from(outcome).map_err(|error| Status::internal(error.to_string()))?;
        Ok((answer, self.state.committed.borrow().state.ledger.stamp()))
    }
}

fn stamp_of(stamp: Option<&pb::Stamp>) -> Result<Stamp, Status> {
    Stamp::from_wire(stamp.ok_or_else(|| bad("no stamp"))?).map_err(bad)
}

fn unexpected(answer: &Answer) -> Status {
    Status::internal(format!("the ledger answered {answer:?}"))
}

fn bad(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Peer for Service {
    async fn give_space(&self, request: Request<pb::GiveSpaceRequest>) -> Result<Response<pb::GiveReply>, Status> {
        let to = self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let range = u8::try_from(request.get_ref().range).map_err(bad)?;
        self.give(to, Question::Space { network, range }).await
    }

    async fn give_address(&self, request: Request<pb::GiveAddressRequest>) -> Result<Response<pb::GiveReply>, Status> {
        let to = self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let address = request.get_ref().address.parse().map_err(bad)?;
        self.give(to, Question::Address { network, address }).await
    }

    async fn deliver(&self, request: Request<pb::DeliverRequest>) -> Result<Response<pb::DeliverReply>, Status> {
        let from = self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let statement = request.get_ref().statement.as_ref().ok_or_else(|| bad("no statement"))?;
        let statement = Statement::from_wire(statement).map_err(bad)?;
        let stamp = stamp_of(request.get_ref().stamp.as_ref())?;
        let asker = Asker { host: from, stamp, elsewhere: false };
        let denial = match self.answer(Question::Deliver { network, statement }, asker).await? {
            (Answer::Done, _) => None,
            (Answer::Denied(denial), _) => Some(denial.to_wire()),
            (other, _) => return Err(unexpected(&other)),
        };
        Ok(Response::new(pb::DeliverReply { denial }))
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeRequest>,
    ) -> Result<Response<pb::MemberListReply>, Status> {
        let from = self.caller(&request)?;
        let stamp = stamp_of(request.get_ref().stamp.as_ref())?;
        let founder = founder_from_wire(&request.get_ref().founder).map_err(bad)?;
        self.member_list(Question::Acknowledge { founder }, Asker { host: from, stamp, elsewhere: false }).await
    }

    async fn admit(&self, request: Request<pb::AdmitRequest>) -> Result<Response<pb::MemberListReply>, Status> {
        let from = self.caller(&request)?;
        let stamp = stamp_of(request.get_ref().stamp.as_ref())?;
        let claims = request.get_ref().claims.iter().map(<(NetworkId, Claim)>::from_wire);
        let claims = claims.collect::<Result<_, _>>().map_err(bad)?;
        let founder = founder_from_wire(&request.get_ref().founder).map_err(bad)?;
        let elsewhere = self.is_elsewhere(from, &request);
        self.member_list(Question::Admit { founder, claims }, Asker { host: from, stamp, elsewhere }).await
    }

    async fn seal(&self, request: Request<pb::SealRequest>) -> Result<Response<pb::SealReply>, Status> {
        use pb::seal_reply::Kind;
        let from = self.caller(&request)?;
        let pb::SealRequest { host, boot, yielded, founder } = request.get_ref();
        let host = HostId::try_from(host.as_slice()).map_err(bad)?;
        let boot = boot_from_wire(boot.as_ref()).map_err(bad)?;
        let yielded = yielded.iter().map(|id| HostId::try_from(id.as_slice()));
        let yielded = yielded.collect::<Result<_, _>>().map_err(bad)?;
        let request = SealRequest { founder: founder_from_wire(founder).map_err(bad)?, boot, yielded };
        let asker = Asker { host: from, stamp: Stamp::default(), elsewhere: false };
        let kind = match self.answer(Question::Seal { host, request }, asker).await? {
            (Answer::Sealed(ledger_snapshot), _) => Kind::LedgerSnapshot(ledger_snapshot.to_wire()),
            (Answer::Denied(denial), _) => Kind::Denial(denial.to_wire()),
            (other, _) => return Err(unexpected(&other)),
        };
        Ok(Response::new(pb::SealReply { kind: Some(kind) }))
    }

    async fn await_endpoint(
        &self,
        request: Request<pb::AwaitEndpointRequest>,
    ) -> Result<Response<pb::AwaitEndpointReply>, Status> {
        self.caller(&request)?;
        let network = network_id(&request.get_ref().network).map_err(bad)?;
        let endpoint = EndpointId::try_from(request.get_ref().endpoint.as_slice()).map_err(bad)?;
        let mut settled = self.settled.clone();
        let reached =
            tokio::time::timeout(AWAIT_ENDPOINT_TIMEOUT, settled.wait_for(|s| s.reaches(network, endpoint))).await;
        match reached {
            Ok(Ok(_)) => Ok(Response::new(pb::AwaitEndpointReply {})),
            Ok(Err(_)) => Err(Status::unavailable("the agent stops")),
            Err(_) => Err(Status::deadline_exceeded("the endpoint is not known here yet")),
        }
    }

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<pb::SnapshotReply>, Status> {
        self.caller(&request)?;
        if !self.seen.borrow().synced {
            // What it does not know yet would be taken for what is not there.
            return Err(Status::unavailable("this host has just started and does not know all of it itself"));
        }
        let parts = self.gossip.snapshot().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(pb::SnapshotReply { parts }))
    }
}
