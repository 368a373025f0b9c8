//! A host's record as gossip carries it: keys and text values. [`RecordPart`](super::RecordPart) reads them.
//!
//! | key | value |
//! |---|---|
//! | `h` | the host itself |
//! | `n/<network>` | definition, and the VNI that is received |
//! | `x/<shard>` | networks that are deleted |
//! | `b/<network>/<shard>` | blocks held |
//! | `l/<network>/<shard>` | addresses borrowed |
//! | `o/<network>/<shard>` | leases written for others, until they have arrived |
//! | `k/<network>/<shard>` | links |
//! | `e/<network>/<shard>` | endpoints |
//! | `f` | the hosts that it deals with no more |
//!
//! A value is the schema's number as one character and the protobuf message in base64url. Values are few and fat: chitchat
//! looks at every key whenever anything changes. An unknown key or schema is left alone.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use overlay::model::id::NetworkId;
use overlay::model::record::Record;
use overlay_proto::v1 as pb;
use prost::Message;

use super::Wire;

/// The schema of all values so far.
pub(super) const SCHEMA: char = '1';

/// What a shard may take of encoded messages: base64 makes 12 KiB of it, and the gossip refuses values above 16 KiB.
const SHARD_BYTES: usize = 9 * 1024;

/// A record as keys and values.
pub fn encode_record(record: &Record) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    if let Some(host) = &record.host {
        entries.insert("h".to_owned(), value(&host.to_wire()));
    }
    if !record.seals.is_empty() {
        let seals = record.seals.iter().map(|(host, seal)| (*host, *seal).to_wire()).collect();
        entries.insert("f".to_owned(), value(&pb::Seals { seals }));
    }
    for (id, membership) in &record.networks {
        entries.insert(format!("n/{id}"), value(&membership.to_wire()));
    }
    let deleted = record.tombstones.iter().map(|id| id.as_bytes().to_vec());
    for (shard, networks) in shards(deleted, |id| fnv1a(id)) {
        entries.insert(format!("x/{shard}"), value(&pb::Tombstones { networks }));
    }
    for (id, runs) in &record.blocks {
        let all = runs.iter().map(Wire::<pb::holding::Run>::to_wire);
        for (shard, runs) in shards(all, |r| fnv1a(&r.start.unwrap_or_default().encode_to_vec())) {
            entries.insert(format!("b/{id}/{shard}"), value(&pb::Holding { runs, borrowed: Vec::new() }));
        }
    }
    for (id, borrowed) in &record.borrowed {
        let all = borrowed.iter().map(|(address, version)| pb::holding::Borrowed {
            address: address.to_string(),
            version: Some(version.to_wire()),
        });
        for (shard, borrowed) in shards(all, |b| fnv1a(b.address.as_bytes())) {
            entries.insert(format!("l/{id}/{shard}"), value(&pb::Holding { runs: Vec::new(), borrowed }));
        }
    }
    for (id, statements) in &record.outbox {
        let all = statements.iter().map(Wire::<pb::Statement>::to_wire);
        for (shard, statements) in shards(all, |s| fnv1a(&s.encode_to_vec())) {
            entries.insert(format!("o/{id}/{shard}"), value(&pb::Outbox { statements }));
        }
    }
    for (id, links) in &record.links {
        let all = links.decisions().map(|(link, decision)| (link.clone(), *decision).to_wire());
        // By the link itself: what is decided of it again stays where it was.
        let key = |l: &pb::Link| fnv1a(format!("{}/{}/{}/{}", l.from, l.to, l.protocol, l.port).as_bytes());
        for (shard, links) in shards(all, key) {
            entries.insert(format!("k/{id}/{shard}"), value(&pb::Links { links }));
        }
    }
    let mut by_network: BTreeMap<NetworkId, Vec<pb::Endpoint>> = BTreeMap::new();
    for endpoint in record.endpoints.values() {
        by_network.entry(endpoint.network).or_default().push(endpoint.to_wire());
    }
    for (id, endpoints) in by_network {
        for (shard, endpoints) in shards(endpoints.into_iter(), |e| fnv1a(&e.id)) {
            entries.insert(format!("e/{id}/{shard}"), value(&pb::Endpoints { endpoints }));
        }
    }
    entries
}

fn value(message: &impl Message) -> String {
    let mut text = String::from(SCHEMA);
    URL_SAFE_NO_PAD.encode_string(message.encode_to_vec(), &mut text);
    text
}

/// Spreads messages over as few shards as take them, a power of two, so that one that comes or goes changes one value,
/// and only a doubling moves the others. A shard is named after the count as well: a doubling writes new keys before it
/// deletes the old ones, so nobody who has heard a part of it misses anything.
fn shards<M: Message>(messages: impl Iterator<Item = M>, hash: impl Fn(&M) -> u64) -> BTreeMap<String, Vec<M>> {
    let messages: Vec<(u64, M)> = messages.map(|m| (hash(&m), m)).collect();
    let size = |m: &M| m.encoded_len() + 3;
    let mut count = 1_u64;
    loop {
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        for (hash, m) in &messages {
            *sizes.entry(hash % count).or_default() += size(m);
        }
        // Messages that hash alike share a shard at any count; more shards than messages never help.
        if sizes.values().all(|s| *s <= SHARD_BYTES) || count > messages.len() as u64 {
            break;
        }
        count *= 2;
    }
    let mut shards: BTreeMap<String, Vec<M>> = BTreeMap::new();
    for (hash, m) in messages {
        shards.entry(format!("{count}.{}", hash % count)).or_default().push(m);
    }
    shards
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
