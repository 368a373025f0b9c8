//! Reading what others have in the host's namespace: the chains that see forwarded packets, and the rules in them.
//! `iptables` of today keeps its rules there as well, as tables `ip filter` and `ip6 filter`.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, NfTablesMessageType,
    RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};

use super::super::error::Meaning;
use super::dump::{Answer, Query, Reader};
use super::foreign_rule::ForeignRule;
use super::read::TABLE;
use crate::datapath::foreign_chains::{Calls, ChainInfo, ChainName, Policy, Protocols};
use crate::datapath::kernel_api::Cause;

const FAMILIES: [Protocols; 3] = [Protocols::Ip, Protocols::Ip6, Protocols::Inet];
/// `linux/netfilter.h`
const NF_DROP: u32 = 0;

impl Reader {
    /// The chains of others that take accept rules of ours, and those that drop by policy what is forwarded.
    pub(in crate::kernel) async fn others(&mut self) -> io::Result<BTreeMap<ChainName, ChainInfo>> {
        let mut found = BTreeMap::new();
        for family in FAMILIES {
            let all = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
            let answers = self.ask(protocol(family), all, Query::Dump).await?;
            found.extend(answers.iter().filter_map(|answer| chain(family, answer)));
        }
        let mut chains = BTreeMap::new();
        for (name, policy) in found {
            let is_owned = name.takes_accept_rules() && self.is_owned(&name).await?;
            let (ours, theirs): (Vec<_>, Vec<_>) = self.rules(&name).await?.into_iter().partition(ForeignRule::is_ours);
            let mut ours: Vec<String> = ours.into_iter().filter_map(|rule| rule.comment).collect();
            ours.sort();
            let knows_us = theirs.iter().any(|rule| rule.names_us);
            let calls = theirs.iter().any(|rule| rule.calls == Calls::DockerUser);
            let calls = if calls { Calls::DockerUser } else { Calls::Nothing };
            chains.insert(name, ChainInfo { policy, is_owned, calls, knows_us, ours });
        }
        Ok(chains)
    }

    /// Our rules in a chain: their handles and comments.
    pub(in crate::kernel) async fn ours(&mut self, chain: &ChainName) -> io::Result<Vec<(u64, String)>> {
        let rules = self.rules(chain).await?.into_iter().filter(ForeignRule::is_ours);
        Ok(rules.filter_map(|rule| Some((rule.handle, rule.comment?))).collect())
    }

    /// Does the table of a chain belong to a program?
    async fn is_owned(&mut self, chain: &ChainName) -> io::Result<bool> {
        let table = TableMessage { attributes: vec![TableAttribute::Name(chain.table.clone())] };
        let answers = self.ask(protocol(chain.family), NfTablesMessage::GetTable(table), Query::One).await;
        let is_owner = |attribute: &TableAttribute| matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Owner));
        match answers {
            Err(error) if error.meaning() == Cause::Gone => Ok(false),
            answers => {
                let tables: Result<Vec<_>, _> = answers?.iter().map(Answer::all).collect();
                Ok(tables.map_err(io::Error::other)?.iter().flatten().any(is_owner))
            }
        }
    }

    /// The rules of a chain that can be read; none if the chain is gone. A rule that can't be read names nothing.
    async fn rules(&mut self, chain: &ChainName) -> io::Result<Vec<ForeignRule>> {
        let of = vec![RuleAttribute::Table(chain.table.clone()), RuleAttribute::Chain(chain.chain.clone())];
        let question = NfTablesMessage::GetRule(RuleMessage { attributes: of });
        let answers = match self.ask(protocol(chain.family), question, Query::Dump).await {
            Err(error) if error.meaning() == Cause::Gone => return Ok(Vec::new()),
            other => other?,
        };
        // Older kernels may know the table only.
        let rules = answers.iter().filter(|answer| answer.kind == NfTablesMessageType::NewRule);
        Ok(rules.filter_map(|answer| ForeignRule::read(answer, &chain.chain)).collect())
    }
}

/// A chain that matters, and what becomes of what it does not decide on.
fn chain(family: Protocols, answer: &Answer) -> Option<(ChainName, Policy)> {
    if answer.kind != NfTablesMessageType::NewChain {
        return None;
    }
    let mut name = ChainName { family, table: String::new(), chain: String::new() };
    let (mut chain_hook, mut chain_type, mut chain_policy) = (None, String::new(), None);
    // A chain that can't be read is in nobody's way as far as can be told.
    for attribute in answer.all().ok()? {
        match attribute {
            ChainAttribute::Table(text) => name.table = text,
            ChainAttribute::Name(text) => name.chain = text,
            ChainAttribute::Hook(hook) => chain_hook = Some(hook),
            ChainAttribute::Type(text) => chain_type = text,
            ChainAttribute::Policy(policy) => chain_policy = Some(policy),
            _ => {}
        }
    }
    let forward = Hook::Number(HookNumber::Inet(InetHookNumber::Forward));
    let policy = match chain_hook {
        None => Policy::Return,
        Some(hook) if !hook.contains(&forward) || chain_type != "filter" => return None,
        Some(_) if chain_policy == Some(NF_DROP) => Policy::Drop,
        Some(_) => Policy::Accept,
    };
    let is_our_table = family == Protocols::Inet && name.table == TABLE;
    (!is_our_table && (policy == Policy::Drop || name.takes_accept_rules())).then_some((name, policy))
}

fn protocol(family: Protocols) -> NetfilterProtoFamily {
    match family {
        Protocols::Ip => NetfilterProtoFamily::IPv4,
        Protocols::Ip6 => NetfilterProtoFamily::IPv6,
        Protocols::Inet => NetfilterProtoFamily::Inet,
    }
}
