//! What hosts ask of each other: which input a question is to the ledger that is asked, and which inputs its answer is to the ledger
//! that asked. How questions travel is no matter of the ledger's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Ask, Claim, Denial, Input, Ledger, LedgerSnapshot, MemberList, Outcome, SealRequest, Share, Want};
use crate::model::id::{HostId, NetworkId};
use crate::model::member::Stamp;
use crate::model::record::Statement;

/// A question of one host to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// For a part of its space in a range of a network.
    Space {
        /// The network.
        network: NetworkId,
        /// The range.
        range: u8,
    },
    /// For one address out of a block that it holds.
    Address {
        /// The network.
        network: NetworkId,
        /// The address.
        address: IpAddr,
    },
    /// A lease was written for it: does it have it on its disk?
    Deliver {
        /// The network.
        network: NetworkId,
        /// The lease.
        statement: Statement,
    },
    /// To take the asking host for a member.
    Acknowledge {
        /// The host that founded the asking host's cluster, if it belongs to one.
        founder: Option<HostId>,
    },
    /// To confirm, after a boot, that the asking host's ledger still holds.
    Admit {
        /// The host that founded the asking host's cluster.
        founder: Option<HostId>,
        /// What it thinks it holds.
        claims: BTreeMap<NetworkId, Claim>,
    },
    /// To deal no more with a host that the asking one is to forget.
    Seal {
        /// The host to forget.
        host: HostId,
        /// What the asking host knows of it.
        request: SealRequest,
    },
}

/// The host that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Who it is.
    pub host: HostId,
    /// How far its ledger had come when it asked.
    pub stamp: Stamp,
    /// Does the same identity answer elsewhere right now?
    pub elsewhere: bool,
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so, durably.
    Done,
    /// These leases go to the host that asked.
    Given(Vec<Statement>),
    /// What it knows of the members.
    MemberList(MemberList),
    /// All that it knows, for the host that forgets another.
    Sealed(LedgerSnapshot),
    /// No, and why.
    Denied(Denial),
}

impl From<(NetworkId, Ask)> for Question {
    fn from((network, ask): (NetworkId, Ask)) -> Self {
        match ask {
            Ask::Space { range, .. } => Self::Space { network, range },
            Ask::Address { address, .. } => Self::Address { network, address },
        }
    }
}

impl Question {
    /// What it is to the ledger of the host that is asked.
    pub fn input(self, Asker { host: from, stamp, elsewhere }: Asker) -> Input {
        match self {
            Self::Space { network, range } => Input::GiveSpace { network, range, to: from, share: Share::Quarter },
            Self::Address { network, address } => Input::GiveAddress { network, to: from, address },
            Self::Deliver { network, statement } => Input::Stated { network, from, stamp, statement },
            Self::Acknowledge { founder } => Input::Acknowledge { from, stamp, founder },
            Self::Admit { founder, claims } => Input::Admit { from, stamp, founder, claims, elsewhere },
            Self::Seal { host, request } => Input::Seal { from, host, seal_request: request },
        }
    }

    /// What the answer of host `by`, whose ledger had come so far, is to the ledger that asked. A denial of an address says nothing
    /// of that host, and nothing comes of an answer to another question.
    pub fn answered(&self, (by, stamp): (HostId, Stamp), answer: Answer) -> Vec<Input> {
        match (self, answer) {
            (Self::Space { network, .. } | Self::Address { network, .. }, Answer::Given(statements)) => {
                let stated = |statement| Input::Stated { network: *network, from: by, stamp, statement };
                statements.into_iter().map(stated).collect()
            }
            (Self::Deliver { network, statement }, Answer::Done) => {
                vec![Input::Taken { network: *network, statement: *statement }]
            }
            (Self::Acknowledge { .. }, Answer::MemberList(member_list)) => {
                vec![Input::Acknowledged { by, member_list }]
            }
            (Self::Admit { .. }, Answer::MemberList(member_list)) => vec![Input::Admitted { by, member_list }],
            (Self::Seal { host, .. }, Answer::Sealed(ledger_snapshot)) => {
                vec![Input::Sealed { by, host: *host, ledger_snapshot }]
            }
            (Self::Space { .. } | Self::Address { .. }, Answer::Denied(_)) => Vec::new(),
            (_, Answer::Denied(denial)) => vec![Input::Refused { by, denial }],
            _ => Vec::new(),
        }
    }
}

/// An outcome that is no answer to another host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no answer to another host")]
pub struct NoAnswer(pub Outcome);

impl TryFrom<Outcome> for Answer {
    type Error = NoAnswer;

    fn try_from(outcome: Outcome) -> Result<Self, NoAnswer> {
        match outcome {
            Outcome::Done => Ok(Self::Done),
            Outcome::Given(statements) => Ok(Self::Given(statements)),
            Outcome::MemberList(members) => Ok(Self::MemberList(members)),
            Outcome::Sealed(snapshot) => Ok(Self::Sealed(snapshot)),
            Outcome::Denied(denial) => Ok(Self::Denied(denial)),
            other @ (Outcome::Granted { .. } | Outcome::Ask(_)) => Err(NoAnswer(other)),
        }
    }
}

impl Ledger {
    /// What this host has to ask of the hosts that it hears, and has not asked yet in this incarnation of its agent: those that it
    /// has `introduced` itself to know it.
    pub fn questions(
        &self,
        heard: &BTreeSet<HostId>,
        introduced: &BTreeSet<HostId>,
    ) -> BTreeMap<HostId, Vec<Question>> {
        let mut wants = self.wants(heard);
        for host in self.introductions(heard, introduced) {
            wants.entry(host).or_default().push(Want::Acknowledge);
        }
        let questions = |wants: Vec<Want>| wants.iter().filter_map(|want| self.question(want)).collect();
        wants.into_iter().map(|(host, wants)| (host, questions(wants))).collect()
    }

    /// The question by which this host gets what it wants; `None` if that has no meaning any more.
    pub(super) fn question(&self, want: &Want) -> Option<Question> {
        let founder = self.membership().founder;
        match want {
            Want::Acknowledge => Some(Question::Acknowledge { founder }),
            Want::Admit => Some(Question::Admit { founder, claims: self.claims() }),
            Want::Seal(host) => Some(Question::Seal { host: *host, request: self.seal_request(*host)? }),
        }
    }

    /// The leases that were written for other hosts and have not arrived, by the host that each is for.
    pub fn undelivered(&self) -> BTreeMap<HostId, Vec<(NetworkId, Statement)>> {
        let mut undelivered: BTreeMap<HostId, Vec<_>> = BTreeMap::new();
        for (network, account) in self.accounts() {
            for statement in &account.outbox {
                let to = match statement {
                    Statement::Transfer { to, .. } | Statement::Delegate { to, .. } => Some(*to),
                    Statement::Return { address, .. } => account.block_lease(*address).map(|lease| lease.holder),
                };
                if let Some(to) = to {
                    undelivered.entry(to).or_default().push((*network, *statement));
                }
            }
        }
        undelivered
    }
}
