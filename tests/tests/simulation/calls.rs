//! What hosts ask of each other, over the network of the simulation: delayed, lost and repeated. What a question is to the ledger that is
//! asked, and its answer to the ledger that asked, is the program's own ([`Question`]).

use overlay::ledger::{Answer, Ask, Asker, Denial, Millis, Question};
use overlay::model::id::{EndpointId, HostId, NetworkId};
use overlay::model::intent::Attachment;
use overlay::model::member::Stamp;
use overlay::operations::attach::{Attach, AttachRefusal, Attached, Reply};
use overlay::operations::hear::Inputs;

use crate::host::{Power, vtep};
use crate::world::{Event, World};

/// How long a host waits for an answer.
pub const TIMEOUT: Millis = 2_000;

pub struct Call {
    pub from: usize,
    pub question: Question,
    /// The endpoint that waits for the answer.
    pub waiting: Option<Waiting>,
}

/// An endpoint that waits for the reply of another host.
pub struct Waiting {
    attach: Attach,
    network: NetworkId,
    ask: Ask,
}

impl World {
    pub fn ask(&mut self, from: usize, to: HostId, question: Question, waiting: Option<Waiting>) {
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
        self.calls.insert(call, Call { from, question, waiting });
    }

    /// Mostly milliseconds; now and then longer than any host waits.
    fn delay(&mut self) -> Millis {
        if self.rng.u8(0..100) < 2 { self.rng.u64(1_000..20_000) } else { self.rng.u64(1..30) }
    }

    pub fn asked(&mut self, call: u64, (from, caller, stamp): (HostId, usize, Stamp), to: HostId, question: Question) {
        let Some(index) = self.index(to).filter(|index| self.hosts[*index].power == Power::On) else { return };
        let elsewhere = self.hosts[index].cluster.is_elsewhere(from, vtep(caller));
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
        let Some(Call { from: index, question, waiting }) = self.calls.remove(&call) else { return };
        if let Some(waiting) = waiting {
            let reply = match answer {
                Answer::Given(statements) => Reply::Given(statements, stamp),
                Answer::Denied(denial) => Reply::Denied(denial),
                other => unreachable!("a host that is asked gives or refuses, and does not say {other:?}"),
            };
            return self.replied(index, waiting, reply);
        }
        if matches!((&question, &answer), (Question::Acknowledge { .. }, Answer::MemberList(_))) {
            self.hosts[index].introduced.insert(by);
        }
        self.tell(index, &Inputs(question.answered((by, stamp), answer)));
    }

    /// A host has waited long enough for an answer.
    pub fn give_up(&mut self, call: u64) {
        if let Some(Call { from, waiting: Some(waiting), .. }) = self.calls.remove(&call) {
            self.replied(from, waiting, Reply::NoAnswer);
        }
    }

    /// What the reply of another host means for the endpoint that waits for it.
    fn replied(&mut self, index: usize, Waiting { attach, network, ask }: Waiting, reply: Reply) {
        match attach.answered(network, ask, reply) {
            Ok(inputs) => {
                if self.tell(index, &Inputs(inputs)).is_some() {
                    self.try_attach(index, attach);
                }
            }
            Err(refusal) => self.refused(index, attach.id, refusal),
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
                let waiting = Waiting { attach: request, network, ask };
                self.ask(index, of, Question::from((network, ask)), Some(waiting));
            }
            Some(Ok(Attached::New(attachment))) => self.attached(index, &attachment),
            Some(Ok(Attached::Before(_))) => {}
            Some(Err(refusal)) => self.refused(index, id, refusal),
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

    fn refused(&mut self, index: usize, endpoint: EndpointId, refusal: AttachRefusal) {
        self.seen.note(kind(&refusal));
        self.log.push((self.now, index, endpoint, Err(refusal)));
    }
}

fn kind(refusal: &AttachRefusal) -> &'static str {
    match refusal.denial() {
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
