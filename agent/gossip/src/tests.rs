//! Clusters within this process, over 127.0.0.1, in real time.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::*;

mod hearsay;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Numbers that rise over all nodes and restarts of a test.
struct Rising(Arc<AtomicU64>);

impl Generations for Rising {
    fn next(&mut self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct Cluster {
    key: ClusterKey,
    generation: Arc<AtomicU64>,
    interval: Duration,
}

impl Cluster {
    fn new() -> Self {
        let key = ClusterKey::generate().expect("randomness");
        Self { key, generation: Arc::new(AtomicU64::new(1)), interval: Duration::from_millis(250) }
    }

    fn config(&self, name: &str, seeds: &[&Gossip]) -> Config {
        Config {
            node: name.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: ([127, 0, 0, 1], 0).into(),
            seeds: seeds.iter().map(|seed| seed.handle.addr()).collect(),
            interval: self.interval,
            remembered: REMEMBERED,
            key: self.key.clone(),
            expected: BTreeSet::new(),
        }
    }

    async fn spawn(&self, config: Config, initial: Announcement) -> Gossip {
        spawn(config, Rising(Arc::clone(&self.generation)), initial).await.expect("gossip starts")
    }

    async fn start(&self, name: &str, seeds: &[&Gossip]) -> Gossip {
        self.spawn(self.config(name, seeds), said(&[("name", name)])).await
    }

    /// `count` nodes, each of which has heard all others and is synced.
    async fn of(&self, count: usize) -> Vec<Gossip> {
        let mut nodes: Vec<Gossip> = Vec::new();
        for n in 0..count {
            let seeds: Vec<_> = nodes.first().into_iter().collect();
            nodes.push(self.start(&format!("node{n}"), &seeds).await);
        }
        for node in &nodes {
            eventually(node, "all know all", |view| view.synced && alive(view) == count).await;
        }
        nodes
    }
}

fn said(pairs: &[(&str, &str)]) -> Announcement {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn alive(view: &View) -> usize {
    let newest = view.hosts.values().filter_map(|incarnations| incarnations.first());
    newest.filter(|newest| newest.complete && newest.liveness == NodeLiveness::Live).count()
}

/// What `view` has for a key, as a consumer sees it: from the newest incarnation that has it.
fn text<'a>(view: &'a View, node: &str, key: &str) -> Option<&'a str> {
    view.hosts.get(node)?.iter().find_map(|incarnation| incarnation.entries.get(key)).map(|text| &**text)
}

fn liveness(view: &View, node: &str) -> Option<NodeLiveness> {
    view.hosts.get(node)?.first().map(|newest| newest.liveness)
}

/// Waits until `wanted` holds of the view of `node`.
async fn eventually(node: &Gossip, what: &str, wanted: impl Fn(&View) -> bool) {
    let mut views = node.view.clone();
    let waited = tokio::time::timeout(TIMEOUT, views.wait_for(|view| wanted(view))).await;
    let seen = waited.map(|seen| seen.map(drop));
    assert!(matches!(seen, Ok(Ok(()))), "{what}: not within {TIMEOUT:?}; seen: {:#?}", node.view.borrow());
}

/// Runs `act` while it watches the view of `node`; all that is seen meanwhile satisfies `law`.
async fn always<T>(node: &Gossip, what: &str, law: impl Fn(&View) -> bool, act: impl Future<Output = T>) -> T {
    let mut views = node.view.clone();
    let broken = async {
        loop {
            let view = views.borrow_and_update().clone();
            if !law(&view) {
                return view;
            }
            if views.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        biased;
        view = broken => unreachable!("{what}: {view:#?}"),
        done = act => done,
    }
}

#[tokio::test]
async fn a_change_reaches_all_without_waiting_for_a_round_of_gossip() {
    let interval = Duration::from_millis(600);
    let cluster = Cluster { interval, ..Cluster::new() };
    let nodes = cluster.of(4).await;
    // Several times, since a round of gossip could be just about to begin.
    let mut times = Vec::new();
    for round in 0..5 {
        let value = round.to_string();
        let announced = Instant::now();
        nodes[1].announce.send_replace(said(&[("name", "node1"), ("round", &value)]));
        for node in &nodes {
            eventually(node, "the change", |view| text(view, "node1", "round") == Some(&value)).await;
        }
        times.push(announced.elapsed());
    }
    times.sort();
    assert!(times[2] < interval / 6, "{times:?}");
}

/// Two hosts that answer each other, as they do when one lends an address to the other.
#[tokio::test]
async fn a_short_conversation_does_not_wait_for_the_pacing() {
    const EXCHANGES: u32 = 3;
    /// With a least distance between two announcements and two looks, each exchange but the first would take this long.
    const LEAST: Duration = Duration::from_millis(25);
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let mut best = Duration::MAX;
    // The best of several, since the machine may be busy.
    for attempt in 0..10 {
        // The buckets fill up again.
        tokio::time::sleep(LEAST * 10).await;
        let started = Instant::now();
        for exchange in 0..EXCHANGES {
            for (speaker, listener) in [(0, 1), (1, 0)] {
                let (name, value) = (format!("node{speaker}"), format!("{attempt} {exchange}"));
                nodes[speaker].announce.send_replace(said(&[("name", &name), ("word", &value)]));
                eventually(&nodes[listener], "the word", |view| text(view, &name, "word") == Some(&value)).await;
            }
        }
        best = best.min(started.elapsed());
    }
    assert!(best < LEAST * (EXCHANGES - 1), "{EXCHANGES} exchanges took {best:?}");
}

#[tokio::test]
async fn a_deleted_key_is_gone_everywhere_and_the_rest_stays() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    nodes[0].announce.send_replace(said(&[("name", "node0"), ("short", "lived")]));
    for node in &nodes {
        eventually(node, "the key", |view| text(view, "node0", "short").is_some()).await;
    }
    nodes[0].announce.send_replace(said(&[("name", "node0")]));
    for node in &nodes {
        eventually(node, "its end", |view| text(view, "node0", "short").is_none()).await;
        assert_eq!(text(&node.view.borrow(), "node0", "name"), Some("node0"));
    }
}

#[tokio::test]
async fn a_late_joiner_gets_all_and_is_not_synced_before() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let large: Announcement = (0..40).map(|n| (format!("key{n}"), format!("{n}").repeat(MAX_VALUE / 4))).collect();
    nodes[1].announce.send_replace(large.clone());
    eventually(&nodes[0], "a large announcement", |view| text(view, "node1", "key39").is_some()).await;

