//! Reading what others have in the host's namespace: the chains that judge forwarded packets, and the rules of ours in them
//! (`linux/netfilter/nf_tables.h`). `iptables` of today keeps its rules there as well, as tables `ip filter` and `ip6 filter`.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::NlasIterator;

use super::super::error::Meaning;
use super::read::{
    Ask, Attributes, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE,
    NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, NFTA_TABLE_NAME, Reader,
    TABLE, comment, nested, text_of,
};
use crate::datapath::foreign_chains::{Calls, ChainName, DOCKER_USER, Judge, Pass, Protocols, Rest};
use crate::datapath::kernel_api::Cause;

const FAMILIES: [Protocols; 3] = [Protocols::Ip, Protocols::Ip6, Protocols::Inet];
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_OWNER: u32 = 0x2;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// `linux/netfilter.h`
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;
/// How the names of our interfaces in the host's namespace begin.
const OURS: &[u8] = b"ovu";

/// A rule of a chain, as far as it matters.
struct Rule {
    handle: u64,
    comment: Option<String>,
    names_us: bool,
    calls: Calls,
}

impl Reader {
    /// The chains of others that may be gates, and those that drop by policy what is forwarded.
    pub(in crate::kernel) async fn others(&mut self) -> io::Result<BTreeMap<ChainName, Judge>> {
        let mut found = BTreeMap::new();
        for family in FAMILIES {
            self.protocol = protocol(family);
            for (kind, attributes) in self.exchange(NFT_MSG_GETCHAIN, &[], Ask::All).await? {
                if let Some((name, rest)) = judge(family, &attributes).filter(|_| kind == NFT_MSG_NEWCHAIN) {
                    found.insert(name, rest);
                }
            }
        }
        let mut judges = BTreeMap::new();
        for (name, rest) in found {
            let is_owned = name.may_be_gate() && self.is_owned(&name).await?;
            let (ours, theirs): (Vec<Rule>, Vec<Rule>) = self.rules(&name).await?.into_iter().partition(Rule::is_ours);
            let mut ours: Vec<String> = ours.into_iter().filter_map(|rule| rule.comment).collect();
            ours.sort();
            let knows_us = theirs.iter().any(|rule| rule.names_us);
            let calls = theirs.iter().any(|rule| rule.calls == Calls::DockerUser);
            let calls = if calls { Calls::DockerUser } else { Calls::Nothing };
            judges.insert(name, Judge { rest, is_owned, calls, knows_us, ours });
        }
        Ok(judges)
    }

    /// Our rules in a chain: their handles and marks.
    pub(in crate::kernel) async fn ours(&mut self, chain: &ChainName) -> io::Result<Vec<(u64, String)>> {
        let rules = self.rules(chain).await?.into_iter().filter(Rule::is_ours);
        Ok(rules.filter_map(|rule| Some((rule.handle, rule.comment?))).collect())
    }

    async fn is_owned(&mut self, chain: &ChainName) -> io::Result<bool> {
        self.protocol = protocol(chain.family);
        match self.exchange(NFT_MSG_GETTABLE, &[(NFTA_TABLE_NAME, &chain.table)], Ask::One).await {
            Err(error) if error.meaning() == Cause::Gone => Ok(false),
            other => {
                let flags = |attributes: &Attributes| number(attributes.get(&NFTA_TABLE_FLAGS));
                Ok(other?.iter().any(|(_, table)| flags(table).is_some_and(|flags| flags & NFT_TABLE_F_OWNER != 0)))
            }
        }
    }

