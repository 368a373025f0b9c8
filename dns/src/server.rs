//! The DNS servers of the networks: hickory-server around [`answer`] and [`Forwarder`], with limits and counters.
//!
//! Owns what goes over a socket: which messages are served, how large answers are, how many at once. It decides
//! nothing about names, makes no sockets, and logs nothing about single questions; hickory-server does so at INFO, so
//! a daemon's log filter sets `hickory_server=warn`.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use overlay::model::id::NetworkId;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::answer::{Answer, Denial, TTL, answer};
use crate::counts::Counters;
pub use crate::counts::Counts;
use crate::forward::{ForwardError, Forwarder};
use crate::limit::{Buckets, LONGEST_WAIT};
use crate::tcp::{self, ConnectionSlots, Responder};
use crate::zone::{Asker, Zone};

mod limits;

pub use limits::Limits;
use limits::{NetworkLimits, Networks};

/// The largest UDP message that is sent or asked for, in bytes: it crosses every link whole, inside a tunnel too
/// (DNS flag day 2020).
pub const MAX_PAYLOAD: u16 = 1232;

/// Answers the questions of all networks on this host.
#[derive(Debug, Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: watch::Receiver<Arc<Zone>>,
    forwarder: Forwarder,
    limits: Limits,
    clients: Mutex<Buckets<(NetworkId, IpAddr)>>,
    networks: Networks,
    forwards: Semaphore,
    connections: Arc<Semaphore>,
    counters: Counters,
    // The order of several addresses is drawn from a keyed hash of the number of the question.
    order: RandomState,
    questions: AtomicU64,
}

impl Resolver {
    /// A resolver that says what the newest zone says.
    pub fn new(zone: watch::Receiver<Arc<Zone>>, forwarder: Forwarder, limits: Limits) -> Self {
        let shared = Shared {
            zone,
            forwarder,
            limits,
            clients: Mutex::new(Buckets::new(limits.rate, limits.burst, Instant::now())),
            networks: Networks::default(),
            forwards: Semaphore::new(limits.forwards),
            connections: Arc::new(Semaphore::new(limits.connections)),
            counters: Counters::default(),
            order: RandomState::new(),
            questions: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves a network on two sockets that were made inside it. Each is to be bound to *one* address, so that an
    /// answer comes from where the question went; a network with a gateway and the service address takes two calls.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the runtime can't take a socket.
    pub fn listen(
        &self,
        network: NetworkId,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> io::Result<Listener> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let limits = self.shared.networks.limits_of(network, self.shared.limits);
        let slots = ConnectionSlots { all: Arc::clone(&self.shared.connections), own: Arc::clone(&limits.connections) };
        let handler = Handler { shared: Arc::clone(&self.shared), network, limits };
        let mut server = Server::new(handler.clone());
        server.register_socket(udp);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = server.block_until_done().await {
                tracing::warn!(%network, %error, "DNS server stopped");
            }
        });
        tasks.spawn(tcp::serve(tcp, slots, handler));
        Ok(Listener { tasks })
    }

    /// What all servers together did so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }
}

/// A network being served; no longer when dropped.
#[derive(Debug)]
pub struct Listener {
    tasks: JoinSet<()>,
}

impl Listener {
    /// Has one of its two servers stopped by itself? Does not wait.
    pub fn has_stopped(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Waits until one of its two servers has stopped by itself, which takes a broken socket.
    pub async fn stopped(&mut self) {
        self.tasks.join_next().await;
    }
}

/// One listener's side of the resolver.
#[derive(Debug, Clone)]
struct Handler {
    shared: Arc<Shared>,
    network: NetworkId,
    limits: Arc<NetworkLimits>,
}

impl Handler {
    /// The whole reply to a request, however large; `None` if a limit is met. A client that hears nothing asks again in its own time. No
    /// code makes every client do so: some resolvers take REFUSED for the answer, and others ignore it.
    async fn reply(&self, request: &Request) -> Option<Message> {
        let reply = self.reply_within_limits(request).await;
        if reply.is_none() {
            self.shared.counters.limited.add();
        }
        reply
    }

    async fn reply_within_limits(&self, request: &Request) -> Option<Message> {
        self.wait_for_turn(request).await?;
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata = Metadata::response_from_request(&request.metadata);
        reply.metadata.recursion_available = true;
        reply.add_queries(request.queries.queries().iter().map(|query| query.original().clone()));
        reply.edns = request.edns.as_ref().map(|asked| edns(asked.max_payload(), asked.flags().dnssec_ok));
        match question(request) {
            Err(code) => self.refuse(&mut reply, code),
            Ok(question) => self.resolve(question, request, &mut reply).await?,
        }
        Some(reply)
    }

    /// Fills in the reply; `None` if a limit is met.
    async fn resolve(&self, question: &Query, request: &Request, reply: &mut Message) -> Option<()> {
        let asker = Asker { network: self.network, address: request.src().ip().to_canonical() };
        let zone = Arc::clone(&self.shared.zone.borrow());
        let seed = self.shared.order.hash_one(self.shared.questions.fetch_add(1, Ordering::Relaxed));
        let code = match answer(&zone, &asker, question, seed) {
            Answer::Records(records) => {
                reply.answers = records;
                ResponseCode::NoError
            }
            Answer::NoData => ResponseCode::NoError,
            Answer::NameError => ResponseCode::NXDomain,
            Answer::Forward(denial) => return self.forward(&upstream_query(question, request), denial, reply).await,
            Answer::Refuse => {
                self.refuse(reply, ResponseCode::Refused);
                return Some(());
            }
            Answer::Unavailable => {
                self.refuse(reply, ResponseCode::ServFail);
                return Some(());
            }
        };
        reply.metadata.authoritative = true;
        reply.metadata.response_code = code;
        self.shared.counters.answered.add();
        Some(())
    }

