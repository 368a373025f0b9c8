//! How a change is a row: keys start with the network's id, values are the messages of `record.proto`.

use overlay::ledger::{Forget, Rest};
use overlay::model::lease::{AddressLease, BlockLease};
use overlay::model::member::{Seal, Stamp};
use overlay::model::record::Statement;
use overlay_proto::v1 as pb;
use prost::Message;

use super::*;
use crate::wire::boot_to_wire;

/// Writes a durable change.
pub(super) fn write(txn: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Ledger(change) => write_change(txn, change),
        Change::Seat(id, Some(seat)) => put(txn, SEATS, id.as_bytes(), &seat.to_wire().encode_to_vec()),
        Change::Seat(id, None) => delete(txn, SEATS, id.as_bytes()),
        Change::Attach(attachment) => {
            let id = attachment.endpoint.id;
            put(txn, ATTACHMENTS, id.as_bytes(), &attachment.as_ref().to_wire().encode_to_vec())
        }
        Change::Links(id, links) => put(txn, LINKS, id.as_bytes(), &links.to_wire().encode_to_vec()),
        Change::Detach(id) => delete(txn, ATTACHMENTS, id.as_bytes()),
        // It is looked at again at each start.
        Change::Ways(_) => Ok(()),
        Change::Peer(id, None) => delete(txn, PEERS, id.as_bytes()),
        Change::Peer(id, Some(address)) => put(txn, PEERS, id.as_bytes(), address.to_string().as_bytes()),
    }
}

fn write_change(txn: &WriteTransaction, change: &ledger::Change) -> Result<(), redb::Error> {
    match change {
        ledger::Change::Open(network) => put(txn, NETWORKS, network.id.as_bytes(), &network.to_wire().encode_to_vec()),
        ledger::Change::Close(id) => OF_ACCOUNT.iter().chain(&[LINKS]).try_for_each(|table| {
            let mut table = txn.open_table(*table)?;
            table.retain(|key, _| !key.starts_with(id.as_bytes()))?;
            Ok(())
        }),
        ledger::Change::Block(id, block, lease) => {
            put(txn, BLOCKS, &block_key(*id, *block), &lease.to_wire().encode_to_vec())
        }
        ledger::Change::Address(id, ip, lease) => {
            put(txn, ADDRESSES, &ip_key(*id, *ip), &lease.to_wire().encode_to_vec())
        }
        ledger::Change::Bind(id, ip, endpoint) => {
            delete(txn, RESTING, &ip_key(*id, *ip))?;
            put(txn, BOUND, &ip_key(*id, *ip), endpoint.as_bytes())
        }
        ledger::Change::Unbind(id, ip, rest) => {
            delete(txn, BOUND, &ip_key(*id, *ip))?;
            put(txn, RESTING, &ip_key(*id, *ip), &rest.to_wire().encode_to_vec())
        }
        ledger::Change::Rested(id, ip) => delete(txn, RESTING, &ip_key(*id, *ip)),
        ledger::Change::Enqueue(id, statement) => put(txn, OUTBOX, &statement_key(*id, statement), &[]),
        ledger::Change::Dequeue(id, statement) => delete(txn, OUTBOX, &statement_key(*id, statement)),
        ledger::Change::Tombstone(id) => put(txn, TOMBSTONES, id.as_bytes(), &[]),
        ledger::Change::Member(host) => put(txn, MEMBERS, host.as_bytes(), &[]),
        ledger::Change::Foreign(host) => {
            delete(txn, MEMBERS, host.as_bytes())?;
            put(txn, FOREIGN, host.as_bytes(), &[])
        }
        ledger::Change::Dealt(host, stamp) => put(txn, DEALT, host.as_bytes(), &stamp.to_wire().encode_to_vec()),
        ledger::Change::Seal(host, seal) => put(txn, SEALS, host.as_bytes(), &(*host, *seal).to_wire().encode_to_vec()),
        ledger::Change::Forget(host, forget) => put(txn, FORGETS, host.as_bytes(), &forget.to_wire().encode_to_vec()),
        ledger::Change::Withdraw(host) => delete(txn, FORGETS, host.as_bytes()),
        ledger::Change::Activation(activation) => {
            put(txn, META, STANDING.as_bytes(), &activation.to_wire().encode_to_vec())
        }
        ledger::Change::Founder(founder) => put(txn, META, FOUNDER.as_bytes(), founder.as_bytes()),
        ledger::Change::Boot(boot) => put(txn, META, LIFE.as_bytes(), &boot_to_wire(*boot).encode_to_vec()),
        ledger::Change::Revision(revision) => put(txn, META, REVISION.as_bytes(), &revision.to_be_bytes()),
    }
}

