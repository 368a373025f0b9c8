//! Asking other hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use overlay::ledger::{Ask, Claim, Denial, LedgerSnapshot, MemberList, SealRequest};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::member::Stamp;
use overlay::model::record::Statement;
use overlay_proto::v1 as pb;
use overlay_proto::v1::peer_client::PeerClient;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};

use super::tls;
use crate::cluster::ClusterView;
use crate::state::identity::Identity;
use crate::wire::{Wire, WireError, boot_to_wire, founder_to_wire};

/// How long a peer may take for an answer, and to be connected to.
const PATIENCE: Duration = Duration::from_secs(2);
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

/// The way to the other hosts.
#[derive(Debug, Clone)]
pub struct Peers {
    identity: Arc<Identity>,
    seen: watch::Receiver<ClusterView>,
}

impl Peers {
    /// The way to the hosts of this cluster.
    pub fn new(identity: Arc<Identity>, seen: watch::Receiver<ClusterView>) -> Self {
        Self { identity, seen }
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
                (of, self.client(of).await?.give_space(request).await)
            }
            Ask::Address { of, address } => {
                let request = pb::GiveAddressRequest { network, address: address.to_string() };
                (of, self.client(of).await?.give_address(request).await)
            }
        };
        let reply = reply.map_err(|status| refused(host, status))?.into_inner();
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
        let reply = self.patient_client(by, MEMBER_LIST_TIMEOUT).await?.acknowledge(request).await;
        member_list(by, reply)
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
        let reply = self.patient_client(by, MEMBER_LIST_TIMEOUT).await?.admit(request).await;
        member_list(by, reply)
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
        let reply = self.patient_client(by, LEDGER_SNAPSHOT_TIMEOUT).await?.seal(request).await;
        let nonsense = |source| CallError::Nonsense { host: by, source };
        match reply.map_err(|status| refused(by, status))?.into_inner().kind {
            Some(Kind::LedgerSnapshot(ledger_snapshot)) => {
                LedgerSnapshot::from_wire(&ledger_snapshot).map_err(nonsense)
            }
            Some(Kind::Denial(denial)) => Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?)),
            None => Err(nonsense(WireError::Missing("kind"))),
        }
    }

    /// A connection to a host, for more than one call.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn line(&self, to: HostId) -> Result<Line, CallError> {
        Ok(Line { to, client: self.client(to).await? })
    }

    /// Waits until packets from another host find the way to a new endpoint of this one.
    ///
    /// # Errors
    /// When it does not answer, or not in time.
    pub async fn await_endpoint(&self, of: HostId, network: NetworkId, endpoint: EndpointId) -> Result<(), CallError> {
        let (network, endpoint) = (network.as_bytes().to_vec(), endpoint.as_bytes().to_vec());
        let request = pb::AwaitEndpointRequest { network, endpoint };
        self.client(of).await?.await_endpoint(request).await.map_err(|status| refused(of, status))?;
        Ok(())
    }

    /// All that a host knows of the cluster, as gossip packs it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn snapshot(&self, of: HostId) -> Result<Vec<Vec<u8>>, CallError> {
        let reply = self.client(of).await?.snapshot(pb::SnapshotRequest {}).await;
        Ok(reply.map_err(|status| refused(of, status))?.into_inner().parts)
    }

    async fn client(&self, host: HostId) -> Result<PeerClient<Channel>, CallError> {
        self.patient_client(host, PATIENCE).await
    }

    /// For calls that may take so long.
    async fn patient_client(&self, host: HostId, patience: Duration) -> Result<PeerClient<Channel>, CallError> {
        let peer = |host| self.seen.borrow().cluster.hosts.get(&host).map(|h| h.info.peer);
        let address = peer(host).ok_or(CallError::Unknown(host))?;
        // From the address that this host tells of: a witness knows a copied disk by where it calls from.
        let from = peer(self.identity.id()).map(|own| SocketAddr::new(own.ip(), 0));
        let connector = tls::connector(&self.identity, host);
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                from.map_or(Ok(()), |from| socket.bind(from))?;
                let stream = socket.connect(address).await?;
                stream.set_nodelay(true)?;
                // The name is not looked at: the key is.
                let name = ServerName::IpAddress(address.ip().into());
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://peer").connect_timeout(PATIENCE).timeout(patience);
        let channel = endpoint.connect_with_connector(connect).await;
        let channel = channel.map_err(|e| CallError::Silent { host, address, source: Box::new(e) })?;
        Ok(PeerClient::new(channel).max_decoding_message_size(SNAPSHOT_BYTES))
    }
}

/// A connection to another host.
#[derive(Debug)]
pub struct Line {
    to: HostId,
    client: PeerClient<Channel>,
}

impl Line {
    /// Brings a lease to the host that it is for; it is durable there when this returns.
    ///
    /// # Errors
    /// When it does not answer, or does not take it.
    pub async fn deliver(&mut self, network: NetworkId, statement: &Statement, stamp: Stamp) -> Result<(), CallError> {
        let request = pb::DeliverRequest {
            network: network.as_bytes().to_vec(),
            statement: Some(statement.to_wire()),
            stamp: Some(stamp.to_wire()),
        };
        let reply = self.client.deliver(request).await.map_err(|status| refused(self.to, status))?;
        let nonsense = |source| CallError::Nonsense { host: self.to, source };
        match reply.into_inner().denial {
            Some(denial) => Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?)),
            None => Ok(()),
        }
    }
}

impl CallError {
    /// Did the host answer, if only to say no?
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
                !matches!(status.code(), Cancelled | DeadlineExceeded | Unavailable | Unknown)
            }
            Self::Denied(_) | Self::Nonsense { .. } => true,
            Self::Unknown(_) | Self::Silent { .. } => false,
        }
    }
}

/// What a snapshot of a large cluster takes.
const SNAPSHOT_BYTES: usize = 64 << 20;

fn member_list(
    by: HostId,
    reply: Result<tonic::Response<pb::MemberListReply>, tonic::Status>,
) -> Result<MemberList, CallError> {
    use pb::member_list_reply::Kind;
    let nonsense = |source| CallError::Nonsense { host: by, source };
    match reply.map_err(|status| refused(by, status))?.into_inner().kind {
        Some(Kind::MemberList(member_list)) => MemberList::from_wire(&member_list).map_err(nonsense),
        Some(Kind::Denial(denial)) => Err(CallError::Denied(Denial::from_wire(&denial).map_err(nonsense)?)),
        None => Err(nonsense(WireError::Missing("kind"))),
    }
}

fn refused(host: HostId, status: tonic::Status) -> CallError {
    CallError::Refused { host, status: Box::new(status) }
}
