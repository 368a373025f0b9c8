//! What hosts ask of each other: a question and its answer can each be lost, late or come twice, and nobody waits forever.

use std::collections::BTreeMap;
use std::net::IpAddr;

use overlay::ledger::{
    Ask, Claim, Denial, Input, LedgerSnapshot, MemberList, Millis, Outcome, Request, SealRequest, Share,
};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::lease::Version;
use overlay::model::member::Stamp;
use overlay::model::network::Name;
use overlay::model::record::Statement;

use crate::host::Power;
use crate::world::{Event, World};

/// How long a host waits for an answer.
pub const PATIENCE: Millis = 2_000;

#[derive(Debug, Clone)]
pub enum Question {
    Space(NetworkId, u8),
    Address(NetworkId, IpAddr),
    Deliver(NetworkId, Statement),
    Acknowledge(Option<HostId>),
    Admit(Option<HostId>, BTreeMap<NetworkId, Claim>),
    Seal(HostId, SealRequest),
}

#[derive(Debug, Clone)]
pub enum Answer {
    Given(Vec<Statement>),
    Done,
    MemberList(MemberList),
    Sealed(LedgerSnapshot),
    Denied(Denial),
}

/// An endpoint that waits for its address.
#[derive(Debug, Clone)]
pub struct Attach {
    pub host: usize,
    pub request: Request,
}

pub struct Call {
    pub from: usize,
    pub question: Question,
    pub attach: Option<Attach>,
}

impl World {
    pub fn ask(&mut self, from: usize, to: HostId, question: Question, attach: Option<Attach>) {
        let call = self.number();
        let (caller, id, stamp) = (from, self.hosts[from].id, self.hosts[from].ledger.stamp());
        self.at(PATIENCE, Event::Patience(call));
        if let Some(index) = self.index(to)
            && self.passes(from, index)
        {
            let copies = if self.rng.u8(0..100) < 3 { 2 } else { 1 };
            for _ in 0..copies {
                let delay = self.delay();
                self.at(delay, Event::Question { call, from: id, caller, to, stamp, question: question.clone() });
            }
        }
        self.calls.insert(call, Call { from, question, attach });
    }

    /// Mostly milliseconds; now and then longer than anybody waits.
    fn delay(&mut self) -> Millis {
        if self.rng.u8(0..100) < 2 { self.rng.u64(1_000..20_000) } else { self.rng.u64(1..30) }
    }

    pub fn asked(&mut self, call: u64, (from, caller, stamp): (HostId, usize, Stamp), to: HostId, question: Question) {
        let Some(index) = self.index(to).filter(|index| self.hosts[*index].power == Power::On) else { return };
        let elsewhere = self.index(from) != Some(caller) && self.hosts[index].hears(from);
        let input = match question {
            Question::Space(network, range) => Input::GiveSpace { network, range, to: from, share: Share::Quarter },
            Question::Address(network, address) => Input::GiveAddress { network, to: from, address },
            Question::Deliver(network, statement) => Input::Stated { network, from, stamp, statement },
            Question::Acknowledge(founder) => Input::Acknowledge { from, stamp, founder },
            Question::Admit(founder, claims) => Input::Admit { from, stamp, founder, claims, elsewhere },
            Question::Seal(host, seal_request) => Input::Seal { from, host, seal_request },
        };
        let Some(outcome) = self.step(index, &input) else { return };
        let answer = match outcome {
            Outcome::Done => Answer::Done,
            Outcome::Given(statements) => Answer::Given(statements),
            Outcome::MemberList(member_list) => Answer::MemberList(member_list),
            Outcome::Sealed(ledger_snapshot) => Answer::Sealed(ledger_snapshot),
            Outcome::Denied(denial) => Answer::Denied(denial),
            Outcome::Granted { .. } | Outcome::Ask(_) => unreachable!("no answer to another host"),
        };
        let stamp = self.hosts[index].ledger.stamp();
        if self.passes(index, caller) {
            let delay = self.delay();
            self.at(delay, Event::Answer { call, from: to, stamp, answer });
        }
    }

    pub fn answered(&mut self, call: u64, (by, stamp): (HostId, Stamp), answer: Answer) {
        // Who asked has waited no longer, or is off by now.
        let Some(Call { from: index, question, attach }) = self.calls.remove(&call) else { return };
        let inputs = match (question, answer) {
            (Question::Space(network, _) | Question::Address(network, _), Answer::Given(statements)) => {
                let stated = |statement| Input::Stated { network, from: by, stamp, statement };
                statements.into_iter().map(stated).collect()
            }
            (Question::Deliver(network, statement), Answer::Done) => vec![Input::Taken { network, statement }],
            (Question::Acknowledge(_), Answer::MemberList(member_list)) => {
                self.hosts[index].introduced.insert(by);
                vec![Input::Acknowledged { by, member_list }]
            }
            (Question::Admit(..), Answer::MemberList(member_list)) => vec![Input::Admitted { by, member_list }],
            (Question::Seal(sealed, _), Answer::Sealed(ledger_snapshot)) => {
                vec![Input::Sealed { by, host: sealed, ledger_snapshot }]
            }
            (_, Answer::Denied(denial)) => vec![Input::Refused { by, denial }],
            _ => Vec::new(),
        };
        for input in inputs {
            if self.step(index, &input).is_none() {
                return;
            }
        }
        if let Some(attach) = attach {
            self.allocate(attach.host, attach.request);
        }
    }

    /// An endpoint wants an address: asks the ledger, and for the ledger the others, until there is an answer.
    pub fn allocate(&mut self, index: usize, mut request: Request) {
        if self.hosts[index].power != Power::On {
            return;
        }
        let (network, endpoint, name) = (request.network, request.endpoint, request.name.clone());
        let Some(outcome) = self.step(index, &Input::Allocate(request.clone())) else { return };
        match outcome {
            Outcome::Granted { address, lease } => self.attached(index, (endpoint, network, name), (address, lease)),
            Outcome::Ask(ask) => {
                assert!(request.asked.insert(ask), "{ask:?} is asked for the second time");
                let (of, question) = match ask {
                    Ask::Space { of, range } => (of, Question::Space(network, range)),
                    Ask::Address { of, address } => (of, Question::Address(network, address)),
                };
                self.ask(index, of, question, Some(Attach { host: index, request }));
            }
            Outcome::Denied(denial) => {
                self.seen.note(kind(&denial));
                self.log.push((self.now, index, endpoint, Err(denial)));
            }
            other => unreachable!("{other:?} is no answer to an allocation"),
        }
    }

    fn attached(
        &mut self,
        index: usize,
        (endpoint, network, name): (EndpointId, NetworkId, Name),
        granted: (IpAddr, Version),
    ) {
        if self.hosts[index].intents.attachments.contains_key(&endpoint) {
            return;
        }
        let rival = self.live.insert((network, granted.0), (index, endpoint));
        let at = self.now;
        assert_eq!(rival, None, "S3: at {at} ms {} of network {network} is live on host {index} as well", granted.0);
        self.seen.note("attached");
        self.log.push((at, index, endpoint, Ok(granted.0)));
        self.hosts[index].attach(endpoint, network, &name, granted);
    }
}

fn kind(denial: &Denial) -> &'static str {
    match denial {
        Denial::Bound { .. } => "denied: bound",
        Denial::Delegated { .. } => "denied: delegated",
        Denial::Unreachable { .. } => "denied: unreachable",
        Denial::Full { .. } => "denied: full",
        Denial::Joining => "denied: joining",
        Denial::Unchecked => "denied: unchecked",
        Denial::Deleted => "denied: deleted",
        _ => "denied",
    }
}
