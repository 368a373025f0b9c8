//! What the tests of this crate share: small clusters, a `resolv.conf` of their own, and nameservers on loopback.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name as DnsName, RData, Record, RecordType};
use overlay::cluster::{Cluster, Located, NetworkView};
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::host::Liveness;
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::Intents;
use overlay::model::lease::Version;
use overlay::model::network::{Network, Range, Settings};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::tcp;
use crate::zone::{Asker, Zone};

/// An endpoint as the tests write it.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub name: String,
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub liveness: Liveness,
    pub created: u64,
}

/// A live endpoint without aliases.
pub(crate) fn endpoint(name: &str, address: &str) -> Given {
    let addresses = vec![parsed(address)];
    Given { name: name.to_owned(), aliases: Vec::new(), addresses, liveness: Liveness::Live, created: 1 }
}

impl Given {
    pub fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.to_owned());
        self
    }

    pub fn also(mut self, address: &str) -> Self {
        self.addresses.push(parsed(address));
        self
    }

    pub fn on_a_host_that_is(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    pub fn created(mut self, created: u64) -> Self {
        self.created = created;
        self
    }
}

pub(crate) fn parsed<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the test writes it well")
}

pub(crate) fn network_id(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 16])
}

/// A network with that number and name, and the subnets 172.38.0.0/16 and fd00:38::/64.
pub(crate) fn network(number: u8, name: &str, endpoints: &[Given]) -> NetworkView {
    let id = network_id(number);
    let ranges = vec![
        Range { subnet: parsed("172.38.0.0/16"), gateway: parsed("172.38.0.1"), pool: None },
        Range { subnet: parsed("fd00:38::/64"), gateway: parsed("fd00:38::1"), pool: None },
    ];
    let network = Network {
        id,
        name: parsed(name),
        ranges,
        created: number.into(),
        creator: host(),
        since: 0,
        settings: Settings::default(),
    };
    let endpoints = endpoints.iter().enumerate().map(|(n, given)| located(id, n, given)).collect();
    NetworkView { endpoints, ..NetworkView::new(&network) }
}

fn host() -> HostId {
    HostId::from_bytes([7; 16])
}

fn located(network: NetworkId, number: usize, given: &Given) -> Located {
    let assigned = |address| Assigned { address, lease: Version::default() };
    let endpoint = Endpoint {
        id: EndpointId::from_bytes((number as u128).to_be_bytes()),
        network,
        name: parsed(&given.name),
        aliases: given.aliases.iter().map(|alias| parsed(alias)).collect(),
        addresses: given.addresses.iter().copied().map(assigned).collect(),
        mac: Mac::of_address(given.addresses[0]),
        created: given.created,
    };
    Located { endpoint: Arc::new(endpoint), host: host(), liveness: given.liveness }
}

pub(crate) fn cluster(networks: impl IntoIterator<Item = NetworkView>) -> Cluster {
    let networks = networks.into_iter().map(|view| (view.network.id, view.into())).collect();
    Cluster { networks, ..Cluster::default() }
}

/// The zone of a host with an endpoint in each of these networks.
pub(crate) fn zone(networks: impl IntoIterator<Item = NetworkView>) -> Zone {
    let cluster = cluster(networks);
    Zone::build(&cluster, &in_networks(cluster.networks.keys()))
}

/// What a host is asked for that has an endpoint in each of these networks.
pub(crate) fn in_networks<'a>(networks: impl IntoIterator<Item = &'a NetworkId>) -> Intents {
    let mut intents = Intents::default();
    for network in networks {
        let seat = intents.seat(*network).expect("a few networks");
        intents.seats.insert(*network, seat);
    }
    intents
}

pub(crate) fn asker(network: u8) -> Asker {
    Asker { network: network_id(network), address: parsed("172.38.0.11") }
}

pub(crate) fn question(name: &str, kind: RecordType) -> Query {
    let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    Query::query(DnsName::from_labels(labels).expect("the test writes it well"), kind)
}

/// The addresses in records, sorted.
pub(crate) fn addresses(records: &[Record]) -> BTreeSet<IpAddr> {
    records.iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// Waits until it holds, at most five seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "not within 5 s: {what}");
        tokio::task::yield_now().await;
    }
}