    let late = cluster.start("late", &[&nodes[0]]).await;
    assert!(!late.view.borrow().synced);
    let has_all = |view: &View| large.iter().all(|(key, value)| text(view, "node1", key) == Some(value));
    always(&late, "synced, and something is missing", |view| !view.synced || has_all(view), async {
        eventually(&late, "synced", |view| view.synced).await;
    })
    .await;
    assert!(has_all(&late.view.borrow()));
}

#[tokio::test]
async fn a_restarted_node_is_missing_nowhere_at_no_moment() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    // More than one message: the new incarnation arrives in parts.
    let large: Announcement = (0..20).map(|n| (format!("key{n}"), format!("{n:04}").repeat(MAX_VALUE / 4))).collect();
    nodes[2].announce.send_replace(large.clone());
    let has_all = |view: &View| large.iter().all(|(key, value)| text(view, "node2", key) == Some(value));
    eventually(&nodes[0], "all", has_all).await;

    let node = nodes.pop().expect("three");
    let before = nodes[0].view.borrow().hosts["node2"][0].generation;
    let addr = node.handle.addr();
    always(&nodes[0], "an entry is missing", has_all, async {
        node.shutdown().await;
        let config = Config { listen: addr, advertise: addr, ..cluster.config("node2", &[&nodes[0]]) };
        let again = cluster.spawn(config, large.clone()).await;
        eventually(&nodes[0], "the new incarnation", |view| {
            let incarnations = &view.hosts["node2"];
            incarnations.len() == 1 && incarnations[0].generation > before && incarnations[0].complete
        })
        .await;
        again
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_is_suspect_and_within_three_seconds_dead_and_alive_when_it_is_back() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let node = nodes.pop().expect("three");
    let addr = node.handle.addr();
    node.shutdown().await;
    let stopped = Instant::now();
    eventually(&nodes[0], "suspect", |view| liveness(view, "node2") == Some(NodeLiveness::Suspect)).await;
    for node in &nodes {
        eventually(node, "dead", |view| liveness(view, "node2") == Some(NodeLiveness::Dead)).await;
    }
    let elapsed = stopped.elapsed();
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    assert_eq!(text(&nodes[0].view.borrow(), "node2", "name"), Some("node2"), "suspended, not deleted");

    let config = Config { listen: addr, advertise: addr, ..cluster.config("node2", &[&nodes[0]]) };
    let _again = cluster.spawn(config, said(&[("name", "node2")])).await;
    eventually(&nodes[1], "back", |view| alive(view) == 3).await;
}

#[tokio::test]
async fn busy_processors_are_nobodys_death() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    let busy = Arc::new(AtomicBool::new(true));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let spin = |busy: Arc<AtomicBool>| move || while busy.load(Ordering::Relaxed) {};
    let spinners: Vec<_> = (0..cores * 3).map(|_| std::thread::spawn(spin(Arc::clone(&busy)))).collect();

    let no_one_dead = |view: &View| {
        view.hosts.values().flat_map(|incarnations| incarnations.iter()).all(|i| i.liveness != NodeLiveness::Dead)
    };
    // The deadline is the test: a time during which nothing may happen.
    always(&nodes[0], "a false death", no_one_dead, tokio::time::sleep(Duration::from_secs(4))).await;
    busy.store(false, Ordering::Relaxed);
    for spinner in spinners {
        spinner.join().expect("it only spins");
    }
}

