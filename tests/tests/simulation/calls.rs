//! What hosts ask of each other, over the network of the simulation: delayed, lost and repeated. What a question is to the ledger that is
//! asked, and its answer to the ledger that asked, is the program's own ([`Question`]).

use overlay::ledger::{Answer, Ask, Asker, Denial, Millis, Question};
use overlay::model::id::{EndpointId, HostId};
use overlay::model::intent::Attachment;
use overlay::model::member::Stamp;
use overlay::operations::attach::{Attach, AttachRefusal, Attached};

use crate::host::Power;
use crate::world::{Event, World};

/// How long a host waits for an answer.
pub const TIMEOUT: Millis = 2_000;

pub struct Call {
    pub from: usize,
    pub question: Question,
    /// The endpoint that waits for the answer.
    pub attach: Option<Attach>,
}

impl World {
    pub fn ask(&mut self, from: usize, to: HostId, question: Question, attach: Option<Attach>) {
        let call = self.number();
        let (caller, id, stamp) = (from, self.hosts[from].id, self.hosts[from].ledger().stamp());
        self.at(TIMEOUT, Event::Patience(call));
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

    /// Mostly milliseconds; now and then longer than any host waits.
    fn delay(&mut self) -> Millis {
        if self.rng.u8(0..100) < 2 { self.rng.u64(1_000..20_000) } else { self.rng.u64(1..30) }
    }

    pub fn asked(&mut self, call: u64, (from, caller, stamp): (HostId, usize, Stamp), to: HostId, question: Question) {
        let Some(index) = self.index(to).filter(|index| self.hosts[*index].power == Power::On) else { return };
        let elsewhere = self.index(from) != Some(caller) && self.hosts[index].hears(from);
        let input = question.input(Asker { host: from, stamp, elsewhere });
        let Some(outcome) = self.step(index, &input) else { return };
        let answer = Answer::try_from(outcome).expect("questions of hosts have answers");
        let stamp = self.hosts[index].ledger().stamp();
        if self.passes(index, caller) {
            let delay = self.delay();
            self.at(delay, Event::Answer { call, from: to, stamp, answer });
        }
    }

    pub fn answered(&mut self, call: u64, (by, stamp): (HostId, Stamp), answer: Answer) {
        // The host that asked has waited no longer, or is off by now.
        let Some(Call { from: index, question, attach }) = self.calls.remove(&call) else { return };
        if matches!((&question, &answer), (Question::Acknowledge { .. }, Answer::MemberList(_))) {
            self.hosts[index].introduced.insert(by);
        }
        let refused = match (&question, &answer) {
            (Question::Address { .. }, Answer::Denied(denial)) => Some(denial.clone()),
            _ => None,
        };
        for input in question.answered((by, stamp), answer) {
            if self.step(index, &input).is_none() {
                return;
            }
        }
        match (attach, refused) {
            (Some(attach), Some(denial)) => self.refused(index, attach.id, Refused::ByHolder(denial)),
            (Some(attach), None) => self.try_attach(index, attach),
            (None, _) => {}
        }
    }

    /// An endpoint is to be attached: decides, and asks the others for what that takes, until there is an answer.
    pub fn try_attach(&mut self, index: usize, mut request: Attach) {
        if self.hosts[index].power != Power::On {
            return;
        }
        let id = request.id;
        match self.tell(index, &request) {
            Some(Ok(Attached::Ask(network, ask))) => {
                assert!(request.asked.insert(ask), "{ask:?} is asked for the second time");
                let (Ask::Space { of, .. } | Ask::Address { of, .. }) = ask;
                self.ask(index, of, Question::from((network, ask)), Some(request));
            }
            Some(Ok(Attached::New(attachment))) => self.attached(index, &attachment),
            Some(Ok(Attached::Before(_))) => {}
            Some(Err(refusal)) => self.refused(index, id, Refused::Here(refusal)),
            // Killed at it, it may have written it all the same; then the endpoint is there when it starts again.
            None => {
                let written = self.hosts[index].intents().attachments.get(&id).cloned();
                written.iter().for_each(|attachment| self.attached(index, attachment));
            }
        }
    }

    fn attached(&mut self, index: usize, attachment: &Attachment) {
        let at = self.now;
        for assigned in &attachment.endpoint.addresses {
            let (network, endpoint) = (attachment.endpoint.network, attachment.endpoint.id);
            let rival = self.live.insert((network, assigned.address), (index, endpoint));
            let address = assigned.address;
            assert_eq!(rival, None, "S3: at {at} ms {address} of network {network} is live on host {index} as well");
            self.log.push((at, index, endpoint, Ok(address)));
        }
        self.seen.note("attached");
    }

    fn refused(&mut self, index: usize, endpoint: EndpointId, refused: Refused) {
        self.seen.note(refused.kind());
        self.log.push((self.now, index, endpoint, Err(refused)));
    }
}

/// Why an endpoint was not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// This host refused it.
    Here(AttachRefusal),
    /// The holder of the address refused it.
    ByHolder(Denial),
}

impl Refused {
    /// What the ledgers said, if they were asked.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Here(AttachRefusal::Denied(_, denial)) | Self::ByHolder(denial) => Some(denial),
            Self::Here(_) => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self.denial() {
            None => "refused by what is seen",
            Some(Denial::Bound { .. }) => "denied: bound",
            Some(Denial::Delegated { .. }) => "denied: delegated",
            Some(Denial::Unreachable { .. }) => "denied: unreachable",
            Some(Denial::Full { .. }) => "denied: full",
            Some(Denial::Joining) => "denied: joining",
            Some(Denial::Unchecked) => "denied: unchecked",
            Some(Denial::Deleted) => "denied: deleted",
            Some(_) => "denied",
        }
    }
}
