use super::*;
use crate::limits::MAX_DIGEST;
use crate::transport::inspect;
use chitchat::transport::{RecvOutcome, SendOutcome, Transport};
use chitchat::{ChitchatConfig, ChitchatId, ChitchatMessage, FailureDetectorConfig, ProtocolVersion, spawn_chitchat};
use tokio::sync::mpsc;

/// A transport that shows what chitchat wants to send and brings what the test hands in.
struct Probe {
    sent: mpsc::UnboundedSender<ChitchatEnvelope>,
    inbox: std::sync::Mutex<Option<mpsc::UnboundedReceiver<RecvOutcome>>>,
}

struct ProbeSocket {
    sent: mpsc::UnboundedSender<ChitchatEnvelope>,
    inbox: mpsc::UnboundedReceiver<RecvOutcome>,
}

#[async_trait::async_trait]
impl Transport for Probe {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inbox = self.inbox.lock().expect("no panic").take().expect("opened once");
        Ok(Box::new(ProbeSocket { sent: self.sent.clone(), inbox }))
    }
}

#[async_trait::async_trait]
impl Socket for ProbeSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(ANY_PORT)
    }

    async fn send(&mut self, _: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.sent.send(envelope)?;
        Ok(SendOutcome { num_bytes_sent: 0 })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        match self.inbox.recv().await {
            Some(received) => Ok(received),
            None => std::future::pending().await,
        }
    }
}

struct Node {
    _handle: chitchat::ChitchatHandle,
    sent: mpsc::UnboundedReceiver<ChitchatEnvelope>,
    deliver: mpsc::UnboundedSender<RecvOutcome>,
}

impl Node {
    async fn start(name: &str, keys: usize, gossips: bool) -> Self {
        let (sent_tx, sent) = mpsc::unbounded_channel();
        let (deliver, inbox) = mpsc::unbounded_channel();
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(name, 1, ANY_PORT),
            cluster_id: "test".to_owned(),
            gossip_interval: Duration::from_secs(3600),
            listen_addr: ANY_PORT,
            seed_nodes: if gossips { vec!["127.0.0.1:9".to_owned()] } else { Vec::new() },
            failure_detector_config: FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: Duration::from_secs(3600),
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let pairs = (0..keys).map(|n| (format!("{name}/{n}"), format!("value {n}"))).collect();
        let probe = Probe { sent: sent_tx, inbox: std::sync::Mutex::new(Some(inbox)) };
        let handle = spawn_chitchat(config, pairs, &probe).await.expect("spawned");
        Self { _handle: handle, sent, deliver }
    }

    async fn next(&mut self) -> ChitchatEnvelope {
        timeout(Duration::from_secs(10), self.sent.recv()).await.expect("in time").expect("running")
    }

    fn deliver(&self, envelope: ChitchatEnvelope) {
        let received = RecvOutcome { from_addr: ANY_PORT, envelope, num_bytes_received: 0 };
        self.deliver.send(received).expect("running");
    }
}

async fn through(codec: &mut Codec, envelope: ChitchatEnvelope) -> (inspect::Summary, ChitchatEnvelope) {
    let text = format!("{envelope:?}");
    let bytes = codec.encode(envelope).await.expect("encoded").to_vec();
    let summary = inspect::inspect(&bytes).expect("it can be inspected what chitchat writes");
    let decoded = codec.decode(&bytes).await.expect("decoded");
    assert_eq!(format!("{decoded:?}"), text);
    (summary, decoded)
}