#[tokio::test]
async fn a_node_with_another_key_learns_nothing_and_changes_nothing() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let outsider = Cluster::new().start("outsider", &[&nodes[0], &nodes[1]]).await;

    let refused = |node: &Gossip| node.handle.counters().of(Reason::BadSeal) >= 5;
    until("the outsider has tried", || refused(&nodes[0]) && refused(&nodes[1])).await;
    for node in &nodes {
        assert!(!node.view.borrow().hosts.contains_key("outsider"));
    }
    let view = outsider.view.borrow().clone();
    assert_eq!(view.hosts.keys().map(|node| &**node).collect::<Vec<_>>(), ["outsider"]);
    assert!(!view.synced);

    nodes[0].announce.send_replace(said(&[("secret", "value")]));
    eventually(&nodes[1], "life goes on", |view| text(view, "node0", "secret").is_some()).await;
    assert_eq!(outsider.view.borrow().hosts.len(), 1);
}

#[tokio::test]
async fn strangers_datagrams_are_counted_and_dropped() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let outsider = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let counters = nodes[0].handle.counters();
    for (datagram, reason) in [
        (vec![0; 60_000], Reason::NotOurs),
        (Vec::new(), Reason::NotOurs),
        (45_139_u16.to_le_bytes().to_vec(), Reason::NotOurs),
        (b"ovg\x07".to_vec(), Reason::BadVersion),
        (b"ovg\x01".to_vec(), Reason::Malformed),
        ([b"ovg\x01".as_slice(), &[7; 100]].concat(), Reason::BadSeal),
    ] {
        let before = counters.of(reason);
        outsider.send_to(&datagram, nodes[0].handle.addr()).await.expect("sent");
        until(reason.name(), || counters.of(reason) > before).await;
    }
    nodes[1].announce.send_replace(said(&[("name", "still here")]));
    eventually(&nodes[0], "life goes on", |view| text(view, "node1", "name") == Some("still here")).await;
}

/// Who has the key can say anything of others, but nobody believes what he is told about himself.
#[tokio::test]
async fn what_a_member_says_of_us_is_refused() {
    let cluster = Cluster::new();
    let node = cluster.start("node", &[]).await;
    let own = node.view.borrow().hosts["node"][0].clone();
    let id = chitchat::ChitchatId::new("node", own.generation, own.gossip_addr);

    let value = Some("forged".into());
    let changes = vec![("name".to_owned(), crate::incarnation::announce::Stamped { version: 9, value })];
    let push = push::Push { id: id.clone(), after: 1, upto: 9, whole: true, changes };
    let delta = crate::transport::inspect::tests::ack_about(&id, "name", "forged", 9);
    let mut sealer = Sealer::new(&cluster.key).expect("randomness");
    let socket = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let counters = node.handle.counters();
    for (kind, message) in [(transport::Kind::Push, push.messages().remove(0)), (transport::Kind::Chitchat, delta)] {
        let before = counters.of(Reason::AboutSelf);
        let message = [&[kind as u8], message.as_slice()].concat();
        for datagram in sealer.seal(&message).expect("small") {
            socket.send_to(&datagram, own.gossip_addr).await.expect("sent");
        }
        until("it is refused", || counters.of(Reason::AboutSelf) > before).await;
    }
    // A change of ours, after which the view has been looked at again.
    node.announce.send_replace(said(&[("name", "node"), ("more", "text")]));
    eventually(&node, "our own words", |view| text(view, "node", "more").is_some()).await;
    assert_eq!(text(&node.view.borrow(), "node", "name"), Some("node"));
}