/// A `resolv.conf` in a directory of its own, gone when dropped.
#[derive(Debug)]
pub(crate) struct ResolvConf {
    directory: PathBuf,
}

impl ResolvConf {
    pub fn new(text: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("overlay-dns-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the directory for temporary files can be written");
        let file = Self { directory };
        file.write(text);
        file
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join("resolv.conf")
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("the file is ours");
    }

    /// Replaces the file by a link to another one.
    pub fn link_to(&self, text: &str) {
        let (target, link) = (self.directory.join("target"), self.directory.join("link"));
        std::fs::write(&target, text).expect("the file is ours");
        std::os::unix::fs::symlink(Path::new("target"), &link).expect("the link is ours");
        std::fs::rename(link, self.path()).expect("the link is ours");
    }

    /// Removes the file that [`ResolvConf::link_to`] has linked to.
    pub fn remove_target(&self) {
        std::fs::remove_file(self.directory.join("target")).expect("it was linked to");
    }

    pub fn remove(&self) {
        std::fs::remove_file(self.path()).expect("the file is there");
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// How a nameserver behaves. Those that answer give their own address for every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Gives a truncated answer by UDP, one of this many records by TCP.
    Truncating(usize),
    Silent,
    Failing,
    /// Sends rubbish and answers to other questions before the right one.
    Noisy,
    /// Takes so long for each answer, in milliseconds.
    Slow(u64),
    /// Takes no notice of the first question, as if it were lost.
    Losing,
    /// Repeats the question in lower case.
    LowerCase,
    /// Gives a truncated answer with one address by UDP, and does not listen to TCP.
    Cutting,
    /// The same, but it takes connections and says nothing.
    CuttingAndHanging,
    /// Finds fault with questions that have EDNS, without repeating them.
    WithoutEdns,
    /// Refuses, without repeating the question.
    Curt,
    /// Listens to TCP only.
    TcpOnly,
    /// Knows no name; says for how long that is so.
    Ignorant,
    /// Knows no name, and offers no recursion.
    Lame,
    /// Cuts its answer by UDP in the middle of a record.
    CutWithinRecord,
}

/// A nameserver on loopback, gone when dropped.
#[derive(Debug)]
pub(crate) struct Nameserver {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<(SocketAddr, u16)>>>,
    _tasks: JoinSet<()>,
}

impl Nameserver {
    /// Nameservers on 127.0.0.1 and up, all on one port: `resolv.conf` can't say a port.
    pub async fn start(manners: &[Manner]) -> Vec<Self> {
        for _ in 0..100 {
            let first = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
            let port = first.local_addr().expect("it is bound").port();
            drop(first);
            if let Ok(servers) = Self::start_on(port, manners).await {
                return servers;
            }
        }
        unreachable!("a port that is free for UDP is free for TCP at least once in a hundred times")
    }

    async fn start_on(port: u16, manners: &[Manner]) -> std::io::Result<Vec<Self>> {
        let mut servers = Vec::new();
        for (last, manner) in (1_u8..).zip(manners) {
            let address = SocketAddr::from(([127, 0, 0, last], port));
            let (udp, listener) = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
            let asked = Arc::default();
            let mut tasks = JoinSet::new();
            if *manner != Manner::TcpOnly {
                tasks.spawn(serve_udp(Arc::new(udp), *manner, Arc::clone(&asked)));
            }
            if *manner != Manner::Cutting {
                tasks.spawn(serve_tcp(listener, *manner));
            }
            servers.push(Self { address, asked, _tasks: tasks });
        }
        Ok(servers)
    }

    /// How often it was asked by UDP.
    pub fn asked(&self) -> usize {
        self.questions().len()
    }

