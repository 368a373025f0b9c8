//! Reading our tables back: the names of the chains, the comments of the rules, and the elements of the sets.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, NfTablesMessage, NfTablesMessageType, RuleAttribute, RuleMessage,
    SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

use super::super::error::Meaning;
use super::dump::{List, Query, Reader, text_of, value_of};
use crate::datapath::firewall::{Family, FieldType, ObservedTable, StoredElement};
use crate::datapath::inspected::ShownElement;
use crate::datapath::kernel_api::Cause;
use crate::model::addr::IpVersion;

pub(super) const TABLE: &str = "overlay";
/// How the names of those sets begin that `nft` makes for a rule's `{ ... }`.
const ANONYMOUS: &str = "__";
/// In a rule's user data, where `nft` keeps its comment (libnftnl `udata.h`): type, length, text and a zero.
const UDATA_COMMENT: u8 = 0;

/// A set or map without its elements.
#[derive(Default)]
struct SetHeader {
    name: String,
    flags: SetFlags,
    /// What [`field_types`] takes.
    key_type: u32,
    value_type: u32,
}

impl Reader {
    /// Our table of a family; `None` if it is not there.
    pub(in crate::kernel) async fn table(&mut self, family: Family) -> io::Result<Option<ObservedTable>> {
        let family = protocol(family);
        let table = TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] };
        match self.ask(family, NfTablesMessage::GetTable(table), Query::One).await {
            Err(error) if error.meaning() == Cause::Gone => return Ok(None),
            other => drop(other?),
        }
        let empty = self.chains(family).await?.into_iter().map(|chain| (chain, Vec::new()));
        let mut observed = ObservedTable { chains: empty.collect(), sets: BTreeMap::new() };
        for (chain, comment) in self.comments(family).await? {
            observed.chains.entry(chain).or_default().push(comment);
        }
        for set in self.sets(family).await? {
            let elements =
                if set.is_filled_by_packets() { Vec::new() } else { self.elements(family, &set.name).await? };
            observed.sets.insert(set.name, elements.into_iter().map(|(stored, _)| stored).collect());
        }
        Ok(Some(observed))
    }

    /// The elements of all sets and maps in our table of a family, also those that packets have put there.
    pub(in crate::kernel) async fn shown_elements(&mut self, family: Family) -> io::Result<Vec<ShownElement>> {
        let family = protocol(family);
        let mut shown = Vec::new();
        let sets = match self.sets(family).await {
            Err(error) if error.meaning() == Cause::Gone => Vec::new(),
            sets => sets?,
        };
        for set in sets {
            let (key, value) = (field_types(set.key_type), field_types(set.value_type));
            let elements = self.elements(family, &set.name).await?;
            let read =
                elements.into_iter().filter_map(|(stored, expires)| Some((stored.element(&key, &value)?, expires)));
            let noun = if set.flags.contains(SetFlags::Map) { "map" } else { "set" };
            shown.extend(read.map(|(element, expires)| ShownElement {
                set: format!("{noun} {}", set.name),
                element,
                expires,
            }));
        }
        Ok(shown)
    }

    /// The names of our table's chains.
    async fn chains(&mut self, family: NetfilterProtoFamily) -> io::Result<Vec<String>> {
        let of = ChainMessage { attributes: vec![ChainAttribute::Table(TABLE.to_owned())] };
        let mut names = Vec::new();
        for answer in self.ask(family, NfTablesMessage::GetChain(of), Query::Dump).await? {
            let (mut table, mut name) = (String::new(), String::new());
            // A chain of another program may have a name that is no text. One of ours that can't be read is missing, and made anew.
            for attribute in answer.all().unwrap_or_default() {
                match attribute {
                    ChainAttribute::Table(text) => table = text,
                    ChainAttribute::Name(text) => name = text,
                    _ => {}
                }
            }
            // Older kernels dump the chains of all tables.
            if answer.kind == NfTablesMessageType::NewChain && table == TABLE {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The comments of our table's rules in order, each with the rule's chain.
    async fn comments(&mut self, family: NetfilterProtoFamily) -> io::Result<Vec<(String, String)>> {
        let of = RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.to_owned())] };
        let mut comments = Vec::new();
        for answer in self.ask(family, NfTablesMessage::GetRule(of), Query::Dump).await? {
            let (mut table, mut chain, mut rule_comment) = (String::new(), String::new(), None);
            for attribute in answer.besides(List::Expressions).map_err(io::Error::other)? {
                match attribute {
                    RuleAttribute::Table(text) => table = text,
                    RuleAttribute::Chain(text) => chain = text,
                    RuleAttribute::UserData(data) => rule_comment = comment(&data),
                    _ => {}
                }
            }
            if answer.kind == NfTablesMessageType::NewRule && table == TABLE {
                comments.push((chain, rule_comment.unwrap_or_default()));
            }
        }
        Ok(comments)
    }

    /// Our table's sets and maps.
    async fn sets(&mut self, family: NetfilterProtoFamily) -> io::Result<Vec<SetHeader>> {
        let of = SetMessage { attributes: vec![SetAttribute::Table(TABLE.to_owned())] };
        let mut sets = Vec::new();
        for answer in self.ask(family, NfTablesMessage::GetSet(of), Query::Dump).await? {
            let (mut table, mut set) = (String::new(), SetHeader::default());
            for attribute in answer.all().map_err(io::Error::other)? {
                match attribute {
                    SetAttribute::Table(text) => table = text,
                    SetAttribute::Name(text) => set.name = text,
                    SetAttribute::Flags(flags) => set.flags = flags,
                    SetAttribute::KeyType(number) => set.key_type = number,
                    SetAttribute::DataType(number) => set.value_type = number,
                    _ => {}
                }
            }
            if answer.kind == NfTablesMessageType::NewSet && table == TABLE && !set.name.starts_with(ANONYMOUS) {
                sets.push(set);
            }
        }
        Ok(sets)
    }

    /// The elements of one of our table's sets, and how long those that packets have put there stay.
    async fn elements(
        &mut self,
        family: NetfilterProtoFamily,
        set: &str,
    ) -> io::Result<Vec<(StoredElement, Option<Duration>)>> {
        let of = vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.to_owned())];
        let question = NfTablesMessage::GetSetElement(SetElementMessage { attributes: of });
        let mut elements = Vec::new();
        for answer in self.ask(family, question, Query::Dump).await? {
            if answer.kind == NfTablesMessageType::NewSetElement {
                let list = answer.list::<SetElementAttribute>(List::Elements).map_err(io::Error::other)?;
                elements.extend(list.into_iter().map(stored));
            }
        }
        Ok(elements)
    }
}

