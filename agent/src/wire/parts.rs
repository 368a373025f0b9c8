//! A host's record from gossip, key by key. Each text is read once; what it says is shared by all records that it stays in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use overlay::model::endpoint::Endpoint;
use overlay::model::host::HostInfo;
use overlay::model::id::{HostId, NetworkId};
use overlay::model::lease::Version;
use overlay::model::links::{Link, LinkDecision};
use overlay::model::member::Seal;
use overlay::model::record::{NetworkMembership, Record, Run, Statement};
use overlay_proto::v1 as pb;
use prost::Message;

use super::keys::SCHEMA;
use super::{Wire, WireError, id, parse, required};

/// What the text of one key says.
#[derive(Debug)]
pub struct RecordPart {
    says: Says,
    error: Option<WireError>,
}

#[derive(Debug)]
enum Says {
    /// Nothing that is understood here.
    Nothing,
    Host(Box<HostInfo>),
    Seals(BTreeMap<HostId, Seal>),
    Tombstones(Vec<NetworkId>),
    Network(Arc<NetworkMembership>),
    Holding(NetworkId, Vec<Run>, Vec<(IpAddr, Version)>),
    Outbox(NetworkId, Vec<Statement>),
    Links(NetworkId, Vec<(Link, LinkDecision)>),
    Endpoints(Vec<Arc<Endpoint>>),
}

impl RecordPart {
    /// Reads the text of a key. What can't be read is left out: what was read before it still counts.
    pub fn read(key: &str, text: &str) -> Self {
        let (says, error) = read(key, text).unwrap_or_else(|error| (Says::Nothing, Some(error)));
        Self { says, error }
    }

    /// The same, for who keeps nothing else.
    pub fn into_error(self) -> Option<WireError> {
        self.error
    }

    /// What could not be read.
    pub fn error(&self) -> Option<&WireError> {
        self.error.as_ref()
    }
}

/// The record that these parts make, in the order of their keys.
pub fn assemble<'a>(parts: impl IntoIterator<Item = &'a RecordPart>) -> Record {
    let mut record = Record::default();
    for part in parts {
        match &part.says {
            Says::Nothing => {}
            Says::Host(info) => record.host = Some(HostInfo::clone(info)),
            Says::Seals(seals) => record.seals.clone_from(seals),
            Says::Tombstones(deleted) => record.tombstones.extend(deleted),
            Says::Network(membership) => drop(record.networks.insert(membership.network.id, Arc::clone(membership))),
            Says::Holding(network, runs, borrowed) => {
                if !runs.is_empty() {
                    let all = record.blocks.entry(*network).or_default();
                    all.extend(runs);
                    all.sort();
                    all.dedup();
                }
                if !borrowed.is_empty() {
                    record.borrowed.entry(*network).or_default().extend(borrowed.iter().copied());
                }
            }
            Says::Outbox(network, statements) => record.outbox.entry(*network).or_default().extend(statements),
            Says::Links(network, decisions) => {
                let links = record.links.entry(*network).or_default();
                decisions.iter().for_each(|(link, decision)| links.decide(link.clone(), *decision));
            }
            Says::Endpoints(endpoints) => {
                record.endpoints.extend(endpoints.iter().map(|endpoint| (endpoint.id, Arc::clone(endpoint))));
            }
        }
    }
    record
}

/// The record that entries make. What can't be read is left out and told: the rest of the record still counts.
pub fn decode_record<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Record, Vec<(String, WireError)>) {
    let parts: Vec<_> = entries.into_iter().map(|(key, text)| (key, RecordPart::read(key, text))).collect();
    let errors = parts.iter().filter_map(|(key, part)| Some(((*key).to_owned(), part.error.clone()?)));
    (assemble(parts.iter().map(|(_, part)| part)), errors.collect())
}

fn read(key: &str, text: &str) -> Result<(Says, Option<WireError>), WireError> {
    let Some(body) = text.strip_prefix(SCHEMA) else { return Ok((Says::Nothing, None)) };
    let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
    let network = || -> Result<NetworkId, WireError> { parse("key", rest.split('/').next().unwrap_or_default()) };
    Ok(match kind {
        "h" => (Says::Host(HostInfo::from_wire(&message(body)?)?.into()), None),
        "f" => {
            let seals: pb::Seals = message(body)?;
            let seals = seals.seals.iter().map(<(HostId, Seal)>::from_wire).collect::<Result<_, _>>()?;
            (Says::Seals(seals), None)
        }
        "x" => {
            let tombstones: pb::Tombstones = message(body)?;
            let deleted = tombstones.networks.iter().map(|network| id("networks", network));
            (Says::Tombstones(deleted.collect::<Result<_, _>>()?), None)
        }
        "n" => (Says::Network(membership(network()?, body)?.into()), None),
        "b" | "l" => holding(network()?, &message(body)?)?,
        "o" => {
            let (network, outbox) = (network()?, message::<pb::Outbox>(body)?);
            let (statements, error) = up_to_error(outbox.statements.iter().map(Statement::from_wire));
            (Says::Outbox(network, statements), error)
        }
        "k" => {
            let (network, links) = (network()?, message::<pb::Links>(body)?);
            let (decisions, error) = up_to_error(links.links.iter().map(<(Link, LinkDecision)>::from_wire));
            (Says::Links(network, decisions), error)
        }
        "e" => {
            let (network, endpoints) = (network()?, message::<pb::Endpoints>(body)?);
            let (endpoints, error) = up_to_error(endpoints.endpoints.iter().map(|wire| endpoint(network, wire)));
            (Says::Endpoints(endpoints), error)
        }
        _ => (Says::Nothing, None),
    })
}

fn membership(network: NetworkId, body: &str) -> Result<NetworkMembership, WireError> {
    let membership = NetworkMembership::from_wire(&message(body)?)?;
    if membership.network.id == network {
        return Ok(membership);
    }
    Err(WireError::Wrong { field: "id", why: "not that of the key".to_owned() })
}

fn holding(network: NetworkId, holding: &pb::Holding) -> Result<(Says, Option<WireError>), WireError> {
    let runs = holding.runs.iter().map(Run::from_wire).collect::<Result<_, _>>()?;
    let borrowed = holding.borrowed.iter().map(|borrowed| {
        let address = parse("address", &borrowed.address)?;
        Ok((address, required("version", borrowed.version.as_ref())?))
    });
    let (borrowed, error) = up_to_error(borrowed);
    Ok((Says::Holding(network, runs, borrowed), error))
}

fn endpoint(network: NetworkId, wire: &pb::Endpoint) -> Result<Arc<Endpoint>, WireError> {
    let endpoint = Endpoint::from_wire(wire)?;
    if endpoint.network == network {
        return Ok(endpoint.into());
    }
    Err(WireError::Wrong { field: "network", why: "not that of the key".to_owned() })
}

/// What was read until something could not be, and why that could not.
fn up_to_error<T>(read: impl Iterator<Item = Result<T, WireError>>) -> (Vec<T>, Option<WireError>) {
    let mut error = None;
    let until = read.map_while(|read| read.map_err(|why| error = Some(why)).ok()).collect();
    (until, error)
}

fn message<M: Message + Default>(body: &str) -> Result<M, WireError> {
    let wrong = |why: String| WireError::Wrong { field: "value", why };
    let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|e| wrong(e.to_string()))?;
    M::decode(bytes.as_slice()).map_err(|e| wrong(e.to_string()))
}