    /// Where each question came from, and its id.
    pub fn questions(&self) -> Vec<(SocketAddr, u16)> {
        self.asked.lock().expect("no test panics while it holds the lock").clone()
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, manner: Manner, asked: Arc<Mutex<Vec<(SocketAddr, u16)>>>) {
    let own = socket.local_addr().expect("it is bound").ip();
    let mut later = JoinSet::new();
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_vec(&buffer[..length]).expect("we ask well");
        let number = {
            let mut asked = asked.lock().expect("no test panics while it holds the lock");
            asked.push((client, query.id));
            asked.len()
        };
        if manner == Manner::Losing && number == 1 {
            continue;
        }
        let socket = Arc::clone(&socket);
        later.spawn(async move {
            if let Manner::Slow(millis) = manner {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            for reply in replies(&query, own, manner) {
                // The client may have had an answer from another.
                drop(socket.send_to(&reply, client).await);
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, manner: Manner) {
    let own = listener.local_addr().expect("it is bound").ip();
    let mut held = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        if manner == Manner::CuttingAndHanging {
            held.push(stream);
            continue;
        }
        while let Ok(Some(message)) = tcp::read(&mut stream).await {
            let query = Message::from_vec(&message).expect("we ask well");
            let count = if let Manner::Truncating(count) = manner { count } else { 1 };
            drop(tcp::write(&mut stream, &bytes(&reply(&query, own, count))).await);
        }
    }
}

fn replies(query: &Message, own: IpAddr, manner: Manner) -> Vec<Vec<u8>> {
    let good = reply(query, own, 1);
    match manner {
        Manner::Good | Manner::Slow(_) | Manner::Losing | Manner::TcpOnly => vec![bytes(&good)],
        Manner::Silent => Vec::new(),
        Manner::Lame => {
            let mut lame = reply(query, own, 0);
            lame.metadata.recursion_available = false;
            vec![bytes(&lame)]
        }
        Manner::CutWithinRecord => {
            let mut cut = good;
            cut.metadata.truncation = true;
            let mut bytes = bytes(&cut);
            bytes.truncate(bytes.len() - 3);
            vec![bytes]
        }
        Manner::Cutting | Manner::CuttingAndHanging => {
            let mut cut = good;
            cut.metadata.truncation = true;
            vec![bytes(&cut)]
        }
        Manner::LowerCase => {
            let mut lower = good;
            lower.queries[0].name = lower.queries[0].name.to_lowercase();
            vec![bytes(&lower)]
        }
        Manner::WithoutEdns if query.edns.is_none() => vec![bytes(&good)],
        Manner::WithoutEdns => vec![bytes(&curt(query, ResponseCode::FormErr))],
        Manner::Curt => vec![bytes(&curt(query, ResponseCode::Refused))],
        Manner::Ignorant => {
            let mut ignorant = reply(query, own, 0);
            ignorant.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(DnsName::root(), DnsName::root(), 1, 86_400, 86_400, 86_400, 86_400);
            ignorant.add_authority(Record::from_rdata(DnsName::root(), 86_400, RData::SOA(soa)));
            vec![bytes(&ignorant)]
        }
        Manner::Truncating(_) => vec![bytes(&good.truncate())],
        Manner::Failing => {
            let mut failing = reply(query, own, 0);
            failing.metadata.response_code = ResponseCode::ServFail;
            vec![bytes(&failing)]
        }
        Manner::Noisy => {
            let poison = [10, 6, 6, 6].into();
            let mut other_id = reply(query, poison, 1);
            other_id.metadata.id ^= 1;
            let mut other_name = reply(query, poison, 1);
            other_name.queries[0].name = other_name.queries[0].name.prepend_label("evil").expect("it is short");
            let mut other_type = reply(query, poison, 1);
            other_type.queries[0].query_type = RecordType::MX;
            let mut a_query = reply(query, poison, 1);
            a_query.metadata.message_type = query.message_type;
            let noise = [other_id, other_name, other_type, a_query];
            std::iter::once(b"rubbish".to_vec()).chain(noise.iter().map(bytes)).chain([bytes(&good)]).collect()
        }
    }
}

fn reply(query: &Message, own: IpAddr, count: usize) -> Message {
    let mut reply = Message::response(query.id, query.op_code);
    reply.metadata.recursion_desired = query.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    reply.edns.clone_from(&query.edns);
    let name = &query.queries[0].name;
    reply.add_answers((0..count).map(|_| Record::from_rdata(name.clone(), 300, RData::from(own))));
    reply
}

fn curt(query: &Message, code: ResponseCode) -> Message {
    let mut curt = Message::response(query.id, query.op_code);
    curt.metadata.response_code = code;
    curt
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it is a message")
}
