use overlay::model::host::{HostInfo, Phase};
use overlay::model::id::NetworkId;
use overlay::model::member::Stamp;

use super::*;
use tokio::time::Instant;

fn record(revision: u64) -> Record {
    let info = HostInfo {
        name: "alpha".parse().expect("a label"),
        vtep: [192, 0, 2, 1].into(),
        vxlan_port: 4789,
        peer: ([192, 0, 2, 1], 7946).into(),
        underlay_mtu: 1500,
        routed: std::collections::BTreeSet::new(),
        stamp: Stamp { revision, ..Stamp::default() },
        phase: Phase::Established,
        founder: None,
    };
    Record { host: Some(info), ..Record::default() }
}

/// The record channel, what is said, and nothing said yet since the start.
async fn started() -> (watch::Sender<Arc<Record>>, watch::Receiver<Announcement>, JoinHandle<()>) {
    let (records, record_seen) = watch::channel(Arc::new(record(1)));
    let (announce, mut said) = watch::channel(Announcement::new());
    let saying = spawn(record_seen, announce);
    said.changed().await.expect("it says what there is");
    assert_eq!(*said.borrow_and_update(), encode_record(&record(1)));
    (records, said, saying)
}

/// When the next thing is said, from now.
async fn next(said: &mut watch::Receiver<Announcement>) -> Duration {
    let start = Instant::now();
    tokio::time::timeout(REVISION_DELAY * 2, said.changed()).await.expect("something is said").expect("it runs");
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_revision_alone_waits_and_is_said_once() {
    let (records, mut said, _saying) = started().await;
    for revision in 2..10 {
        records.send_if_modified(|known| {
            *known = Arc::new(record(revision));
            false
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!said.has_changed().expect("it runs"), "revision {revision} is said at once");
    }
    let waited = next(&mut said).await;
    assert!(waited <= REVISION_DELAY - Duration::from_secs(7), "{waited:?}");
    assert_eq!(*said.borrow_and_update(), encode_record(&record(9)));
}

#[tokio::test(start_paused = true)]
async fn anything_else_is_said_at_once_with_the_revision_of_that_moment() {
    let (records, mut said, _saying) = started().await;
    records.send_replace(Arc::new(record(2)));
    let more = Record { tombstones: [NetworkId::from_bytes([1; 16])].into(), ..record(3) };
    records.send_replace(Arc::new(more.clone()));
    assert_eq!(next(&mut said).await, Duration::ZERO);
    assert_eq!(*said.borrow_and_update(), encode_record(&more));
}

#[tokio::test(start_paused = true)]
async fn what_no_other_host_would_believe_is_not_said() {
    let (records, mut said, _saying) = started().await;
    let mut wrong = Record { tombstones: [NetworkId::from_bytes([1; 16])].into(), ..record(2) };
    wrong.host.as_mut().expect("it says who it is").underlay_mtu = 65_536;
    records.send_replace(Arc::new(wrong.clone()));
    next(&mut said).await;
    let (readable, refused) = readable(&wrong, &Announcement::new());
    assert_eq!(*said.borrow_and_update(), readable);
    let [(_, error)] = refused.as_slice() else { unreachable!("one part, not {refused:?}") };
    assert!(error.to_string().contains("underlay_mtu"), "{error}");
    assert!(!readable.is_empty(), "the rest is said");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_record() {
    let (records, _said, saying) = started().await;
    drop(records);
    tokio::time::timeout(REVISION_DELAY, saying).await.expect("it ends").expect("without a panic");
}
