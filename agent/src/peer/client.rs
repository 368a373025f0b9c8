//! The questions to other agents. Small ones go over a connection that is kept ([`Connections`]); those with a large answer
//! have one of their own, so that they don't hold up the small ones.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay::ledger::{Ask, Claim, Denial, LedgerSnapshot, MemberList, SealRequest};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::model::record::Statement;
use overlay_proto::v1 as pb;
use overlay_proto::v1::peer_client::PeerClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::connections::Connections;
use crate::cluster::ClusterView;
use crate::state::identity::Identity;
use crate::wire::{Wire, WireError, boot_to_wire, founder_to_wire};

/// How long a peer may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to tell all members: of a thousand that is 60 KB.
const MEMBER_LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to tell all that it knows of the leases: some hundred KB, also where several tell at once and share a
/// megabit. Asked again before it is done it would fill the link and never be done.
const LEDGER_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a peer did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It is not known here.
    #[error("host {} is not known here", .0.short())]
    Unknown(HostId),
    /// It does not answer.
    #[error("host {} at {address} does not answer", host.short())]
    Silent {
        /// The host.
        host: HostId,
        /// Where it should be.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered with an error.
    #[error("host {} refused: {}", host.short(), status.message())]
    Refused {
        /// The host.
        host: HostId,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// It answered nonsense.
    #[error("host {} answered nonsense", host.short())]
    Nonsense {
        /// The host.
        host: HostId,
        /// What is wrong with it.
        #[source]
        source: WireError,
    },
    /// It has or gives nothing, with the reason.
    #[error(transparent)]
    Denied(#[from] Denial),
}

/// The questions to the other hosts, and the connections for them. Clones share the connections.
///
/// A question waits for a connection for two seconds at most, and then for the answer for as long as its timeout says. If a kept
/// connection turns out to be broken, the question is repeated once over a new one: each question that goes over kept
/// connections is safe to repeat: the ledger of the other host gives the same answer again, or at worst delegates one address more
/// where no block is free (docs/leases.md).
#[derive(Debug, Clone)]
pub struct Peers {
    pub(super) connections: Arc<Connections>,
}

impl Peers {
    /// For questions to the hosts of this cluster.
    pub fn new(identity: &Identity, seen: watch::Receiver<ClusterView>) -> Self {
        Self { connections: Arc::new(Connections::new(identity, seen)) }
    }

    /// Closes connections that nothing has used for a minute, and those to hosts that are gone or have moved to another address.
    /// To be run beside the questions; never ends by itself.
    pub async fn tend_connections(&self) {
        self.connections.tend().await;
    }

    /// Asks for space or for an address. The statements are the writer's own: they go into the ledger as heard from it.
    ///
    /// # Errors
    /// When it does not answer, or gives nothing.
    pub async fn ask(&self, network: NetworkId, ask: Ask) -> Result<(Vec<Statement>, Stamp), CallError> {
        let network = network.as_bytes().to_vec();
        let (host, reply) = match ask {
            Ask::Space { of, range } => {
                let request = pb::GiveSpaceRequest { network, range: range.into() };
                (
                    of,
                    self.call(of, ANSWER_TIMEOUT, request, |mut peer, request| async move {
                        peer.give_space(request).await
                    })
                    .await,
                )
            }
            Ask::Address { of, address } => {
                let request = pb::GiveAddressRequest { network, address: address.to_string() };
                (
                    of,
                    self.call(of, ANSWER_TIMEOUT, request, |mut peer, request| async move {
                        peer.give_address(request).await
                    })
                    .await,
                )
            }
        };
        let reply = reply?;
        let nonsense = |source| CallError::Nonsense { host, source };
        if let Some(denial) = reply.denial {
            return Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?));
        }
        let stamp = reply.stamp.as_ref().ok_or(WireError::Missing("stamp")).and_then(Stamp::from_wire);
        let statements = reply.statements.iter().map(Statement::from_wire).collect::<Result<_, _>>();
        Ok((statements.map_err(nonsense)?, stamp.map_err(nonsense)?))
    }

    /// Asks a member to acknowledge this host as one.
    ///
    /// # Errors
    /// When it does not answer, or does not.
    pub async fn acknowledge(
        &self,
        by: HostId,
        stamp: Stamp,
        founder: Option<HostId>,
    ) -> Result<MemberList, CallError> {
        let request = pb::AcknowledgeRequest { stamp: Some(stamp.to_wire()), founder: founder_to_wire(founder) };
        member_list(
            by,
            self.call(
                by,
                MEMBER_LIST_TIMEOUT,
                request,
                |mut peer, request| async move { peer.acknowledge(request).await },
            )
            .await?,
        )
    }

    /// Asks a member whether this host's leases still hold.
    ///
    /// # Errors
    /// When it does not answer, or says that they don't.
    pub async fn admit(
        &self,
        by: HostId,
        (stamp, founder): (Stamp, Option<HostId>),
        claims: &BTreeMap<NetworkId, Claim>,
    ) -> Result<MemberList, CallError> {
        let claims = claims.iter().map(|(network, claim)| (*network, claim.clone()).to_wire()).collect();
        let request = pb::AdmitRequest { stamp: Some(stamp.to_wire()), claims, founder: founder_to_wire(founder) };
        let reply =
            self.call(by, MEMBER_LIST_TIMEOUT, request, |mut peer, request| async move { peer.admit(request).await });
        member_list(by, reply.await?)
    }

    /// Asks a member to seal a host, for this one as its heir. It has two minutes to answer; not to be asked again before.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn seal(
        &self,
        by: HostId,
        host: HostId,
        seal_request: &SealRequest,
    ) -> Result<LedgerSnapshot, CallError> {
        use pb::seal_reply::Kind;
        let request = pb::SealRequest {
            host: host.as_bytes().to_vec(),
            boot: Some(boot_to_wire(seal_request.boot)),
            yielded: seal_request.yielded.iter().map(|id| id.as_bytes().to_vec()).collect(),
            founder: founder_to_wire(seal_request.founder),
        };
        let reply = self.call_once(by, LEDGER_SNAPSHOT_TIMEOUT, |mut peer| async move { peer.seal(request).await });
        let nonsense = |source| CallError::Nonsense { host: by, source };
        match reply.await?.kind {
            Some(Kind::LedgerSnapshot(ledger_snapshot)) => {
                LedgerSnapshot::from_wire(&ledger_snapshot).map_err(nonsense)
            }
            Some(Kind::Denial(denial)) => Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?)),
            None => Err(nonsense(WireError::Missing("kind"))),
        }
    }

    /// Delivers a lease to the host that it is for; it is durable there when this returns.
    ///
    /// # Errors
    /// When it does not answer, or does not take it.
    pub async fn deliver(
        &self,
        to: HostId,
        network: NetworkId,
        statement: &Statement,
        stamp: Stamp,
    ) -> Result<(), CallError> {
        let request = pb::DeliverRequest {
            network: network.as_bytes().to_vec(),
            statement: Some(statement.to_wire()),
            stamp: Some(stamp.to_wire()),
        };
        let reply = self
            .call(to, ANSWER_TIMEOUT, request, |mut peer, request| async move { peer.deliver(request).await })
            .await?;
        let nonsense = |source| CallError::Nonsense { host: to, source };
        match reply.denial {
            Some(denial) => Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?)),
            None => Ok(()),
        }
    }

    /// Waits until packets from another host find the way to a new endpoint of this one.
    ///
    /// # Errors
    /// When it does not answer, or not in time.
    pub async fn await_endpoint(&self, of: HostId, network: NetworkId, endpoint: EndpointId) -> Result<(), CallError> {
        let (network, endpoint) = (network.as_bytes().to_vec(), endpoint.as_bytes().to_vec());
        let request = pb::AwaitEndpointRequest { network, endpoint };
        self.call(of, ANSWER_TIMEOUT, request, |mut peer, request| async move { peer.await_endpoint(request).await })
            .await
            .map(drop)
    }

    /// All that a host knows of the cluster, as gossip packs it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn snapshot(&self, of: HostId) -> Result<Vec<Vec<u8>>, CallError> {
        let reply =
            self.call_once(of, ANSWER_TIMEOUT, |mut peer| async move { peer.snapshot(pb::SnapshotRequest {}).await });
        Ok(reply.await?.parts)
    }

    /// Asks over the connection that is kept for the host. Only for requests that are safe to repeat, and short answers.
    async fn call<Q: Clone, T, F: Future<Output = Reply<T>>>(
        &self,
        host: HostId,
        answer_timeout: Duration,
        request: Q,
        ask: impl Fn(PeerClient<Channel>, Q) -> F,
    ) -> Result<T, CallError> {
        let connection = self.connections.to(host).await?;
        let failure = match answer(ask(client(&connection.channel), request.clone()), answer_timeout).await {
            Ok(reply) => return Ok(reply),
            Err(failure) => failure,
        };
        match failure {
            Failure::Refused(_) => return Err(failure.of(host)),
            // The host may be slow, or the connection may have lost what was sent: the next question has a new connection.
            Failure::TimedOut => {
                connection.discard();
                return Err(failure.of(host));
            }
            Failure::Lost(_) => connection.discard(),
        }
        if !connection.is_reused {
            return Err(failure.of(host));
        }
        let connection = self.connections.to(host).await?;
        answer(ask(client(&connection.channel), request), answer_timeout).await.map_err(|failure| {
            if !matches!(failure, Failure::Refused(_)) {
                connection.discard();
            }
            failure.of(host)
        })
    }

    /// Asks once over a connection that is made for this question.
    async fn call_once<T, F: Future<Output = Reply<T>>>(
        &self,
        host: HostId,
        answer_timeout: Duration,
        ask: impl FnOnce(PeerClient<Channel>) -> F,
    ) -> Result<T, CallError> {
        let channel = self.connections.once(host).await?;
        answer(ask(client(&channel)), answer_timeout).await.map_err(|failure| failure.of(host))
    }
}