/// A whole handshake of two real chitchats through the codec: each message comes out as it went in, and the guard reads each one.
#[tokio::test]
async fn codec_and_guard_agree_with_chitchat_on_each_kind_of_message() {
    let mut codec = Codec::open().await.expect("loopback is up");
    let mut a = Node::start("a", 100, true).await;
    let mut b = Node::start("b", 3, false).await;

    let (syn, envelope) = through(&mut codec, a.next().await).await;
    assert!(matches!(envelope.message, ChitchatMessage::Syn { .. }));
    assert_eq!(syn, inspect::Summary { digest: 1, ..Default::default() });

    b.deliver(envelope);
    let (syn_ack, envelope) = through(&mut codec, b.next().await).await;
    assert!(matches!(envelope.message, ChitchatMessage::SynAck { .. }));
    assert_eq!(
        syn_ack,
        inspect::Summary { digest: 2, unheard: 0, deltas: vec![(ChitchatId::new("b", 1, ANY_PORT), 3)] }
    );

    a.deliver(envelope);
    let (ack, envelope) = through(&mut codec, a.next().await).await;
    assert!(matches!(envelope.message, ChitchatMessage::Ack { .. }));
    assert_eq!(ack, inspect::Summary { digest: 0, unheard: 0, deltas: vec![(ChitchatId::new("a", 1, ANY_PORT), 100)] });

    let nothing =
        ChitchatEnvelope { version: ProtocolVersion::V1, message: ChitchatMessage::Ack { delta: Default::default() } };
    assert_eq!(codec.encode(nothing).await, Ok(&NOTHING_MORE[..]));

    let refusal = ChitchatEnvelope { version: ProtocolVersion::V1, message: ChitchatMessage::BadCluster };
    assert_eq!(through(&mut codec, refusal).await.0, inspect::Summary::default());
}

#[tokio::test]
async fn a_local_process_that_writes_to_the_codec_is_not_heard() {
    let mut codec = Codec::open().await.expect("loopback is up");
    let envelope = || ChitchatEnvelope { version: ProtocolVersion::V1, message: ChitchatMessage::BadCluster };
    let bytes = codec.encode(envelope()).await.expect("encoded").to_vec();

    let intruder = UdpSocket::bind(ANY_PORT).await.expect("bound");
    let empty_delta = [&bytes[..3], &[2, 0]].concat();
    assert!(inspect::inspect(&empty_delta).is_ok(), "a message that chitchat would accept");
    for junk in [&b"junk"[..], &empty_delta] {
        intruder.send_to(junk, codec.addr()).await.expect("sent");
        intruder.send_to(junk, codec.helper_addr).await.expect("sent");
    }
    assert_eq!(codec.encode(envelope()).await.expect("encoded"), bytes);
    assert_eq!(codec.decode(&bytes).await.expect("decoded").message, ChitchatMessage::BadCluster);
}

#[tokio::test]
async fn a_message_as_large_as_chitchat_makes_them_passes() {
    let mut codec = Codec::open().await.expect("loopback is up");
    let mut a = Node::start("a", 0, true).await;
    let mut b = Node::start("b", 50_000, false).await;
    b.deliver(a.next().await);
    let envelope = b.next().await;
    let length = codec.encode(envelope).await.expect("encoded").len();
    assert!((50_000..=MAX_ENCODED).contains(&length), "chitchat fills the datagram: {length}");
}

/// Bytes per incarnation in a digest of hosts of one /16 that differ in so many bits of their start and of their versions.
async fn digest_entry(codec: &mut Codec, (start, heartbeat, version): (u32, u32, u32)) -> f64 {
    const HOSTS: usize = 1500;
    let mut rng = fastrand::Rng::with_seed(7);
    let digest = (0..HOSTS).map(|_| {
        let address = SocketAddr::from(([10, 0, rng.u8(..), rng.u8(..)], 7946));
        let generation = 1_800_000_000_000 + rng.u64(..1 << start);
        let numbers = [1000 + rng.u64(..1 << heartbeat), 0, 1 + rng.u64(..1 << version)];
        (ChitchatId::new(format!("{:032x}", rng.u128(..)), generation, address), numbers)
    });
    let message = inspect::tests::syn(&digest.collect::<Vec<_>>());
    let envelope = codec.decode(&message).await.expect("decoded");
    codec.encode(envelope).await.expect("encoded").len() as f64 / HOSTS as f64
}

#[tokio::test]
async fn a_digest_has_room_for_two_thousand_hosts_that_started_together_and_for_fewer_of_all_ages() {
    let mut codec = Codec::open().await.expect("loopback is up");
    let together = digest_entry(&mut codec, (22, 2, 2)).await;
    assert!(2000.0 * together <= MAX_DIGEST as f64, "{together} bytes each");
    let of_all_ages = digest_entry(&mut codec, (32, 22, 10)).await;
    assert!(1600.0 * of_all_ages <= MAX_DIGEST as f64, "{of_all_ages} bytes each");
    assert!(together > 26.0 && of_all_ages > 35.0, "the comment at MAX_DIGEST says more: {together}, {of_all_ages}");
}
