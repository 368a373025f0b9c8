use std::collections::BTreeMap;

use overlay::model::record::Record;
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