#[tokio::test]
async fn a_recorded_datagram_is_not_taken_twice() {
    // A node gossips to a seed that only listens; what it says is played to another node twice.
    let cluster = Cluster::new();
    let ear = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let mut config = cluster.config("speaker", &[]);
    config.seeds = vec![ear.local_addr().expect("bound")];
    let _speaker = cluster.spawn(config, said(&[("name", "speaker")])).await;
    let mut recorded = vec![0; 2048];
    let heard = tokio::time::timeout(TIMEOUT, ear.recv(&mut recorded)).await;
    recorded.truncate(heard.expect("in time").expect("heard"));

    let listener = cluster.start("listener", &[]).await;
    let counters = listener.handle.counters();
    ear.send_to(&recorded, listener.handle.addr()).await.expect("sent");
    eventually(&listener, "the speaker is known", |view| view.hosts.contains_key("speaker")).await;
    assert_eq!(counters.of(Reason::Replayed), 0);
    ear.send_to(&recorded, listener.handle.addr()).await.expect("sent");
    until("the replay is refused", || counters.of(Reason::Replayed) == 1).await;
}

#[tokio::test]
async fn when_chitchat_ends_it_is_restarted_and_nothing_is_lost() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    nodes[1].announce.send_replace(said(&[("name", "node1"), ("more", "text")]));
    for node in &nodes {
        eventually(node, "the text", |view| text(view, "node1", "more").is_some()).await;
    }
    let before = nodes[1].view.borrow().hosts["node1"][0].generation;

    let own = |view: &View| text(view, "node1", "more").is_some();
    let others = |view: &View| {
        let no_one_dead = view.hosts.values().all(|incarnations| incarnations[0].liveness == NodeLiveness::Live);
        own(view) && no_one_dead && text(view, "node2", "name").is_some()
    };
    let restarted = |view: &View| {
        let newest = &view.hosts["node1"][0];
        newest.generation > before && newest.complete && newest.liveness == NodeLiveness::Live
    };
    always(&nodes[1], "an entry is missing where chitchat ended", others, async {
        always(&nodes[0], "an entry is missing elsewhere", own, async {
            nodes[1].handle.crash(Duration::from_millis(100));
            eventually(&nodes[0], "the new incarnation", restarted).await;
            eventually(&nodes[1], "the new incarnation", restarted).await;
        })
        .await;
    })
    .await;
    nodes[1].announce.send_replace(said(&[("name", "node1"), ("more", "again")]));
    eventually(&nodes[2], "life goes on", |view| text(view, "node1", "more") == Some("again")).await;
}

#[tokio::test]
async fn a_snapshot_makes_a_node_that_hears_no_one_synced() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let silence = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let mut config = cluster.config("deaf", &[]);
    config.seeds = vec![silence.local_addr().expect("bound")];
    let deaf = cluster.spawn(config, Announcement::new()).await;
    assert!(!deaf.view.borrow().synced);

    let snapshot = nodes[0].handle().snapshot().await.expect("running");
    let mut spoilt = snapshot.clone();
    spoilt.push(b"junk".to_vec());
    assert_eq!(deaf.handle().feed(spoilt).await, Err(SnapshotError::Malformed));
    assert!(!deaf.view.borrow().synced);
    assert_eq!(deaf.handle().feed(snapshot).await, Ok(()));
    eventually(&deaf, "all is known", |view| {
        view.synced && ["node0", "node1"].iter().all(|node| text(view, node, "name") == Some(*node))
    })
    .await;
}

