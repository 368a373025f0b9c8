//! Questions that are not ours, put to the nameservers of the host.
//!
//! Owns which nameservers those are: `resolv.conf` is read for each question, since a file of a few lines costs less
//! than one packet, and so no change, however it was made, is ever missed. Never asks the addresses that it was told
//! are ourselves. Remembers no answers; the host's nameservers do.
//!
//! Each attempt has a fresh socket, thus a fresh source port, and a fresh random id; an answer counts only if it comes
//! from the address asked, with that id and the very question, its mix of case included (RFC 5452, section 9).

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::resolv_conf::nameservers;
use crate::tcp;

/// Where and how patiently to ask.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that names the host's nameservers.
    pub resolv_conf: PathBuf,
    /// Our own addresses: asking them would ask the same question again.
    pub never: BTreeSet<IpAddr>,
    /// The nameservers' port; `resolv.conf` can't say it.
    pub port: u16,
    /// How long to wait for one nameserver before the next is asked.
    pub attempt: Duration,
    /// How long to wait for all of them together.
    pub total: Duration,
}

impl Default for Config {
    /// `/etc/resolv.conf` and port 53; a second for each attempt, and less in all than the five seconds after which the
    /// C library asks again. Never the service address.
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            never: BTreeSet::from([IpAddr::V4(overlay::datapath::desired::SERVICE_ADDRESS)]),
            port: 53,
            attempt: Duration::from_secs(1),
            total: Duration::from_secs(4),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The file can't be read.
    #[error("can't read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file names nobody but ourselves.
    #[error("{path} names no nameserver that can be asked")]
    NoNameserver {
        /// The file.
        path: PathBuf,
    },
    /// All refused the connection or said nothing of use.
    #[error("no nameserver answered, of {}", list(.servers))]
    NoAnswer {
        /// Those that were asked.
        servers: Vec<SocketAddr>,
    },
}

/// As many as the C library asks (`MAXNS`, resolv.conf(5)).
const MAX_NAMESERVERS: usize = 3;
/// More of a `resolv.conf` than anybody writes.
const MAX_FILE: u64 = 64 * 1024;
/// More than any nameserver sends by UDP, whatever it was told (RFC 6891, section 6.2.5).
const MAX_DATAGRAM: usize = 4096;

/// Asks the host's nameservers.
#[derive(Debug)]
pub struct Forwarder {
    config: Config,
}

impl Forwarder {
    /// A forwarder.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// The nameservers that would be asked now, in order.
    ///
    /// # Errors
    /// When the file can't be read, or names none that can be asked.
    pub fn nameservers(&self) -> Result<Vec<SocketAddr>, ForwardError> {
        let Config { resolv_conf: path, never, port, .. } = &self.config;
        let text = read(path).map_err(|source| ForwardError::Unreadable { path: path.clone(), source })?;
        let others = nameservers(&text).into_iter().filter(|server| !never.contains(&server.meant()));
        let servers: Vec<SocketAddr> = others.filter_map(|server| server.socket(*port)).take(MAX_NAMESERVERS).collect();
        if servers.is_empty() {
            return Err(ForwardError::NoNameserver { path: path.clone() });
        }
        Ok(servers)
    }

    /// The nameservers' answer to `query`, a message with one question; its id is replaced for each attempt.
    ///
    /// What a nameserver says is final unless it could not or would not say; then the next one is asked, and the
    /// excuse passed on only if nobody knows better.
    ///
    /// # Errors
    /// When there is nobody to ask, or nobody answered within [`Config::total`].
    pub async fn ask(&self, query: &Message) -> Result<Message, ForwardError> {
        let servers = self.nameservers()?;
        let deadline = Instant::now() + self.config.total;
        let mut excuse = None;
        loop {
            let mut silent = false;
            for server in &servers {
                match self.attempt(*server, query, deadline).await {
                    Attempt::Final(answer) => return Ok(answer),
                    Attempt::Excuse(answer) => excuse = Some(answer),
                    Attempt::Failed => {}
                    Attempt::Silent => silent = true,
                }
            }
            // Who answered will answer the same again; only who was silent is asked once more.
            if !silent || Instant::now() >= deadline {
                return excuse.ok_or(ForwardError::NoAnswer { servers });
            }
        }
    }

    async fn attempt(&self, server: SocketAddr, query: &Message, deadline: Instant) -> Attempt {
        let until = || deadline.min(Instant::now() + self.config.attempt);
        let mut outcome = timeout_at(until(), ask_by_udp(server, query)).await;
        if matches!(&outcome, Ok(Ok(answer)) if answer.truncation) {
            outcome = timeout_at(until(), ask_by_tcp(server, query)).await;
        }
        match outcome {
            #[cfg_attr(not(test), expect(clippy::wildcard_enum_match_arm, reason = "any other answer is an answer"))]
            Ok(Ok(answer)) => match answer.response_code {
                ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp => Attempt::Excuse(answer),
                _ => Attempt::Final(answer),
            },
            Ok(Err(_)) => Attempt::Failed,
            Err(_) => Attempt::Silent,
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Final(Message),
    Excuse(Message),
    Failed,
    Silent,
}

/// Why one nameserver was of no use.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the question can't be written")]
    Unwritable(#[from] ProtoError),
    #[error("the connection was closed before the answer")]
    Closed,
}

async fn ask_by_udp(server: SocketAddr, query: &Message) -> Result<Message, AskError> {
    let query = renewed(query);
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Port 0: the kernel draws one at random. Connected: the kernel drops what others send, and tells if the port is shut.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query.to_vec()?).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).and_then(|bytes| answer_to(&query, bytes)) {
            return Ok(answer);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &Message) -> Result<Message, AskError> {
    let query = renewed(query);
    let mut stream = TcpStream::connect(server).await?;
    tcp::write(&mut stream, &query.to_vec()?).await?;
    while let Some(bytes) = tcp::read(&mut stream).await? {
        if let Some(answer) = answer_to(&query, &bytes) {
            return Ok(answer);
        }
    }
    Err(AskError::Closed)
}

fn renewed(query: &Message) -> Message {
    let mut renewed = query.clone();
    // hickory draws the id of a new query from the thread's generator, a CSPRNG.
    renewed.metadata.id = Message::query().id;
    renewed
}

fn answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = |(a, q): (&hickory_proto::op::Query, &hickory_proto::op::Query)| {
        a.query_type == q.query_type && a.query_class == q.query_class && a.name.eq_case(&q.name)
    };
    let fits = answer.id == query.id
        && answer.message_type == MessageType::Response
        && answer.queries.len() == query.queries.len()
        && answer.queries.iter().zip(&query.queries).all(same);
    fits.then_some(answer)
}

/// A local file of a few lines: reading it here takes less time than handing it to another thread.
fn read(path: &PathBuf) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
