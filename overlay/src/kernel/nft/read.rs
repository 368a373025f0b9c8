//! Reading our tables back: the names of the chains, the comments of the rules, and the elements of the sets.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, NfTablesMessage, NfTablesMessageType, RuleAttribute, RuleMessage,
    SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

use super::super::error::Meaning;
use super::dump::{List, Query, Reader, text_of, value_of};
use crate::datapath::firewall::{Family, Marks, mark};
use crate::datapath::kernel_api::Cause;

pub(super) const TABLE: &str = "overlay";
/// How the names of those sets begin that `nft` makes for a rule's `{ ... }`.
const ANONYMOUS: &str = "__";
/// In a rule's user data, where `nft` keeps its comment (libnftnl `udata.h`): type, length, text and a zero.
const UDATA_COMMENT: u8 = 0;

impl Reader {
    /// The marks of our table of a family; `None` if it is not there.
    pub(in crate::kernel) async fn marks(&mut self, family: Family) -> io::Result<Option<Marks>> {
        let family = match family {
            Family::Inet => NetfilterProtoFamily::Inet,
            Family::Bridge => NetfilterProtoFamily::Bridge,
        };
        let table = TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] };
        match self.ask(family, NfTablesMessage::GetTable(table), Query::One).await {
            Err(error) if error.meaning() == Cause::Gone => return Ok(None),
            other => drop(other?),
        }
        let mut marks: BTreeMap<String, Vec<String>> =
            self.chains(family).await?.into_iter().map(|chain| (chain, Vec::new())).collect();
        for (chain, comment) in self.comments(family).await? {
            marks.entry(chain).or_default().push(comment);
        }
        for (set, is_filled_by_packets) in self.sets(family).await? {
            let mut elements = if is_filled_by_packets { Vec::new() } else { self.elements(family, &set).await? };
            elements.sort();
            marks.insert(format!("@{set}"), elements);
        }
        Ok(Some(marks.into_iter().collect()))
    }

    /// The names of our table's chains.
    async fn chains(&mut self, family: NetfilterProtoFamily) -> io::Result<Vec<String>> {
        let of = ChainMessage { attributes: vec![ChainAttribute::Table(TABLE.to_owned())] };
        let mut names = Vec::new();
        for answer in self.ask(family, NfTablesMessage::GetChain(of), Query::Dump).await? {
            let (mut table, mut name) = (String::new(), String::new());
            for attribute in answer.all().map_err(io::Error::other)? {
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

    /// The names of our table's sets and maps, and whether packets fill them.
    async fn sets(&mut self, family: NetfilterProtoFamily) -> io::Result<Vec<(String, bool)>> {
        let of = SetMessage { attributes: vec![SetAttribute::Table(TABLE.to_owned())] };
        let mut sets = Vec::new();
        for answer in self.ask(family, NfTablesMessage::GetSet(of), Query::Dump).await? {
            let (mut table, mut name, mut set_flags) = (String::new(), String::new(), SetFlags::empty());
            for attribute in answer.all().map_err(io::Error::other)? {
                match attribute {
                    SetAttribute::Table(text) => table = text,
                    SetAttribute::Name(text) => name = text,
                    SetAttribute::Flags(flags) => set_flags = flags,
                    _ => {}
                }
            }
            if answer.kind == NfTablesMessageType::NewSet && table == TABLE && !name.starts_with(ANONYMOUS) {
                sets.push((name, set_flags.contains(SetFlags::Eval)));
            }
        }
        Ok(sets)
    }

    /// The marks of the elements of one of our table's sets.
    async fn elements(&mut self, family: NetfilterProtoFamily, set: &str) -> io::Result<Vec<String>> {
        let of = vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.to_owned())];
        let question = NfTablesMessage::GetSetElement(SetElementMessage { attributes: of });
        let mut marks = Vec::new();
        for answer in self.ask(family, question, Query::Dump).await? {
            if answer.kind == NfTablesMessageType::NewSetElement {
                let elements = answer.list::<SetElementAttribute>(List::Elements).map_err(io::Error::other)?;
                marks.extend(elements.into_iter().map(element_mark));
            }
        }
        Ok(marks)
    }
}

fn element_mark(attributes: Vec<SetElementAttribute>) -> String {
    let (mut first, mut last, mut value) = (Vec::new(), None, Vec::new());
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => first = bytes,
            SetElementAttribute::KeyEnd(data) => last = data.first().map(|data: &DefaultNla| value_of(data)),
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => value = bytes,
            _ => {}
        }
    }
    mark(&first, last.as_ref().unwrap_or(&first), &value)
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
