//! Asking for seals that are long in coming.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::peer::tests::{Agent, stamp};

/// Longer than other questions may take, and than several rounds.
const SLOW: Duration = Duration::from_secs(4);
/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Counts who connects to `to`, and lets them.
async fn counted(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut to = TcpStream::connect(to).await.expect("it listens");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    (at, count)
}

#[tokio::test]
async fn a_host_that_takes_long_to_tell_what_it_knows_is_asked_once_and_heard() {
    let heir = Agent::start_in("heir", None).await;
    let member = Agent::start_in("member", Some(heir.id)).await;
    let lost = HostId::from_bytes([9; 16]);
    for (agent, other) in [(&heir, &member), (&member, &heir)] {
        agent.step(Input::Acknowledge { from: other.id, stamp: stamp(other).await, founder: None }).await;
        agent.sees(&[&heir, &member]);
    }
    let (at, asked) = counted(member.address).await;
    heir.sees_at(&member, at);
    let policy = Policy { join: Vec::new(), bootstrap: false, known: Vec::new(), strict: false, interval: PERIOD };
    let admission = spawn(heir.state.clone(), heir.sees.subscribe(), heir.peers.clone(), policy);
    tokio::time::sleep(PERIOD * 4).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it has introduced itself");

    // The owner of its ledger is busy, as long as it takes for much over a slow link.
    let (go_on, held) = mpsc::channel::<()>();
    let busy = member.state.clone();
    let busy = tokio::spawn(async move { busy.keep_busy(held).await });
    let boot = heir.ledger().await.membership().newest_boot(lost, None);
    heir.step(Input::Forget { hosts: [(lost, boot)].into(), force: false }).await;
    tokio::time::sleep(SLOW).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2, "asked again it would tell all of it once more");
    go_on.send(()).expect("it waits for that");
    let mut record = heir.state.record.clone();
    let forgotten = async {
        while !heir.ledger().await.membership().is_forgotten(lost) {
            record.changed().await.expect("the owner lives");
        }
    };
    tokio::time::timeout(TIMEOUT, forgotten).await.expect("what it tells is heard");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "at the first try");
    admission.abort();
    busy.await.expect("it goes on").expect("it was told to");
}
