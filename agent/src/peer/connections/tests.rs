//! Connections between two agents on 127.0.0.1, through a relay that counts and breaks them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use overlay::ledger::Ask;
use overlay::model::network::Network;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::peer::accept::MAX_HANDSHAKES;
use crate::peer::tests::{Agent, TEST_TIMEOUT, two};

/// Forwards connections to an agent.
struct Relay {
    address: SocketAddr,
    state: Arc<RelayState>,
}

#[derive(Default)]
struct RelayState {
    /// How many connections were made, and from which addresses.
    made: AtomicUsize,
    sources: Mutex<BTreeSet<IpAddr>>,
    open: AtomicUsize,
    /// Changes when all open connections are to be broken; the connections before `frozen` forward nothing.
    breaks: watch::Sender<usize>,
    frozen: watch::Sender<usize>,
}

impl Relay {
    async fn to(agent: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let relay = Self { address: listener.local_addr().expect("it is bound"), state: Arc::default() };
        let state = Arc::clone(&relay.state);
        tokio::spawn(async move {
            while let Ok((from, source)) = listener.accept().await {
                let number = state.made.fetch_add(1, Ordering::Relaxed);
                state.sources.lock().expect("no panic before").insert(source.ip());
                tokio::spawn(forward(from, agent, number, Arc::clone(&state)));
            }
        });
        relay
    }

    fn made(&self) -> usize {
        self.state.made.load(Ordering::Relaxed)
    }

    /// Breaks all connections.
    fn break_all(&self) {
        self.state.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// What is open goes on to be open, and nothing passes any more.
    fn freeze_open(&self) {
        self.state.frozen.send_replace(self.made());
    }

    async fn wait_for_open(&self, count: usize) {
        let is = async {
            while self.state.open.load(Ordering::Relaxed) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let open = || self.state.open.load(Ordering::Relaxed);
        timeout(TEST_TIMEOUT, is).await.unwrap_or_else(|_| panic!("{} connections are open, not {count}", open()));
    }
}

async fn forward(mut from: TcpStream, to: SocketAddr, number: usize, state: Arc<RelayState>) {
    state.open.fetch_add(1, Ordering::Relaxed);
    let (mut breaks, mut frozen) = (state.breaks.subscribe(), state.frozen.subscribe());
    if let Ok(mut to) = TcpStream::connect(to).await {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
            _ = breaks.changed() => {}
            () = async { drop(frozen.wait_for(|before| number < *before).await) } => drop(breaks.changed().await),
        }
    }
    drop(from);
    state.open.fetch_sub(1, Ordering::Relaxed);
}

/// A lender, a borrower that reaches it through a relay, and a network.
async fn relayed() -> (Agent, Agent, Network, Relay) {
    let (lender, borrower, network) = two().await;
    let relay = Relay::to(lender.address).await;
    borrower.sees_at(&lender, relay.address);
    (lender, borrower, network, relay)
}

async fn ask(borrower: &Agent, lender: &Agent, network: &Network) -> Result<(), CallError> {
    borrower.peers.ask(network.id, Ask::Space { of: lender.id, range: 0 }).await.map(drop)
}

#[tokio::test]
async fn questions_at_the_same_time_and_later_ones_share_one_handshake() {
    let (lender, borrower, network, relay) = relayed().await;
    let first = futures::future::join_all((0..10).map(|_| ask(&borrower, &lender, &network))).await;
    assert!(first.iter().all(Result::is_ok), "{first:?}");
    ask(&borrower, &lender, &network).await.expect("it answers");
    assert_eq!(relay.made(), 1);
}

#[tokio::test]
async fn a_question_with_a_large_answer_has_a_connection_of_its_own() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    borrower.peers.snapshot(lender.id).await.expect("it answers");
    assert_eq!(relay.made(), 2);
    relay.wait_for_open(1).await;
}

#[tokio::test]
async fn an_agent_that_restarts_is_reached_again_at_once() {
    let (mut lender, borrower, network, relay) = relayed().await;
    for restarts in 1..=3 {
        ask(&borrower, &lender, &network).await.expect("it answers");
        assert_eq!(relay.made(), restarts);
        lender.restart().await;
    }
    ask(&borrower, &lender, &network).await.expect("at the first try");
}

#[tokio::test]
async fn a_connection_that_was_killed_is_replaced_within_the_question() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    relay.break_all();
    relay.wait_for_open(0).await;
    ask(&borrower, &lender, &network).await.expect("at the first try");
    assert_eq!(relay.made(), 2);
}