    async fn forward(&self, query: &Message, denial: Denial, reply: &mut Message) -> Option<()> {
        let _permits = self.wait_to_forward().await?;
        match self.shared.forwarder.ask(query).await {
            Ok(answer) => {
                reply.metadata.response_code = answer.response_code;
                reply.metadata.truncation = answer.truncation;
                reply.metadata.authoritative = answer.authoritative;
                reply.metadata.authentic_data = answer.authentic_data;
                reply.metadata.recursion_available = answer.recursion_available;
                reply.answers = answer.answers;
                reply.authorities = answer.authorities;
                reply.additionals = answer.additionals;
                soften(denial, reply);
                self.shared.counters.forwarded.add();
            }
            // The host has no nameserver: there are no names but those of the endpoints.
            Err(ForwardError::NoNameserver { .. }) if denial != Denial::Theirs => {
                reply.metadata.response_code = match denial {
                    Denial::NoData => ResponseCode::NoError,
                    Denial::Fleeting | Denial::Theirs => ResponseCode::NXDomain,
                };
                self.shared.counters.answered.add();
            }
            Err(error) => {
                tracing::debug!(network = %self.network, %error, "question not forwarded");
                reply.metadata.response_code = ResponseCode::ServFail;
                self.shared.counters.failed.add();
            }
        }
        Some(())
    }

    /// Waits until the client may ask again; `None` if that takes too long.
    async fn wait_for_turn(&self, request: &Request) -> Option<()> {
        let client = (self.network, request.src().ip());
        let admitted = {
            let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients.admit(client, Instant::now())?
        };
        if !admitted.is_zero() {
            let _waiting = self.limits.waiting.try_acquire().ok()?;
            sleep(admitted).await;
        }
        Some(())
    }

    /// Waits until a question may be forwarded; `None` if that takes too long.
    async fn wait_to_forward(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        let (own, all) = (&self.limits.forwards, &self.shared.forwards);
        if let (Ok(own), Ok(all)) = (own.try_acquire(), all.try_acquire()) {
            return Some([own, all]);
        }
        let _waiting = self.limits.waiting.try_acquire().ok()?;
        let both = async { Some([own.acquire().await.ok()?, all.acquire().await.ok()?]) };
        timeout(LONGEST_WAIT, both).await.ok().flatten()
    }

    fn refuse(&self, reply: &mut Message, code: ResponseCode) {
        reply.metadata.response_code = code;
        self.shared.counters.refused.add();
    }
}

/// Makes what the world says of a name that an endpoint can have be remembered no longer than what we say of it ourselves.
fn soften(denial: Denial, reply: &mut Message) {
    if denial == Denial::Theirs {
        return;
    }
    reply.answers.iter_mut().for_each(|record| record.ttl = record.ttl.min(TTL));
    if denial == Denial::NoData && reply.metadata.response_code == ResponseCode::NXDomain {
        reply.metadata.response_code = ResponseCode::NoError;
    }
    // A client that checks signatures needs all of the proof.
    if !reply.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok) {
        reply.authorities.retain(|record| record.record_type() != RecordType::SOA);
    }
}

/// The one question of a request, or what is wrong with it.
fn question(request: &Request) -> Result<&Query, ResponseCode> {
    if request.version() > 0 {
        return Err(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    match request.queries.queries() {
        [query] => Ok(query.original()),
        _ => Err(ResponseCode::FormErr),
    }
}

/// The question as it is put to a nameserver: with what the client wants to know, not with what it says of itself.
fn upstream_query(question: &Query, request: &Request) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = request.metadata.recursion_desired;
    query.metadata.checking_disabled = request.metadata.checking_disabled;
    query.metadata.authentic_data = request.metadata.authentic_data;
    query.edns = request.edns.as_ref().map(|asked| edns(MAX_PAYLOAD, asked.flags().dnssec_ok));
    query.add_query(question.clone());
    query
}

fn edns(payload: u16, dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(payload.min(MAX_PAYLOAD)).set_dnssec_ok(dnssec_ok);
    edns
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let Some(reply) = self.reply(request).await else {
            return Header {
                metadata: Metadata::response_from_request(&request.metadata),
                counts: HeaderCounts::default(),
            }
            .into();
        };
        let metadata = reply.metadata;
        let message = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref()).build(
            metadata,
            &reply.answers,
            &reply.authorities,
            std::iter::empty(),
            &reply.additionals,
        );
        // A reply that can't be sent is a lost packet: the client asks again.
        let sent = response.send_response(message).await;
        sent.unwrap_or_else(|_| Header { metadata, counts: HeaderCounts::default() }.into())
    }
}

impl Responder for Handler {
    async fn respond(&self, message: Vec<u8>, client: SocketAddr) -> Option<Vec<u8>> {
        let header = Header::read(&mut BinDecoder::new(&message)).ok()?;
        // An answer to nothing we asked: no reply, or two servers could keep each other busy.
        if header.metadata.message_type == MessageType::Response {
            return None;
        }
        let reply = match Request::from_bytes(message, client, Protocol::Tcp) {
            Ok(request) => self.reply(&request).await?,
            Err(_) => {
                let mut reply = Message::response(header.metadata.id, header.metadata.op_code);
                self.refuse(&mut reply, ResponseCode::FormErr);
                reply
            }
        };
        reply.to_vec().ok()
    }

    fn turned_away(&self) {
        self.shared.counters.limited.add();
    }
}

#[cfg(test)]
mod tests;
