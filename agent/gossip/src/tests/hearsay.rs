//! A host that starts after another host has died passes no word of the dead host on.

use chitchat::{ChitchatId, NodeState};

use super::*;
use crate::incarnation::snapshot::Chunk;

/// A cluster in which `node2` has died, and a node that was born after that and knows of it.
async fn born_after_a_death(cluster: &Cluster) -> (Vec<Gossip>, Gossip) {
    let mut nodes = cluster.of(3).await;
    drop(nodes.pop());
    for node in &nodes {
        eventually(node, "the death", |view| liveness(view, "node2") == Some(NodeLiveness::Dead)).await;
    }
    let late = cluster.start("late", &[&nodes[0]]).await;
    eventually(&late, "all is known", |view| text(view, "node2", "name").is_some() && alive(view) == 3).await;
    (nodes, late)
}

/// Lets `node` hear `other`, which is `name`, for more rounds of gossip than it takes to tell everything.
async fn many_rounds(node: &Gossip, other: &Gossip, name: &str) {
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        other.announce.send_replace(said(&[("name", name), ("round", &round.to_string())]));
        eventually(node, "a round", |view| text(view, name, "round") == Some(&round.to_string())).await;
    }
}

#[tokio::test]
async fn what_died_before_a_node_was_born_is_not_told_by_it() {
    let cluster = Cluster::new();
    let (nodes, late) = born_after_a_death(&cluster).await;
    drop(nodes);
    let last = cluster.start("last", &[&late]).await;
    always(&last, "the dead are handed on", |view| !view.hosts.contains_key("node2"), async {
        // What the other has heard itself, it tells, though it is dead by now.
        eventually(&last, "the others", |view| text(view, "node0", "name").is_some()).await;
        many_rounds(&last, &late, "late").await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_tells_of_the_dead_and_makes_nobody_tell_of_them() {
    let cluster = Cluster::new();
    let (nodes, late) = born_after_a_death(&cluster).await;
    drop(nodes);
    let fed = cluster.start("fed", &[&late]).await;
    fed.handle().feed(late.handle().snapshot().await.expect("running")).await.expect("taken");
    eventually(&fed, "the dead", |view| text(view, "node2", "name").is_some()).await;
    let last = cluster.start("last", &[&fed]).await;
    always(&last, "the dead are handed on", |view| !view.hosts.contains_key("node2"), many_rounds(&last, &fed, "fed"))
        .await;
}

#[tokio::test]
async fn a_snapshot_says_how_long_the_dead_were_silent_before_they_were_told_of() {
    let node = Cluster::new().start("node", &[]).await;
    let mut state = NodeState::for_test();
    state.set("name", "of the dead");
    let dead = |name: &str, silent| Chunk::encode(&ChitchatId::new(name, 0, node.handle.addr()), &state, silent);
    let nearly = REMEMBERED - Duration::from_secs(60);
    let fed = vec![dead("nearly", nearly), dead("forgotten", REMEMBERED)];
    assert_eq!(node.handle().feed(fed).await, Ok(()));
    eventually(&node, "both are known", |view| view.hosts.len() == 3).await;

    let snapshot = node.handle().snapshot().await.expect("running");
    let chunks: Vec<_> = snapshot.iter().map(|bytes| Chunk::decode(bytes).expect("well formed")).collect();
    let silent =
        |name: &str| chunks.iter().map(Chunk::silence).find(|(id, _)| &*id.node_id == name).map(|found| found.1);
    assert!(silent("nearly").is_some_and(|silent| silent >= nearly), "{chunks:?}");
    assert_eq!(silent("forgotten"), None, "it would be handed on for ever");
    assert!(silent("node").is_some_and(|silent| silent < nearly), "{chunks:?}");
}
