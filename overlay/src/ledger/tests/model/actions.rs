//! What can happen next. Whatever the ledger itself refuses may be listed here: it comes to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::world::{Host, Letter, Machine, Words, World, id, number};
use super::{Breach, Check, Protocol};
use crate::ledger::{Activation, Membership, SafetyRule, Want};
use crate::model::id::HostId;
use crate::model::lease::Holder;
use crate::model::member::Boot;
use crate::model::record::Statement;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A host asks another for space.
    GiveSpace {
        by: usize,
        to: usize,
    },
    /// A host asks another for one address.
    GiveAddress {
        by: usize,
        to: usize,
        address: IpAddr,
    },
    /// Rests are over: borrowed addresses go home, and those lent to the forgotten are taken back.
    Tick {
        host: usize,
    },
    /// Something that was said arrives.
    Hear {
        host: usize,
        letter: Letter,
    },
    /// An endpoint gets an address; then it is live.
    Bind {
        host: usize,
        address: IpAddr,
    },
    /// An endpoint goes.
    Release {
        host: usize,
        address: IpAddr,
    },
    /// A host asks another what its ledger wants asked.
    Ask {
        host: usize,
        of: usize,
        want: Want,
        answer: Answer,
    },
    /// The boot check is over.
    Conclude {
        host: usize,
    },
    /// The boot check is left out.
    Trust {
        host: usize,
    },
    /// The operator says that hosts are off.
    Forget {
        heir: usize,
        hosts: BTreeMap<HostId, Boot>,
    },
    /// What a host publishes of its cluster, and of the hosts that it has sealed, arrives.
    HearOf {
        host: usize,
        from: usize,
    },
    KillAgent {
        host: usize,
    },
    StartAgent {
        host: usize,
    },
    PowerOff {
        host: usize,
    },
    PowerOn {
        host: usize,
    },
    /// Somebody copies the disk.
    CopyDisk {
        host: usize,
    },
    /// Somebody puts the copy in.
    RestoreDisk {
        host: usize,
    },
    WipeDisk {
        host: usize,
    },
    /// What was answered becomes durable; only where answers do not wait for that.
    Flush {
        host: usize,
    },
    /// A host says of itself what it heard of others; only where hearsay is passed on.
    Repeat {
        host: usize,
        letter: Letter,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Arrives,
    Lost,
}

impl Protocol {
    pub fn possible(&self, world: &World, out: &mut Vec<Action>) {
        for (n, host) in world.hosts.iter().enumerate() {
            match host.machine {
                Machine::Up => self.agent(world, n, host, out),
                Machine::AgentDown => out.push(Action::StartAgent { host: n }),
                Machine::Off => out.push(Action::PowerOn { host: n }),
                Machine::Gone(_) => continue,
            }
            self.misfortune(world, n, host, out);
        }
    }

    fn agent(&self, world: &World, n: usize, host: &Host, out: &mut Vec<Action>) {
        match &host.ledger.membership().activation {
            Activation::Established => {
                self.allocation(n, host, out);
                self.forgetting(world, n, host, out);
                let heard = world.said.iter().filter(|letter| self.concerns(host, letter));
                out.extend(heard.map(|letter| Action::Hear { host: n, letter: *letter }));
            }
            Activation::Unchecked { admitted, waiting } => match self.setting.check {
                Check::Trust => out.push(Action::Trust { host: n }),
                Check::Reachable
                    if admitted.is_empty()
                        && waiting.is_empty()
                        && host.ledger.membership().others().next().is_some() => {}
                Check::Reachable | Check::All => out.push(Action::Conclude { host: n }),
            },
            Activation::Joining { .. } | Activation::Fenced(_) => {}
        }
        self.asking(world, n, host, out);
        let (mine, apart) = (host.ledger.membership(), !self.setting.apart.is_empty());
        let news = |of: &Membership| {
            let elsewhere = apart && of.founder.is_some_and(|_| of.founder != mine.founder);
            let unknown = mine.members.is_empty() && of.founder == Some(host.ledger.me());
            !of.seals.is_empty() || elsewhere || unknown
        };
        let others = world.hosts.iter().enumerate().filter(|(from, _)| *from != n);
        let telling = others.filter(|(_, other)| other.is_up() && news(other.ledger.membership()));
        out.extend(telling.map(|(from, _)| Action::HearOf { host: n, from }));
        if self.setting.breach == Some(Breach::Hearsay) {
            let of_others = world.said.iter().filter(|l| l.from != id(n) && matches!(l.words, Words::Wrote(_)));
            out.extend(of_others.map(|letter| Action::Repeat { host: n, letter: *letter }));
        }
        if host.disk.is_some() {
            out.push(Action::Flush { host: n });
        }
    }