#[tokio::test]
async fn gossip_that_waits_to_restart_stops_at_once_when_it_is_told_to() {
    let cluster = Cluster::new();
    let gossip = cluster.start("a", &[]).await;
    assert!(gossip.view.borrow().synced, "no seeds: nobody to wait for");
    let handle = gossip.handle();
    handle.crash(TIMEOUT * 10);
    // As long as it waits it answers nobody.
    let answers = || async { tokio::time::timeout(Duration::from_millis(100), handle.snapshot()).await.is_ok() };
    let waits = async { while answers().await {} };
    tokio::time::timeout(TIMEOUT, waits).await.expect("chitchat has ended");
    tokio::time::timeout(TIMEOUT, gossip.shutdown()).await.expect("it stops in the midst of the pause");
}

#[tokio::test]
async fn what_is_too_large_is_not_said_and_hinders_nothing_else() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let huge = "x".repeat(70_000);
    nodes[0].announce.send_replace(said(&[("a", &huge), ("b", "good"), ("~", "reserved")]));
    eventually(&nodes[1], "the rest", |view| text(view, "node0", "b").is_some()).await;
    assert_eq!(text(&nodes[1].view.borrow(), "node0", "a"), None);
    assert_eq!(nodes[0].handle.counters().of(Reason::Oversize), 2);
    assert_eq!(nodes[0].handle.counters().used(Limit::Value), huge.len(), "it is seen that the limit is passed");
}

#[tokio::test]
async fn a_running_node_tells_how_much_of_each_limit_is_in_use() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let counters = nodes[0].handle.counters();
    // One of two begins all exchanges.
    until("a digest was sent", || nodes.iter().any(|node| node.handle.counters().used(Limit::Digest) > 0)).await;
    assert_eq!(counters.used(Limit::Incarnations), 2);
    assert_eq!(counters.used(Limit::Value), "node0".len());
    assert!(counters.usage().all(|usage| !usage.is_near()));
}

#[tokio::test]
async fn a_port_in_use_is_said_and_a_stopped_node_frees_its_own() {
    let cluster = Cluster::new();
    let first = cluster.start("first", &[]).await;
    let addr = first.handle.addr();
    let config = || Config { listen: addr, advertise: addr, ..cluster.config("second", &[]) };
    let second = spawn(config(), Rising(Arc::clone(&cluster.generation)), Announcement::new()).await;
    match second {
        Err(GossipError::Bind { addr: named, source }) => {
            assert_eq!((named, source.kind()), (addr, io::ErrorKind::AddrInUse));
        }
        other => unreachable!("{other:?}"),
    }
    first.shutdown().await;
    cluster.spawn(config(), Announcement::new()).await;
}

#[tokio::test]
async fn when_gossip_has_stopped_its_handles_say_so() {
    let cluster = Cluster::new();
    let gossip = cluster.start("a", &[]).await;
    let (handle, mut view) = (gossip.handle(), gossip.view.clone());
    gossip.shutdown().await;
    assert_eq!(handle.snapshot().await, Err(SnapshotError::Stopped));
    assert_eq!(handle.feed(Vec::new()).await, Err(SnapshotError::Stopped));
    view.mark_unchanged();
    assert!(view.changed().await.is_err());
}

/// Waits until `done`, which nothing announces.
async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn gossip_that_nobody_receives_for_ends() {
    let cluster = Cluster::new();
    let config = cluster.config("deaf", &[]);
    let socket = transport::bind(config.listen).expect("a free port");
    let listen = socket.local_addr().expect("it is bound");
    let start = Start { config, listen, advertise: listen, socket, counters: Arc::default() };
    let generations = Box::new(Rising(Arc::clone(&cluster.generation)));
    let (receiver, pushes, task) = assemble(start, generations, Announcement::new()).await.expect("it starts");
    let (_announce, announcement) = watch::channel(Announcement::new());
    let (_asking, commands) = mpsc::channel(COMMANDS);
    let (view, seen) = watch::channel(Arc::default());
    let (_stop, stop) = oneshot::channel();
    drop(receiver);
    let running = task.run(Ends { announcement, commands, pushes, view, stop });
    tokio::time::timeout(TIMEOUT, running).await.expect("it ends");
    assert!(seen.has_changed().is_err(), "and is seen to have ended");
}