    /// The rules of a chain; none if it is gone.
    async fn rules(&mut self, chain: &ChainName) -> io::Result<Vec<Rule>> {
        self.protocol = protocol(chain.family);
        let of = [(NFTA_RULE_TABLE, chain.table.as_str()), (NFTA_RULE_CHAIN, chain.chain.as_str())];
        let answers = match self.exchange(NFT_MSG_GETRULE, &of, Ask::All).await {
            Err(error) if error.meaning() == Cause::Gone => return Ok(Vec::new()),
            other => other?,
        };
        // Older kernels may know the table only.
        let is_in = |a: &Attributes| a.get(&NFTA_RULE_CHAIN).is_some_and(|name| text_of(name) == chain.chain);
        answers.iter().filter(|(kind, a)| *kind == NFT_MSG_NEWRULE && is_in(a)).map(|(_, a)| Rule::read(a)).collect()
    }
}

impl Rule {
    fn read(attributes: &Attributes) -> io::Result<Self> {
        let handle = attributes.get(&NFTA_RULE_HANDLE).and_then(|v| v.first_chunk::<8>());
        let expressions = attributes.get(&NFTA_RULE_EXPRESSIONS).map_or(&[][..], Vec::as_slice);
        let has = |name: &[u8]| expressions.windows(name.len()).any(|window| window == name);
        let comment = match attributes.get(&NFTA_RULE_USERDATA).and_then(|data| comment(data)) {
            // What was saved and restored by `iptables` has its comment as a match.
            None => matched_comment(expressions)?,
            some => some,
        };
        Ok(Self {
            handle: handle.map_or(0, |handle| u64::from_be_bytes(*handle)),
            comment,
            names_us: has(OURS),
            calls: if has(DOCKER_USER.as_bytes()) { Calls::DockerUser } else { Calls::Nothing },
        })
    }

    fn is_ours(&self) -> bool {
        self.comment.as_deref().is_some_and(Pass::is_mark)
    }
}

/// The comment that a rule of `iptables -m comment` has (`linux/netfilter/xt_comment.h`).
fn matched_comment(expressions: &[u8]) -> io::Result<Option<String>> {
    for expression in NlasIterator::new(expressions) {
        let expression = nested(expression.map_err(io::Error::other)?.value())?;
        let is = |attributes: &Attributes, kind, name: &str| attributes.get(&kind).is_some_and(|v| text_of(v) == name);
        if !is(&expression, NFTA_EXPR_NAME, "match") {
            continue;
        }
        let data = nested(expression.get(&NFTA_EXPR_DATA).map_or(&[][..], Vec::as_slice))?;
        if is(&data, NFTA_MATCH_NAME, "comment") {
            return Ok(data.get(&NFTA_MATCH_INFO).map(|info| text_of(info)));
        }
    }
    Ok(None)
}

/// A chain that matters, and what becomes of what it does not decide on.
fn judge(family: Protocols, attributes: &Attributes) -> Option<(ChainName, Rest)> {
    let text = |attribute| attributes.get(&attribute).map(|v| text_of(v)).unwrap_or_default();
    let name = ChainName { family, table: text(NFTA_CHAIN_TABLE), chain: text(NFTA_CHAIN_NAME) };
    let hook = attributes.get(&NFTA_CHAIN_HOOK).and_then(|hook| nested(hook).ok());
    let rest = match hook {
        None => Rest::Returned,
        Some(hook) if number(hook.get(&NFTA_HOOK_HOOKNUM)) != Some(NF_INET_FORWARD) => return None,
        Some(_) if text(NFTA_CHAIN_TYPE) != "filter" => return None,
        Some(_) if number(attributes.get(&NFTA_CHAIN_POLICY)) == Some(NF_DROP) => Rest::Dropped,
        Some(_) => Rest::Accepted,
    };
    let is_our_table = family == Protocols::Inet && name.table == TABLE;
    (!is_our_table && (rest == Rest::Dropped || name.may_be_gate())).then_some((name, rest))
}

fn number(value: Option<&Vec<u8>>) -> Option<u32> {
    value.and_then(|v| v.first_chunk::<4>()).map(|bytes| u32::from_be_bytes(*bytes))
}

/// `linux/netfilter.h`
fn protocol(family: Protocols) -> u8 {
    match family {
        Protocols::Ip => 2,
        Protocols::Ip6 => 10,
        Protocols::Inet => 1,
    }
}
