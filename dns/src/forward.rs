//! Questions that are not ours, put to the nameservers of the host.
//!
//! What resolves on the host resolves here: the forwarder stands in for the C library, so it is as patient as that and takes what
//! that takes. It waits [`Config::total`] for an answer. A nameserver that says nothing for [`Config::attempt`] is waited for on, and
//! the next one is asked beside it: the first answer with records counts, however late it is. That a name does not exist, or has no
//! such record, counts once the nameservers that are named before have said what they know, or have had [`Config::patience`]: the C
//! library would have waited for them, and they may know names of a company that the world does not know.
//!
//! Owns which nameservers those are: `resolv.conf` is read for each question, since a file of a few lines costs less
//! than one packet, and so no change, however it was made, is ever missed. Never asks the addresses that it was told
//! are ourselves. Remembers no answers; the host's nameservers do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::resolv_conf::ResolvConf;
use exchange::{Exchange, Outcome};

mod exchange;

/// Where and how patiently to ask.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that names the host's nameservers.
    pub resolv_conf: PathBuf,
    /// Our own addresses: asking them would ask the same question again.
    pub never: BTreeSet<IpAddr>,
    /// The nameservers' port; `resolv.conf` can't say it.
    pub port: u16,
    /// How long to wait for one nameserver alone before the next is asked beside it.
    pub attempt: Duration,
    /// How long a nameserver is waited for before "no" of one that is named after it counts.
    pub patience: Duration,
    /// How long a datagram may take to be answered before it counts as lost and is sent again.
    pub resend: Duration,
    /// How long to try to fetch by TCP what a nameserver has cut, before the cut answer is passed on. One that has no records is not
    /// passed on; for that there is [`patience`](Self::patience).
    pub tcp: Duration,
    /// How long to wait for all of them together.
    pub total: Duration,
}

impl Default for Config {
    /// `/etc/resolv.conf` and port 53; the patience of the C library, which asks twice and waits 5 s each time (`timeout` and
    /// `attempts`, resolv.conf(5)). Never the service address.
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            never: BTreeSet::from([IpAddr::V4(overlay::datapath::desired::SERVICE_ADDRESS)]),
            port: 53,
            attempt: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            resend: Duration::from_secs(3),
            tcp: Duration::from_millis(1_200),
            total: Duration::from_secs(10),
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
    /// The file names only this agent; or it names no nameserver, and none answers on the host itself.
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

/// Asks the host's nameservers.
#[derive(Debug)]
pub struct Forwarder {
    config: Arc<Config>,
}

/// Whom to ask, and how.
#[derive(Debug)]
struct Upstream {
    servers: Vec<SocketAddr>,
    /// The file names none: this is the one that every host may have.
    presumed: bool,
    tcp_only: bool,
}

impl Forwarder {
    /// A forwarder.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// The nameservers that would be asked now, in order. Without a file, or with one that names none, that is the one on the host
    /// itself, as for the C library.
    ///
    /// # Errors
    /// When the file can't be read, or names only ourselves.
    pub fn nameservers(&self) -> Result<Vec<SocketAddr>, ForwardError> {
        self.upstream().map(|upstream| upstream.servers)
    }

    fn upstream(&self) -> Result<Upstream, ForwardError> {
        let Config { resolv_conf: path, never, port, .. } = &*self.config;
        let text = read(path).map_err(|source| ForwardError::Unreadable { path: path.clone(), source })?;
        let ResolvConf { nameservers, presumed, tcp_only } = ResolvConf::parse(&text);
        let others = nameservers.into_iter().filter(|server| !never.contains(&server.meant()));
        let servers: Vec<SocketAddr> = others.filter_map(|server| server.socket(*port)).take(MAX_NAMESERVERS).collect();
        if servers.is_empty() {
            return Err(ForwardError::NoNameserver { path: path.clone() });
        }
        Ok(Upstream { servers, presumed, tcp_only })
    }

    /// The nameservers' answer to `query`, a message with one question; its id is replaced for each nameserver.
    ///
    /// What a nameserver says is final unless it could not or would not say; then the next one is asked at once, and the
    /// excuse passed on only if nobody knows better.
    ///
    /// # Errors
    /// When there is nobody to ask, or nobody answered within [`Config::total`].
    pub async fn ask(&self, query: &Message) -> Result<Message, ForwardError> {
        let Upstream { servers, presumed, tcp_only } = self.upstream()?;
        let exchange = Arc::new(Exchange { query: query.clone(), tcp_only, config: Arc::clone(&self.config) });
        let mut excuse = None;
        let race = self.race(&servers, exchange, &mut excuse);
        // It is given up in the end; what was said till then is better than nothing.
        let answer = timeout_at(Instant::now() + self.config.total, race).await.ok().flatten();
        answer.or(excuse).ok_or_else(|| match presumed {
            true => ForwardError::NoNameserver { path: self.config.resolv_conf.clone() },
            false => ForwardError::NoAnswer { servers },
        })
    }

    /// The first good answer; `None` once all have given up.
    async fn race(
        &self,
        servers: &[SocketAddr],
        exchange: Arc<Exchange>,
        excuse: &mut Option<Message>,
    ) -> Option<Message> {
        let mut waiting = servers.iter().enumerate();
        let mut asked = JoinSet::new();
        let start = Instant::now();
        let mut next_at = start;
        let (mut ended, mut denials) = (BTreeSet::new(), Denials::default());
        loop {
            if let Some(no) = denials.that_counts(&ended, start.elapsed() >= self.config.patience) {
                return Some(no);
            }
            tokio::select! {
                biased;
                Some(outcome) = asked.join_next() => {
                    let Ok((number, outcome)) = outcome else { continue };
                    ended.insert(number);
                    match outcome {
                        Outcome::Final(answer) if answer.answers.is_empty() => denials.add(number, answer),
                        Outcome::Final(answer) => return Some(answer),
                        Outcome::Excuse(answer) => *excuse = Some(answer),
                        Outcome::Failed => {}
                    }
                    next_at = Instant::now();
                }
                () = sleep_until(next_at), if waiting.len() > 0 && denials.is_empty() => {
                    let (number, server) = waiting.next()?;
                    let asking = Arc::clone(&exchange).with(*server);
                    asked.spawn(async move { (number, asking.await) });
                    next_at = Instant::now() + self.config.attempt;
                }
                () = sleep_until(start + self.config.patience), if !denials.is_empty() => {}
                else => return None,
            }
        }
    }
}

/// What nameservers have said that know no such name, or no such record of it, by their places in the file.
#[derive(Debug, Default)]
struct Denials(BTreeMap<usize, Message>);

impl Denials {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, number: usize, answer: Message) {
        self.0.insert(number, answer);
    }

    /// The one of the nameserver that is named first, if all that are named before it have `ended`, or were waited for long enough.
    fn that_counts(&mut self, ended: &BTreeSet<usize>, waited: bool) -> Option<Message> {
        let first = *self.0.keys().next()?;
        let counts = waited || (0..first).all(|earlier| ended.contains(&earlier));
        counts.then(|| self.0.remove(&first)).flatten()
    }
}

/// A local file of a few lines: reading it here takes less time than handing it to another thread. One that is not there says
/// nothing.
fn read(path: &PathBuf) -> io::Result<String> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => drop(file.take(MAX_FILE).read_to_end(&mut bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