type Reply<T> = Result<tonic::Response<T>, tonic::Status>;

/// Why there is no reply to a request that was sent.
enum Failure {
    /// The other host refused it.
    Refused(tonic::Status),
    /// The connection failed. The other host may have received the request or not.
    Lost(tonic::Status),
    /// There was no answer in time.
    TimedOut,
}

impl Failure {
    fn of(self, host: HostId) -> CallError {
        let status = match self {
            Self::Refused(status) | Self::Lost(status) => status,
            Self::TimedOut => tonic::Status::deadline_exceeded("no answer in time"),
        };
        CallError::Refused { host, status: Box::new(status) }
    }
}

fn client(channel: &Channel) -> PeerClient<Channel> {
    PeerClient::new(channel.clone()).max_decoding_message_size(SNAPSHOT_BYTES)
}

async fn answer<T>(asked: impl Future<Output = Reply<T>>, answer_timeout: Duration) -> Result<T, Failure> {
    match tokio::time::timeout(answer_timeout, asked).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) if is_of_transport(&status) => Err(Failure::Lost(status)),
        Ok(Err(status)) => Err(Failure::Refused(status)),
        Err(_) => Err(Failure::TimedOut),
    }
}

/// Whether the connection failed, and not the other host refused: only what the transport reports has a source.
fn is_of_transport(status: &tonic::Status) -> bool {
    status.source().is_some()
}

impl CallError {
    /// Did the host answer, if only to say no?
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
                !is_of_transport(status)
                    && !matches!(status.code(), Cancelled | DeadlineExceeded | Unavailable | Unknown)
            }
            Self::Denied(_) | Self::Nonsense { .. } => true,
            Self::Unknown(_) | Self::Silent { .. } => false,
        }
    }
}

/// What a snapshot of a large cluster takes.
const SNAPSHOT_BYTES: usize = 64 << 20;

fn member_list(by: HostId, reply: pb::MemberListReply) -> Result<MemberList, CallError> {
    use pb::member_list_reply::Kind;
    let nonsense = |source| CallError::Nonsense { host: by, source };
    match reply.kind {
        Some(Kind::MemberList(member_list)) => MemberList::from_wire(&member_list).map_err(nonsense),
        Some(Kind::Denial(denial)) => Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?)),
        None => Err(nonsense(WireError::Missing("kind"))),
    }
}
