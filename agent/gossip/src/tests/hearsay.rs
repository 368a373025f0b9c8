//! Who tells whom of the dead.

use super::*;

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
