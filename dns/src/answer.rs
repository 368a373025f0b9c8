//! What an endpoint is told: a pure function of the zone, the asker and the question.
//!
//! - `name`, `alias`, and each with `.network` behind it, for the networks that the asker is in. Case does not matter.
//! - PTR for the addresses of endpoints. A gateway has no name, so nobody takes it for an endpoint.
//! - A name that no endpoint has belongs to the world, also if it ends in the name of a network: a network may be called `dev`. It is
//!   forwarded. But the reverse name of an address in the asker's networks never leaves the host.
//! - A container that is in internal networks only is told that names of the world do not exist. No question of it leaves the host.
//!
//! "No" to a name that an endpoint can have carries no SOA record, so that resolvers don't remember it (RFC 2308, section 5), also
//! when it is the world's: the endpoint may be attached a millisecond later.

use std::net::IpAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name as DnsName, RData, Record, RecordType};
use overlay::model::network::Name;

use crate::reverse::{Node, Reverse};
use crate::zone::{Asker, Names, Zone};

/// How long a resolver may remember an answer of ours, in seconds: about as long as a host can be gone unnoticed.
pub const TTL: u32 = 5;

/// What is said to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These records, at least one.
    Records(Vec<Record>),
    /// The name exists, with no record of the type asked for (RFC 2308, section 2.2).
    NoData,
    /// The name does not exist: NXDOMAIN.
    NameError,
    /// Not ours to say: the host's nameservers know.
    Forward(Denial),
    /// Not to be answered: another class than IN, or a zone transfer.
    Refuse,
    /// Not now: the network is not there (yet, or any more).
    Unavailable,
}

/// What is said if the host's nameservers know no such name, or no record of the type asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// What they say, to be remembered as long as they say.
    Theirs,
    /// What they say, not to be remembered: it may be the name of an endpoint soon.
    Fleeting,
    /// That there is no record: there are names of endpoints below it.
    NoData,
}

/// Answers a question. The order of several addresses is drawn from `seed`, so that they share the load.
pub fn answer(zone: &Zone, asker: &Asker, question: &Query, seed: u64) -> Answer {
    let networks: Vec<Names<'_>> = zone.networks_of(asker).collect();
    let transfer = matches!(question.query_type, RecordType::AXFR | RecordType::IXFR);
    if transfer || question.query_class != DNSClass::IN {
        return Answer::Refuse;
    }
    if networks.is_empty() {
        return Answer::Unavailable;
    }
    let is_internal = networks.iter().all(Names::is_internal);
    match find(&networks, &question.name) {
        Found::Addresses(mut addresses) => {
            shuffle(&mut addresses, seed);
            records(question, of_type(&addresses, question.query_type))
        }
        Found::Pointer(target) => {
            let asked = matches!(question.query_type, RecordType::PTR | RecordType::ANY);
            records(question, asked.then_some(RData::PTR(PTR(target))).into_iter().collect())
        }
        Found::Empty => Answer::NoData,
        Found::Nothing => Answer::NameError,
        Found::Elsewhere(Denial::NoData) if is_internal => Answer::NoData,
        Found::Elsewhere(Denial::Theirs | Denial::Fleeting) if is_internal => Answer::NameError,
        Found::Elsewhere(denial) => Answer::Forward(denial),
    }
}

/// What there is under a name, whatever type of record is asked for.
enum Found {
    /// An endpoint, or several with one alias.
    Addresses(Vec<IpAddr>),
    /// The name of the endpoint with that address.
    Pointer(DnsName),
    /// No records, but names below it: an empty non-terminal (RFC 8020).
    Empty,
    /// Nothing, and nobody else is to be asked.
    Nothing,
    /// A name that no endpoint has.
    Elsewhere(Denial),
}

