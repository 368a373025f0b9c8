//! What a rule of another program does, as far as it matters to containers: does it look at an interface of ours, does it call
//! Docker's chain for users, and is it one that this program has put there?

use netlink_packet_core::{DecodeError, DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Payload, Register,
    RuleAttribute, Verdict, VerdictAttribute,
};

use super::dump::{Answer, List, text_of, value_of};
use super::read::comment;
use crate::datapath::foreign_chains::{AcceptRule, Calls, DOCKER_USER};
use crate::datapath::names::UPLINK_PREFIX;

/// How the names of our interfaces in the host's namespace begin.
const OURS: &[u8] = UPLINK_PREFIX.as_bytes();
/// Of the expression `match`, with which `iptables` uses a module of its own (`linux/netfilter/nf_tables_compat.h`).
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;

/// A rule in a chain of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignRule {
    pub handle: u64,
    pub comment: Option<String>,
    /// Does it compare the name of an interface with one of ours?
    pub names_us: bool,
    pub calls: Calls,
}

/// What an expression of a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// Puts the name of an interface into a register.
    LoadName(Register),
    /// Masks what is in one register into another.
    Mask(Register, Register),
    /// Puts something else into a register.
    Load(Register),
    /// Compares a register with these bytes.
    Compare(Register, Vec<u8>),
    /// Jumps or goes to a chain.
    Call(String),
    /// Matches every packet: a comment of `iptables -m comment` (`linux/netfilter/xt_comment.h`).
    Comment(String),
    /// Another module of `iptables`, which has nothing to do with registers.
    Module,
    /// Something else, which may write to any register.
    Other,
}

impl ForeignRule {
    /// The rule of a message, if it is in this chain and can be read.
    pub(super) fn read(answer: &Answer, of: &str) -> Option<Self> {
        let (mut chain, mut rule_handle, mut noted) = (String::new(), 0, None);
        for attribute in answer.besides(List::Expressions).ok()? {
            match attribute {
                RuleAttribute::Chain(text) => chain = text,
                RuleAttribute::Handle(handle) => rule_handle = handle,
                RuleAttribute::UserData(data) => noted = comment(&data),
                _ => {}
            }
        }
        let rule = Self::of(&actions(answer).ok()?);
        // `iptables-restore` makes a match of a comment that stood among the user data.
        let rule = Self { handle: rule_handle, comment: noted.or(rule.comment), ..rule };
        (chain == of).then_some(rule)
    }

    pub(super) fn is_ours(&self) -> bool {
        self.comment.as_deref().is_some_and(AcceptRule::is_our_comment)
    }

    fn of(actions: &[Action]) -> Self {
        let mut rule = Self { handle: 0, comment: None, names_us: false, calls: Calls::Nothing };
        // The registers that have the name of an interface.
        let mut names: Vec<Register> = Vec::new();
        for action in actions {
            match action {
                Action::LoadName(to) => names.push(*to),
                Action::Mask(from, to) if names.contains(from) => names.push(*to),
                Action::Mask(_, to) | Action::Load(to) => names.retain(|register| register != to),
                Action::Compare(register, bytes) => {
                    rule.names_us |= names.contains(register) && bytes.starts_with(OURS);
                }
                Action::Call(chain) if chain == DOCKER_USER => rule.calls = Calls::DockerUser,
                Action::Comment(text) => rule.comment = Some(text.clone()),
                Action::Call(_) | Action::Module => {}
                Action::Other => names.clear(),
            }
        }
        rule
    }
}

fn data_of(attribute: &ExpressionAttribute) -> Option<&Expressions> {
    match attribute {
        ExpressionAttribute::Data(data) => Some(data),
        _ => None,
    }
}

fn actions(answer: &Answer) -> Result<Vec<Action>, DecodeError> {
    let expressions = answer.list::<ExpressionAttribute>(List::Expressions)?;
    Ok(expressions.iter().map(|expression| Action::of(expression)).collect())
}

impl Action {
    fn of(expression: &[ExpressionAttribute]) -> Self {
        let action = match expression.iter().find_map(data_of) {
            Some(Expressions::Meta(parts)) => Self::of_meta(parts),
            Some(Expressions::Cmp(parts)) => Self::of_compare(parts),
            Some(Expressions::Bitwise(parts)) => Self::of_bitwise(parts),
            Some(Expressions::Immediate(parts)) => Self::of_immediate(parts),
            Some(Expressions::Payload(parts)) => parts.iter().find_map(|part| match part {
                Payload::DestinationRegister(to) => Some(Self::Load(*to)),
                _ => None,
            }),
            Some(Expressions::Lookup(parts)) => parts.iter().find_map(|part| match part {
                Lookup::DestinationRegister(to) => Some(Self::Load(*to)),
                _ => None,
            }),
            Some(Expressions::Other { expression_type, attributes }) if expression_type == "match" => {
                Some(Self::of_module(attributes))
            }
            _ => None,
        };
        action.unwrap_or(Self::Other)
    }

    fn of_meta(parts: &[Meta]) -> Option<Self> {
        let (mut key, mut to) = (None, None);
        for part in parts {
            match part {
                Meta::Key(meta) => key = Some(*meta),
                Meta::DestinationRegister(register) => to = Some(*register),
                _ => {}
            }
        }
        let is_name = matches!(key, Some(MetaKey::Iifname | MetaKey::Oifname));
        to.map(|to| if is_name { Self::LoadName(to) } else { Self::Load(to) })
    }

    fn of_compare(parts: &[Cmp]) -> Option<Self> {
        let (mut from, mut with) = (None, None);
        for part in parts {
            match part {
                Cmp::SourceRegister(register) => from = Some(*register),
                Cmp::Data(DataAttribute::Value(bytes)) => with = Some(bytes.clone()),
                _ => {}
            }
        }
        Some(Self::Compare(from?, with?))
    }

    fn of_bitwise(parts: &[Bitwise]) -> Option<Self> {
        let (mut from, mut to) = (None, None);
        for part in parts {
            match part {
                Bitwise::SourceRegister(register) => from = Some(*register),
                Bitwise::DestinationRegister(register) => to = Some(*register),
                _ => {}
            }
        }
        Some(Self::Mask(from?, to?))
    }

    fn of_immediate(parts: &[Immediate]) -> Option<Self> {
        let (mut to, mut calls, mut target) = (None, false, None);
        for part in parts {
            match part {
                Immediate::DestinationRegister(register) => to = Some(*register),
                Immediate::Data(DataAttribute::Verdict(verdict)) => {
                    for attribute in verdict {
                        match attribute {
                            VerdictAttribute::Code(code) => calls = matches!(code, Verdict::Jump | Verdict::Goto),
                            VerdictAttribute::Chain(chain) => target = Some(chain.clone()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        target.filter(|_| calls).map(Self::Call).or(to.map(Self::Load))
    }

    fn of_module(attributes: &[DefaultNla]) -> Self {
        let value = |kind| attributes.iter().find(|attribute| attribute.kind() == kind).map(value_of);
        match (value(NFTA_MATCH_NAME), value(NFTA_MATCH_INFO)) {
            (Some(name), Some(info)) if text_of(&name) == "comment" => Self::Comment(text_of(&info)),
            _ => Self::Module,
        }
    }
}

#[cfg(test)]
mod tests;