    fn allocation(&self, n: usize, host: &Host, out: &mut Vec<Action>) {
        let (me, Some(account)) = (id(n), self.account(host)) else { return };
        let members = || host.ledger.membership().members.iter().map(|member| number(*member));
        if account.held_by(me).next().is_some() {
            out.extend(members().map(|to| Action::GiveSpace { by: n, to }));
        }
        for &address in &self.addresses {
            if account.block_lease(address).is_some_and(|lease| lease.holder == me) {
                out.extend(members().map(|to| Action::GiveAddress { by: n, to, address }));
            }
            if account.bound.contains_key(&address) {
                out.push(Action::Release { host: n, address });
            } else if account.may_use(me, address).is_some() {
                out.push(Action::Bind { host: n, address });
            }
        }
        let lent = account.addresses.values().any(|lease| lease.holder != Holder::Home);
        let membership = host.ledger.membership();
        if lent || !membership.forgets.is_empty() || !membership.foreign.is_empty() {
            out.push(Action::Tick { host: n });
        }
    }

    /// The operator says that hosts are off that are, one of them or two.
    fn forgetting(&self, world: &World, n: usize, host: &Host, out: &mut Vec<Action>) {
        let off = |x: usize| match world.hosts[x].machine {
            Machine::Off => true,
            // It is no member, whatever it does.
            Machine::Up if host.ledger.membership().foreign.contains(&id(x)) => true,
            Machine::Up => self.setting.breach == Some(Breach::ForgetTheLiving),
            Machine::AgentDown | Machine::Gone(_) => false,
        };
        if !self.setting.heirs.contains(&n) {
            return;
        }
        let gone: Vec<usize> = self.setting.forgets.iter().copied().filter(|x| *x != n && off(*x)).collect();
        let boots = |x: usize| -> BTreeSet<Boot> {
            [host.ledger.membership().boot_of(id(x)), world.hosts[x].ledger.membership().boot].into()
        };
        for (place, &x) in gone.iter().enumerate() {
            for boot in boots(x) {
                let hosts = BTreeMap::from([(id(x), boot)]);
                for &y in &gone[place + 1..] {
                    let both = |boot| hosts.iter().map(|(x, boot)| (*x, *boot)).chain([(id(y), boot)]).collect();
                    out.extend(boots(y).into_iter().map(|boot| Action::Forget { heir: n, hosts: both(boot) }));
                }
                out.push(Action::Forget { heir: n, hosts });
            }
        }
    }

    /// Exactly what the program asks, of whoever could answer.
    fn asking(&self, world: &World, n: usize, host: &Host, out: &mut Vec<Action>) {
        if matches!(host.ledger.membership().activation, Activation::Unchecked { .. })
            && self.setting.check == Check::Trust
        {
            return;
        }
        for (of, wants) in host.ledger.wants(&self.everybody) {
            let of = number(of);
            if !world.hosts[of].is_up() {
                continue;
            }
            for want in wants {
                let may_be_lost = self.setting.lost_answers || matches!(want, Want::Seal(_));
                if may_be_lost {
                    out.push(Action::Ask { host: n, of, want: want.clone(), answer: Answer::Lost });
                }
                out.push(Action::Ask { host: n, of, want, answer: Answer::Arrives });
            }
        }
    }

    fn misfortune(&self, world: &World, n: usize, host: &Host, out: &mut Vec<Action>) {
        let (setting, spent) = (&self.setting, &world.spent);
        if host.is_up() && spent.kills < setting.kills {
            out.push(Action::KillAgent { host: n });
        }
        if host.machine != Machine::Off && spent.boots < setting.boots && setting.down.contains(&n) {
            out.push(Action::PowerOff { host: n });
        }
        if spent.rolls < setting.rolls && setting.rolled.contains(&n) {
            match (&host.image, host.machine) {
                (None, Machine::Up) => out.push(Action::CopyDisk { host: n }),
                (Some(_), Machine::Off) => out.push(Action::RestoreDisk { host: n }),
                _ => {}
            }
        }
        if !host.is_up() && spent.wipes < setting.wipes {
            out.push(Action::WipeDisk { host: n });
        }
    }

    /// Could the letter change anything? It may still be refused.
    fn concerns(&self, host: &Host, letter: &Letter) -> bool {
        let me = host.ledger.me();
        let Some(account) = self.account(host).filter(|_| letter.from != me) else { return false };
        match letter.words {
            Words::Wrote(Statement::Transfer { block, epoch, to }) => {
                let known = account.blocks.get(&block).map_or(0, |lease| lease.epoch);
                to == me && (epoch > known || self.setting.without == Some(SafetyRule::HighestLease))
            }
            Words::Wrote(Statement::Delegate { to, .. }) => to == me,
            Words::Wrote(Statement::Return { address, .. }) => {
                account.block_lease(address).is_some_and(|lease| lease.holder == me)
            }
            Words::Holds(run) => {
                let known = account.blocks.get(&run.start).map_or(0, |lease| lease.epoch);
                run.epoch > known || !account.outbox.is_empty()
            }
            Words::Borrows(..) => self.setting.hears_borrowers && !account.outbox.is_empty(),
        }
    }
}