fn find(networks: &[Names<'_>], name: &DnsName) -> Found {
    if let Some(reverse) = Reverse::parse(name) {
        return find_reverse(networks, &reverse);
    }
    let labels: Vec<&[u8]> = name.iter().collect();
    match labels.as_slice() {
        // The root has names below it, so it exists.
        [] => Found::Elsewhere(Denial::NoData),
        [label] => match find_endpoint(networks, label) {
            Some(found) => found,
            None if network_named(networks, label).is_some() => Found::Elsewhere(Denial::NoData),
            None => Found::Elsewhere(Denial::Fleeting),
        },
        [inner @ .., last] => match (network_named(networks, last), inner) {
            (None, _) => Found::Elsewhere(Denial::Theirs),
            (Some(names), [label]) => {
                find_endpoint(std::slice::from_ref(names), label).unwrap_or(Found::Elsewhere(Denial::Fleeting))
            }
            (Some(_), _) => Found::Elsewhere(Denial::Theirs),
        },
    }
}

fn find_reverse(networks: &[Names<'_>], reverse: &Reverse) -> Found {
    let holds = |names: &&Names<'_>| names.subnets().any(|subnet| reverse.is_within(subnet));
    let ours: Vec<&Names<'_>> = networks.iter().filter(holds).collect();
    if ours.is_empty() {
        // A link-local address is this link's own, and nobody beyond it knows whose.
        return if reverse.is_link_local() { Found::Nothing } else { Found::Elsewhere(Denial::Theirs) };
    }
    match reverse.node() {
        Node::Address(address) => ours.iter().find_map(|names| pointer(names, address)).unwrap_or(Found::Nothing),
        Node::Above => Found::Empty,
        Node::Astray => Found::Nothing,
    }
}

fn pointer(names: &Names<'_>, address: IpAddr) -> Option<Found> {
    let label = names.label();
    let labels = [names.owner(address)?.as_str().as_bytes(), label.as_bytes()];
    Some(Found::Pointer(DnsName::from_labels(labels).expect("two labels of at most 63 bytes make a name")))
}

/// The network that a last label means. What people see comes first: a doubled name belongs to one network only.
fn network_named<'a>(networks: &'a [Names<'_>], label: &[u8]) -> Option<&'a Names<'a>> {
    let shown = networks.iter().find(|names| names.is_shown_as(label));
    shown.or_else(|| networks.iter().find(|names| names.is_named(label)))
}

/// The endpoints with this name or alias in the first of the networks that has one whose host is live; `None` if no endpoint of any
/// is called so.
fn find_endpoint(networks: &[Names<'_>], label: &[u8]) -> Option<Found> {
    let name: Name = std::str::from_utf8(label).ok()?.parse().ok()?;
    let live = networks.iter().map(|names| names.addresses(&name)).find(|addresses| !addresses.is_empty());
    // The name of an endpoint whose host does not answer is the endpoint's still: the world may have another by that name.
    let is_taken = || networks.iter().any(|names| names.is_taken(&name));
    live.map(Found::Addresses).or_else(|| is_taken().then_some(Found::Nothing))
}

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_enum_match_arm, reason = "endpoints have addresses only, whatever types DNS gets")
)]
fn of_type(addresses: &[IpAddr], kind: RecordType) -> Vec<RData> {
    let v4 = || addresses.iter().filter(|a| a.is_ipv4()).map(|a| RData::from(*a)).collect::<Vec<_>>();
    let v6 = || addresses.iter().filter(|a| a.is_ipv6()).map(|a| RData::from(*a)).collect::<Vec<_>>();
    match kind {
        RecordType::A => v4(),
        RecordType::AAAA => v6(),
        // One of the types that there are is enough (RFC 8482, section 4.1).
        RecordType::ANY => Some(v4()).filter(|records| !records.is_empty()).unwrap_or_else(v6),
        _ => Vec::new(),
    }
}

fn records(question: &Query, data: Vec<RData>) -> Answer {
    if data.is_empty() {
        return Answer::NoData;
    }
    // The owner name is as the asker wrote it, in its own mix of case.
    let record = |data| Record::from_rdata(question.name.clone(), TTL, data);
    Answer::Records(data.into_iter().map(record).collect())
}

/// Fisher and Yates, with SplitMix64 as the dice: load is spread, nothing is kept secret.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = state;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        items.swap(last, (drawn % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests;
