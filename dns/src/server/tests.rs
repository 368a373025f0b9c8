use std::time::Duration;

use hickory_proto::rr::{DNSClass, RecordType};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::fixture::{
    self, Given, Manner, Nameserver, ResolvConf, addresses, endpoint, eventually, network, network_id, question,
};
use crate::forward::Config;

/// A resolver that serves network 1 on loopback.
struct Served {
    resolver: Resolver,
    zone: watch::Sender<Arc<Zone>>,
    listener: Listener,
    udp: SocketAddr,
    tcp: SocketAddr,
    upstreams: Vec<Nameserver>,
    _file: ResolvConf,
}

fn zone(endpoints: &[Given]) -> Arc<Zone> {
    Arc::new(fixture::zone([network(1, "blue", endpoints)]))
}

async fn serve(endpoints: &[Given], limits: Limits, upstreams: &[Manner]) -> Served {
    let upstreams = Nameserver::start(upstreams).await;
    let lines: String = upstreams.iter().map(|server| format!("nameserver {}\n", server.address.ip())).collect();
    let file = ResolvConf::new(&lines);
    let port = match upstreams.first() {
        Some(server) => server.address.port(),
        // A port that nobody listens to: without a nameserver in the file, the one on this machine is asked.
        None => {
            let shut = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
            shut.local_addr().expect("it is bound").port()
        }
    };
    let forwarder = Forwarder::new(Config { resolv_conf: file.path(), port, ..Config::default() });
    let (sender, receiver) = watch::channel(zone(endpoints));
    let resolver = Resolver::new(receiver, forwarder, limits);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let at = (udp.local_addr().expect("it is bound"), tcp.local_addr().expect("it is bound"));
    let listener = resolver.listen(network_id(1), udp, tcp).expect("the sockets are good");
    Served { resolver, zone: sender, listener, udp: at.0, tcp: at.1, upstreams, _file: file }
}

async fn served(endpoints: &[Given]) -> Served {
    serve(endpoints, Limits::default(), &[]).await
}

fn web() -> Vec<Given> {
    vec![endpoint("web", "172.38.0.11")]
}

/// More endpoints than answers fit into a datagram: 200 records of 16 bytes.
fn crowd() -> Vec<Given> {
    (1..=200).map(|n| endpoint(&format!("e{n}"), &format!("172.38.0.{n}")).alias("crowd")).collect()
}

fn query(name: &str) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(question(name, RecordType::A));
    query
}

fn with_edns(mut query: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    query.set_edns(edns);
    query
}

const TIMEOUT: Duration = Duration::from_secs(5);

impl Served {
    async fn by_udp(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
        socket.send_to(bytes, self.udp).await.expect("loopback takes it");
        let mut buffer = vec![0; 65_535];
        let received = timeout(TIMEOUT, socket.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("a reply in time").expect("loopback works");
        assert_eq!(from, self.udp);
        buffer.truncate(length);
        buffer
    }

    async fn by_tcp(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.tcp).await.expect("it listens");
        tcp::write(&mut stream, bytes).await.expect("loopback takes it");
        let reply = timeout(TIMEOUT, tcp::read(&mut stream)).await;
        reply.expect("a reply in time").expect("loopback works").expect("a reply before the end")
    }

    /// The reply by UDP; the one by TCP is the same but for the order of records.
    async fn ask(&self, query: &Message) -> Message {
        let bytes = query.to_vec().expect("it is a message");
        let by_udp = Message::from_vec(&self.by_udp(&bytes).await).expect("the reply is a message");
        let by_tcp = Message::from_vec(&self.by_tcp(&bytes).await).expect("the reply is a message");
        assert_eq!(by_udp.metadata, by_tcp.metadata);
        assert_eq!(addresses(&by_udp.answers), addresses(&by_tcp.answers));
        assert_eq!((by_udp.id, by_udp.message_type), (query.id, MessageType::Response));
        by_udp
    }

    async fn code(&self, query: &Message) -> ResponseCode {
        self.ask(query).await.response_code
    }
}