#[tokio::test]
async fn a_question_that_is_under_way_when_its_connection_is_killed_is_asked_again() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    // The lender's ledger is busy, so that the question waits there.
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let busy = lender.state.clone();
    let busy = tokio::spawn(async move { busy.keep_busy(held).await });
    let break_and_go_on = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        relay.break_all();
        while relay.made() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        go_on.send(()).expect("it waits for that");
    };
    let (asked, ()) = tokio::join!(ask(&borrower, &lender, &network), break_and_go_on);
    asked.expect("over a new connection");
    assert_eq!(relay.made(), 2);
    busy.await.expect("it goes on").expect("it was told to");
    let held = lender.ledger().await.accounts()[&network.id].held_by(borrower.id).count();
    assert_eq!(held, usize::from(network.ranges[0].blocks()) / 4, "asked twice, given once");
}

#[tokio::test]
async fn a_connection_that_says_nothing_any_more_costs_one_timeout_and_is_replaced() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    relay.freeze_open();
    let start = Instant::now();
    let error = ask(&borrower, &lender, &network).await.expect_err("nothing passes");
    assert!(!error.is_answer(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "the answer's timeout, once: {:?}", start.elapsed());
    let start = Instant::now();
    ask(&borrower, &lender, &network).await.expect("over a new connection");
    assert!(start.elapsed() < Duration::from_secs(1), "at once: {:?}", start.elapsed());
    assert_eq!(relay.made(), 2);
}

#[tokio::test]
async fn a_host_with_another_address_is_asked_there() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    let moved = Relay::to(lender.address).await;
    borrower.sees_at(&lender, moved.address);
    ask(&borrower, &lender, &network).await.expect("it answers");
    assert_eq!((relay.made(), moved.made()), (1, 1));
    relay.wait_for_open(0).await;
}

#[tokio::test]
async fn a_host_whose_own_address_changes_asks_from_the_new_one() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    borrower.sees_at(&borrower, ([127, 0, 0, 3], 1).into());
    borrower.sees_at(&lender, relay.address);
    ask(&borrower, &lender, &network).await.expect("it answers");
    assert_eq!(*relay.state.sources.lock().expect("no panic"), [[127, 0, 0, 1].into(), [127, 0, 0, 3].into()].into());
    relay.wait_for_open(1).await;
}

#[tokio::test]
async fn a_host_that_is_no_longer_a_member_is_refused_on_its_open_connection() {
    let (lender, borrower, network, relay) = relayed().await;
    ask(&borrower, &lender, &network).await.expect("it answers");
    lender.sees(&[&lender]);
    let error = ask(&borrower, &lender, &network).await.expect_err("it is no member");
    assert!(matches!(&error, CallError::Refused { status, .. } if status.code() == tonic::Code::PermissionDenied));
    assert_eq!(relay.made(), 1);
}

#[tokio::test]
async fn connections_are_closed_when_their_host_is_gone_and_when_they_are_idle() {
    let (lender, borrower, network, relay) = relayed().await;
    let peers = borrower.peers.clone();
    let tending = tokio::spawn(async move { peers.tend_connections().await });
    ask(&borrower, &lender, &network).await.expect("it answers");
    relay.wait_for_open(1).await;
    borrower.sees(&[&borrower]);
    relay.wait_for_open(0).await;

    borrower.sees(&[&lender, &borrower]);
    borrower.sees_at(&lender, relay.address);
    ask(&borrower, &lender, &network).await.expect("it answers");
    relay.wait_for_open(1).await;
    tokio::time::pause();
    tokio::time::advance(IDLE_TIMEOUT + Duration::from_millis(1)).await;
    tokio::time::resume();
    relay.wait_for_open(0).await;
    assert_eq!(relay.made(), 2);
    tending.abort();
}

#[tokio::test]
async fn a_caller_that_gives_up_while_a_connection_is_made_leaves_nothing_broken() {
    let (lender, borrower, network, relay) = relayed().await;
    let given_up = timeout(Duration::ZERO, ask(&borrower, &lender, &network)).await;
    assert!(given_up.is_err(), "it takes longer than nothing");
    ask(&borrower, &lender, &network).await.expect("it answers");
    assert!(relay.made() <= 1);
}

#[tokio::test]
async fn open_connections_take_no_room_from_pending_handshakes() {
    let (lender, borrower, network, _) = relayed().await;
    let mut open = Vec::new();
    for _ in 0..MAX_HANDSHAKES + 8 {
        open.push(borrower.peers.connections.once(lender.id).await.expect("it lets members in"));
    }
    ask(&borrower, &lender, &network).await.expect("it answers");
    let refused: Vec<_> = lender.refusals.all().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refused, []);
}
