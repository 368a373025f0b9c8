use std::collections::BTreeMap;

use overlay::ledger::Rest;
use overlay::model::addr::{Mac, Subnet};
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::id::Vni;
use overlay::model::intent::{Attachment, NetnsRef, Seat};
use overlay::model::lease::{AddressLease, BlockLease, Holder, Version};
use overlay::model::network::{BlockId, Driver, Name, Network, Range, Settings};
use overlay::model::publish::{HostPort, Protocol, Target};
use overlay::model::record::{NetworkMembership, Record, Run, Statement};
use prost::Message;

use super::*;

mod examples;
mod laws;
mod values;

type Texts = BTreeMap<String, String>;

fn decode(entries: &Texts) -> (Record, Vec<(String, WireError)>) {
    decode_record(entries.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// Over the wire as bytes and back.
fn there_and_back<T: Wire<W>, W: Message + Default>(value: &T) -> Result<T, WireError> {
    let bytes = value.to_wire().encode_to_vec();
    T::from_wire(&W::decode(bytes.as_slice()).expect("what prost wrote it reads"))
}