#[tokio::test]
async fn a_name_is_answered_by_udp_and_tcp() {
    let served = served(&web()).await;
    let reply = served.ask(&query("Web.Blue")).await;
    assert_eq!(reply.queries, query("Web.Blue").queries);
    assert!(reply.queries[0].name.eq_case(&question("Web.Blue", RecordType::A).name));
    assert_eq!(addresses(&reply.answers).iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["172.38.0.11"]);
    assert!(reply.authoritative && reply.recursion_desired && reply.recursion_available && !reply.truncation);
    assert!(reply.edns.is_none());
    assert_eq!(served.resolver.counts(), Counts { answered: 2, ..Counts::default() });
}

#[tokio::test]
async fn no_is_said_at_once_and_with_the_right_code() {
    let served = served(&web()).await;
    let mut aaaa = query("web");
    aaaa.queries[0].query_type = RecordType::AAAA;
    let no_data = served.ask(&aaaa).await;
    assert_eq!((no_data.response_code, no_data.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(served.code(&query("99.0.38.172.in-addr.arpa")).await, ResponseCode::NXDomain);
}

#[tokio::test]
async fn no_of_the_world_is_not_remembered_where_an_endpoint_may_come() {
    let served = serve(&web(), Limits::default(), &[Manner::Ignorant]).await;
    for (name, code, remembered) in [
        ("example.com", ResponseCode::NXDomain, 1),
        ("nobody", ResponseCode::NXDomain, 0),
        ("nobody.blue", ResponseCode::NXDomain, 0),
        ("blue", ResponseCode::NoError, 0),
    ] {
        let reply = served.ask(&query(name)).await;
        assert_eq!((reply.response_code, reply.authorities.len()), (code, remembered), "{name}");
    }
}

#[tokio::test]
async fn the_newest_zone_counts() {
    let served = served(&[]).await;
    assert_ne!(served.code(&query("web")).await, ResponseCode::NoError);
    served.zone.send_replace(zone(&web()));
    assert_eq!(served.code(&query("web")).await, ResponseCode::NoError);
}

#[tokio::test]
async fn what_does_not_fit_a_datagram_is_truncated_and_whole_by_tcp() {
    let served = served(&crowd()).await;
    let sizes = [
        (query("crowd"), 512),
        (with_edns(query("crowd"), 600), 600),
        (with_edns(query("crowd"), 4096), usize::from(MAX_PAYLOAD)),
    ];
    for (query, size) in sizes {
        let bytes = query.to_vec().expect("it is a message");
        let datagram = served.by_udp(&bytes).await;
        assert!((size - 48..=size).contains(&datagram.len()), "{} of {size}", datagram.len());
        let reply = Message::from_vec(&datagram).expect("the reply is a message");
        assert!(reply.truncation && !reply.answers.is_empty());
        let whole = Message::from_vec(&served.by_tcp(&bytes).await).expect("the reply is a message");
        assert!(!whole.truncation);
        assert_eq!(addresses(&whole.answers).len(), 200);
    }
}

#[tokio::test]
async fn edns_is_answered_with_edns() {
    let served = served(&web()).await;
    for (asked, told) in [(100, 512), (900, 900), (4096, MAX_PAYLOAD)] {
        let mut query = with_edns(query("web"), asked);
        query.edns.as_mut().expect("it was set").set_dnssec_ok(true);
        let edns = served.ask(&query).await.edns.expect("EDNS was asked with");
        assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (told, 0, true));
    }
    let mut query = with_edns(query("web"), 1232);
    query.edns.as_mut().expect("it was set").set_version(1);
    let reply = served.ask(&query).await;
    // BADVERS and BADSIG are one number.
    assert_eq!((u16::from(reply.response_code), reply.answers.len()), (16, 0));
    assert_eq!(reply.edns.expect("EDNS was asked with").version(), 0);
}

#[tokio::test]
async fn messages_that_are_no_question_for_us_are_told_so() {
    let served = served(&web()).await;
    let mut status = query("web");
    status.metadata.op_code = OpCode::Status;
    assert_eq!(served.code(&status).await, ResponseCode::NotImp);
    let mut chaos = query("version.bind");
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(served.code(&chaos).await, ResponseCode::Refused);
    let mut two = query("web");
    two.add_query(question("db", RecordType::A));
    assert_eq!(served.code(&two).await, ResponseCode::FormErr);
    let mut none = query("web");
    none.queries.clear();
    assert_eq!(served.code(&none).await, ResponseCode::FormErr);
    let broken = [&query("web").to_vec().expect("it is a message")[..12], &[0xff; 9]].concat();
    for reply in [served.by_udp(&broken).await, served.by_tcp(&broken).await] {
        let reply = Message::from_vec(&reply).expect("the reply is a message");
        assert_eq!(reply.response_code, ResponseCode::FormErr);
    }
}

#[tokio::test]
async fn a_response_gets_no_response() {
    let served = served(&web()).await;
    let response = reply_like(&query("web")).to_vec().expect("it is a message");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
    socket.send_to(&response, served.udp).await.expect("loopback takes it");
    let after = query("web");
    socket.send_to(&after.to_vec().expect("it is a message"), served.udp).await.expect("loopback takes it");
    let mut buffer = [0; 1232];
    let length = timeout(TIMEOUT, socket.recv(&mut buffer)).await.expect("in time").expect("loopback works");
    assert_eq!(Message::from_vec(&buffer[..length]).expect("the reply is a message").id, after.id);

    let mut stream = TcpStream::connect(served.tcp).await.expect("it listens");
    tcp::write(&mut stream, &response).await.expect("loopback takes it");
    let end = timeout(TIMEOUT, tcp::read(&mut stream)).await.expect("in time");
    assert_eq!(end.expect("closed in order"), None);
}

fn reply_like(query: &Message) -> Message {
    let mut response = query.clone();
    response.metadata.message_type = MessageType::Response;
    response.metadata.id ^= 1;
    response
}

#[tokio::test]
async fn one_connection_takes_many_questions_at_once() {
    let served = served(&web()).await;
    let mut stream = TcpStream::connect(served.tcp).await.expect("it listens");
    let queries = ["web", "nobody", "web.blue"].map(query);
    for query in &queries {
        tcp::write(&mut stream, &query.to_vec().expect("it is a message")).await.expect("loopback takes it");
    }
    for query in &queries {
        let reply = timeout(TIMEOUT, tcp::read(&mut stream)).await.expect("in time").expect("loopback works");
        let reply = Message::from_vec(&reply.expect("a reply to each")).expect("the reply is a message");
        assert_eq!(reply.id, query.id);
    }
}

#[tokio::test]
async fn other_names_are_forwarded_and_the_answer_is_passed_on_whole() {
    let served = serve(&web(), Limits::default(), &[Manner::Truncating(100)]).await;
    let bytes = query("example.com").to_vec().expect("it is a message");
    let reply = Message::from_vec(&served.by_tcp(&bytes).await).expect("the reply is a message");
    assert_eq!((reply.answers.len(), reply.answers[0].ttl), (100, 300));
    assert!(reply.recursion_desired && reply.recursion_available && !reply.authoritative && !reply.truncation);
    assert_eq!(reply.queries, query("example.com").queries);
    let cut = Message::from_vec(&served.by_udp(&bytes).await).expect("the reply is a message");
    assert!(cut.truncation);
    assert_eq!(served.resolver.counts(), Counts { forwarded: 2, ..Counts::default() });
}

#[tokio::test]
async fn without_nameservers_a_forwarded_question_fails_at_once() {
    let served = served(&web()).await;
    assert_eq!(served.code(&query("example.com")).await, ResponseCode::ServFail);
    assert_eq!(served.resolver.counts().failed, 2);
}

#[tokio::test]
async fn our_own_names_never_leave_the_host() {
    let served = serve(&web(), Limits::default(), &[Manner::Good]).await;
    for name in ["web", "web.blue", "11.0.38.172.in-addr.arpa", "99.0.38.172.in-addr.arpa"] {
        served.ask(&query(name)).await;
    }
    assert_eq!(served.upstreams[0].asked(), 0);
    served.ask(&query("example.com")).await;
    assert_eq!(served.upstreams[0].asked(), 2);
}

#[tokio::test]
async fn a_client_that_asks_too_often_waits_and_then_hears_nothing() {
    let limits = Limits { rate: 20, burst: 4, ..Limits::default() };
    let served = serve(&web(), limits, &[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
    let start = std::time::Instant::now();
    for id in 0..100_u16 {
        let mut query = query("web");
        query.metadata.id = id;
        socket.send_to(&query.to_vec().expect("it is a message"), served.udp).await.expect("loopback takes it");
    }
    let is_done = |counts: Counts| counts.answered + counts.limited == 100;
    eventually("all are answered or not", || async { is_done(served.resolver.counts()) }).await;
    assert!(start.elapsed() >= Duration::from_millis(900), "20 of them waited: {:?}", start.elapsed());
    let Counts { answered, refused, .. } = served.resolver.counts();
    assert!(answered >= 24 && refused == 0, "each is answered, or the client hears nothing: {answered}, {refused}");
    // A client that asks as often as it may is served at once again.
    assert_eq!(served.code(&query("web")).await, ResponseCode::NoError);
}

#[tokio::test]
async fn questions_beyond_those_being_forwarded_wait_but_ours_are_answered() {
    let limits = Limits { forwards_each: 1, ..Limits::default() };
    let served = serve(&web(), limits, &[Manner::Slow(900)]).await;
    let waiting = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
    let bytes = query("example.com").to_vec().expect("it is a message");
    waiting.send_to(&bytes, served.udp).await.expect("loopback takes it");
    eventually("the question is forwarded", || async { served.upstreams[0].asked() == 1 }).await;
    assert_eq!(served.code(&query("web")).await, ResponseCode::NoError);
    assert_eq!(served.resolver.counts().forwarded, 0, "the first is being forwarded still");
    assert_eq!(served.code(&query("example.org")).await, ResponseCode::NoError);
    assert_eq!(served.resolver.counts(), Counts { answered: 2, forwarded: 3, ..Counts::default() });
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_places_come_back() {
    let limits = Limits { connections_each: 1, ..Limits::default() };
    let served = serve(&web(), limits, &[]).await;
    let bytes = query("web").to_vec().expect("it is a message");
    let converses = |stream: TcpStream| async {
        let mut stream = stream;
        let written = tcp::write(&mut stream, &bytes).await;
        let reply = timeout(TIMEOUT, tcp::read(&mut stream)).await.expect("a reply or the end, in time");
        (written.is_ok() && matches!(reply, Ok(Some(_)))).then_some(stream)
    };
    let connect = || async { TcpStream::connect(served.tcp).await.expect("it listens") };
    let first = converses(connect().await).await.expect("there is a place");
    assert!(converses(connect().await).await.is_none(), "there is no second place");
    assert_eq!(served.resolver.counts().limited, 1);
    drop(first);
    eventually("the place is free again", || async { converses(connect().await).await.is_some() }).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let served = served(&web()).await;
    let start = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(served.tcp).await.expect("it listens");
    assert!(matches!(tcp::read(&mut stream).await, Ok(None)));
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_dropped_listener_gives_its_ports_back() {
    let served = served(&web()).await;
    let open = TcpStream::connect(served.tcp).await.expect("it listens");
    let Served { listener, udp, tcp, .. } = served;
    drop(listener);
    eventually("both ports are free", || async {
        std::net::UdpSocket::bind(udp).is_ok() && std::net::TcpStream::connect(tcp).is_err()
    })
    .await;
    let mut open = open;
    let end = timeout(TIMEOUT, tcp::read(&mut open)).await.expect("in time");
    assert!(!matches!(end, Ok(Some(_))));
}

#[tokio::test]
async fn a_listener_that_serves_does_not_report_its_end() {
    let mut served = served(&web()).await;
    assert_eq!(served.code(&query("web")).await, ResponseCode::NoError);
    let stopped = tokio::select! {
        biased;
        () = served.listener.stopped() => true,
        () = std::future::ready(()) => false,
    };
    assert!(!stopped);
}