pub(super) const STANDING: &str = "standing";
const FOUNDER: &str = "founder";
const LIFE: &str = "life";
const REVISION: &str = "ledger-page";

/// What the ledger has only one of, by its key among the others of that kind.
pub(super) const SINGLE: [&str; 4] = [STANDING, FOUNDER, LIFE, REVISION];

/// The change that such a value stands for.
pub(super) fn single(key: &str, value: &[u8]) -> Result<ledger::Change, WireError> {
    Ok(match key {
        STANDING => ledger::Change::Activation(message::<Activation, pb::Activation>(value)?),
        FOUNDER => ledger::Change::Founder(id(value)?),
        LIFE => ledger::Change::Boot(message::<Stamp, pb::Stamp>(value)?.boot),
        _ => {
            let revision = value.try_into().map_err(|_| WireError::Missing("revision"))?;
            ledger::Change::Revision(u64::from_be_bytes(revision))
        }
    })
}

/// The change that a row of one of the ledger's tables stands for.
pub(super) fn change(table: Table, key: &[u8], value: &[u8]) -> Result<ledger::Change, WireError> {
    match redb::TableHandle::name(&table) {
        "tombstones" => return Ok(ledger::Change::Tombstone(id(key)?)),
        "members" => return Ok(ledger::Change::Member(id(key)?)),
        "foreign" => return Ok(ledger::Change::Foreign(id(key)?)),
        "dealt" => return Ok(ledger::Change::Dealt(id(key)?, message::<Stamp, pb::Stamp>(value)?)),
        "forgets" => return Ok(ledger::Change::Forget(id(key)?, message::<Forget, pb::Forget>(value)?)),
        "seals" => {
            let (host, seal) = message::<(HostId, Seal), pb::Seal>(value)?;
            return Ok(ledger::Change::Seal(host, seal));
        }
        _ => {}
    }
    let (network, rest) = key.split_at_checked(16).ok_or(WireError::Missing("network id"))?;
    let network: NetworkId = id(network)?;
    Ok(match redb::TableHandle::name(&table) {
        "networks" => ledger::Change::Open(message::<Network, pb::Network>(value)?),
        "blocks" => ledger::Change::Block(network, block_id(rest)?, message::<BlockLease, pb::Lease>(value)?),
        "addresses" => ledger::Change::Address(network, text(rest)?, message::<AddressLease, pb::Lease>(value)?),
        "bound" => ledger::Change::Bind(network, text(rest)?, id(value)?),
        "resting" => ledger::Change::Unbind(network, text(rest)?, message::<Rest, pb::Rest>(value)?),
        _ => ledger::Change::Enqueue(network, message::<Statement, pb::Statement>(rest)?),
    })
}

fn block_key(network: NetworkId, block: BlockId) -> Vec<u8> {
    let [high, low] = block.index.to_be_bytes();
    [network.as_bytes().as_slice(), &[block.range, high, low]].concat()
}

fn block_id(key: &[u8]) -> Result<BlockId, WireError> {
    let [range, high, low] = key.try_into().map_err(|_| WireError::Missing("block"))?;
    Ok(BlockId { range, index: u16::from_be_bytes([high, low]) })
}

fn ip_key(network: NetworkId, ip: IpAddr) -> Vec<u8> {
    [network.as_bytes().as_slice(), ip.to_string().as_bytes()].concat()
}

fn statement_key(network: NetworkId, statement: &Statement) -> Vec<u8> {
    let statement: pb::Statement = statement.to_wire();
    [network.as_bytes().as_slice(), &statement.encode_to_vec()].concat()
}

pub(super) fn id<T>(bytes: &[u8]) -> Result<T, WireError>
where
    T: for<'a> TryFrom<&'a [u8], Error = overlay::model::id::IdError>,
{
    T::try_from(bytes).map_err(|e| WireError::Wrong { field: "id", why: e.to_string() })
}

pub(super) fn text<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, WireError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok());
    text.ok_or_else(|| WireError::Wrong { field: "text", why: String::from_utf8_lossy(bytes).into_owned() })
}

pub(super) fn message<T: Wire<W>, W: Message + Default>(bytes: &[u8]) -> Result<T, WireError> {
    let decoded = W::decode(bytes).map_err(|e| WireError::Wrong { field: "value", why: e.to_string() })?;
    T::from_wire(&decoded)
}