impl SetHeader {
    fn is_filled_by_packets(&self) -> bool {
        self.flags.contains(SetFlags::Eval)
    }
}

fn protocol(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Bridge => NetfilterProtoFamily::Bridge,
    }
}

fn stored(attributes: Vec<SetElementAttribute>) -> (StoredElement, Option<Duration>) {
    let (mut element, mut last, mut expires) = (StoredElement::default(), None, None);
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => element.first = bytes,
            SetElementAttribute::KeyEnd(data) => last = data.first().map(value_of),
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => element.value = bytes,
            SetElementAttribute::Expiration(milliseconds) => expires = Some(Duration::from_millis(milliseconds)),
            _ => {}
        }
    }
    element.last = last.unwrap_or_else(|| element.first.clone());
    (element, expires)
}

/// The types of the parts of a key or value whose type has this number: six bits for each part (`nft`, `include/datatype.h`).
fn field_types(mut number: u32) -> Vec<FieldType> {
    let mut types = Vec::new();
    while number > 0 {
        types.extend(match number & 0x3f {
            4 => Some(FieldType::Bytes),
            7 => Some(FieldType::Address(IpVersion::V4)),
            8 => Some(FieldType::Address(IpVersion::V6)),
            9 => Some(FieldType::Mac),
            12 => Some(FieldType::Protocol),
            13 => Some(FieldType::Port),
            41 => Some(FieldType::Interface),
            _ => None,
        });
        number >>= 6;
    }
    types.reverse();
    types
}

/// The comment among a rule's user data.
pub(super) fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text_of(value));
        }
        data = next;
    }
    None
}
