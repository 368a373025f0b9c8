//! What a host says of itself, and what the ledger of another takes from it.

use std::sync::Arc;

use crate::ledger::{Input, Ledger};
use crate::model::host::{HostInfo, Phase};
use crate::model::id::{HostId, NetworkId};
use crate::model::intent::Intents;
use crate::model::member::Boot;
use crate::model::record::{NetworkMembership, Record};

/// Does a host with this ledger and these intents keep a network's definition and its links alive? It does if it created the
/// network, holds some of it, has endpoints in it, or decided about a link.
pub fn keeps(ledger: &Ledger, intents: &Intents, network: NetworkId) -> bool {
    let me = ledger.me();
    ledger.accounts().get(&network).is_some_and(|account| {
        account.network.creator == me
            || intents.seats.contains_key(&network)
            || intents.links.contains_key(&network)
            || account.held_by(me).next().is_some()
    })
}

/// What a host with this ledger and these intents says.
pub fn by(ledger: &Ledger, intents: &Intents, info: &HostInfo) -> Record {
    let mut record = Record {
        host: Some(info.clone()),
        tombstones: ledger.tombstones().clone(),
        seals: ledger.membership().seals.clone(),
        endpoints: intents.attachments.iter().map(|(id, a)| (*id, Arc::new(a.endpoint.clone()))).collect(),
        ..Record::default()
    };
    // A network's definition never changes, so a host that may not act can still announce it.
    for (id, account) in ledger.accounts().iter().filter(|(id, _)| keeps(ledger, intents, **id)) {
        let vni = intents.seats.get(id).map(|seat| seat.vni);
        record.networks.insert(*id, NetworkMembership { network: account.network.clone(), vni }.into());
        record.links.extend(intents.links.get(id).map(|links| (*id, links.clone())));
    }
    for (id, runs, borrowed, outbox) in ledger.holding() {
        if !runs.is_empty() {
            record.blocks.insert(id, runs);
        }
        if !borrowed.is_empty() {
            record.borrowed.insert(id, borrowed);
        }
        if !outbox.is_empty() {
            record.outbox.insert(id, outbox.clone());
        }
    }
    record
}

/// What a ledger is told when it hears a record; what it has heard before changes nothing.
pub fn heard(from: HostId, record: &Record) -> Vec<Input> {
    // Without the host part the record's age is unknown. The ledger is told once that part has arrived.
    let Some((stamp, founder)) = record.host.as_ref().map(|host| (host.stamp, host.founder)) else { return Vec::new() };
    let mut networks: Vec<NetworkId> = record.blocks.keys().chain(record.borrowed.keys()).copied().collect();
    networks.sort();
    networks.dedup();
    let holding = networks.into_iter().map(|network| Input::Holding {
        network,
        from,
        stamp,
        runs: record.blocks.get(&network).cloned().unwrap_or_default(),
        borrowed: record.borrowed.get(&network).cloned().unwrap_or_default(),
    });
    let queued = record.outbox.iter().flat_map(|(network, statements)| {
        statements.iter().map(|statement| Input::Stated { network: *network, from, stamp, statement: *statement })
    });
    // First: of a host of another cluster nothing counts that it says besides.
    let belongs = Input::Belongs { from, founder, seals: record.seals.clone() };
    std::iter::once(belongs).chain(holding).chain(queued).collect()
}

/// The boot of another agent that acts under this host's identity, from a record that this agent did not write. An agent that waits
/// to be admitted does not act: the members will refuse it.
pub fn duplicate(record: &Record) -> Option<Boot> {
    let acts = |host: &&HostInfo| host.phase == Phase::Established;
    record.host.as_ref().filter(acts).map(|host| host.stamp.boot)
}
