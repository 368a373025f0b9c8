//! The gossip task: moves what is announced into chitchat and to the peers, and what comes from both into the view.
//!
//! It runs on an OS thread of its own with a runtime of its own, next to the socket and chitchat: nothing that the rest of the daemon
//! does can keep this host from being heard, or from hearing.

pub(crate) mod sync;
pub(crate) mod throttle;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use crate::counters::{Counters, Reason};
use crate::incarnation::announce::{Announcement, Written};
use crate::incarnation::snapshot::{Chunk, SnapshotError};
use crate::incarnation::{Member, NodeIdentity};
use crate::push::Push;
use crate::roster::liveness::AttendedClock;
use crate::roster::merge::Fit;
use crate::roster::{Event, Roster};
use crate::task::sync::SyncState;
use crate::task::throttle::Throttle;
use crate::transport::{GossipSocket, Kind};
use crate::{Generations, View};

/// Between two batches of changes of ours.
const ANNOUNCE_SPACING: Duration = Duration::from_millis(25);
/// Between two looks at what others say: at least this, and a tenth of the interval between two rounds.
const LOOK_SPACING: Duration = Duration::from_millis(25);
/// How many times as long as the last look took it is until the next: in a large cluster where much happens, looking takes a
/// tenth of a processor at most. Up to the time between two pulses, so that no heartbeat is seen late.
const REST_PER_WORK: u32 = 10;
/// Looks at the heartbeats of others in the interval between two rounds.
const PULSES: u32 = 4;
/// Pushes that are taken in one go.
const PUSHES_AT_ONCE: usize = 256;
/// Of all hosts that miss something, about so many ask for it at once if all miss it: what a host says at its start all others
/// miss, and if all asked, among a thousand it would hear from a thousand in a moment. To the rest, and mostly to one of many that
/// has missed something alone, the next round of gossip brings it.
const ASKERS: usize = 16;
/// Between the end of chitchat and its restart: at first, and at most if it goes on ending.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A run of chitchat that was longer is no sign that the next will be short.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// What a handle asks for.
pub(crate) enum Command {
    Snapshot(oneshot::Sender<Vec<Vec<u8>>>),
    Feed(Vec<Vec<u8>>, oneshot::Sender<Result<(), SnapshotError>>),
    #[cfg(test)]
    Crash {
        pause: Duration,
    },
}

/// The task's ends of its channels.
pub(crate) struct Ends {
    pub announcement: watch::Receiver<Announcement>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub pushes: mpsc::Receiver<Push>,
    pub view: watch::Sender<Arc<View>>,
    pub stop: oneshot::Receiver<()>,
}

pub(crate) struct Task {
    identity: NodeIdentity,
    generations: Box<dyn Generations + Send>,
    socket: Arc<GossipSocket>,
    counters: Arc<Counters>,
    member: Member,
    roster: Roster,
    clock: AttendedClock,
    sync: SyncState,
    said: Announcement,
    refused: BTreeSet<String>,
    /// The longest time until the next look. Each round of gossip brings one of itself.
    idle: Duration,
    /// The time until the next look if nothing happens.
    rest: Duration,
    /// Peers who have what we miss.
    ask: BTreeSet<SocketAddr>,
    pause: Duration,
}

enum Wake {
    Announced,
    AnnouncerGone,
    Command(Command),
    Pushes,
    Changed,
    Stepped,
    Died,
    Due,
    Stop,
}

impl Task {
    /// A task for `member`, which says `said`.
    pub fn new(
        identity: NodeIdentity,
        generations: Box<dyn Generations + Send>,
        (socket, counters): (Arc<GossipSocket>, Arc<Counters>),
        (member, roster): (Member, Roster),
        said: Announcement,
    ) -> Self {
        let sync = match identity.seeds.is_empty() {
            true => SyncState::Synced,
            false => SyncState::Alone,
        };
        let idle = identity.interval + LOOK_SPACING;
        Self {
            roster,
            idle,
            rest: idle,
            clock: AttendedClock::new(std::time::Instant::now(), idle),
            identity,
            generations,
            socket,
            counters,
            member,
            sync,
            said,
            refused: BTreeSet::new(),
            ask: BTreeSet::new(),
            pause: RESTART_PAUSE.0,
        }
    }

    /// Runs until `ends.stop` resolves, all handles are gone, or nobody receives any more.
    pub async fn run(mut self, mut ends: Ends) {
        let mut announce = Throttle::new(ANNOUNCE_SPACING);
        let mut look = Throttle::new(LOOK_SPACING.max(self.identity.interval / 10));
        let pulse_spacing = self.identity.interval / PULSES;
        let mut announcer_runs = true;
        let mut started = Instant::now();
        let (mut looked, mut breath) = (started, Duration::ZERO);
        let mut pulse: Option<Instant> = None;
        let mut died = Box::pin(self.member.died());
        let mut pushes = Vec::with_capacity(PUSHES_AT_ONCE);
        announce.request(started);
        look.request(started);

        loop {
            let idle = looked + self.rest;
            // Heartbeats tell of no change, so they are none of the throttle's. A look that it has put off sees them as well.
            let pulse_due = pulse.filter(|_| look.due().is_none());
            let look_due = look.due().map(|due| due.max(looked + breath));
            let due = [announce.due(), look_due, pulse_due].into_iter().flatten().fold(idle, Instant::min);
            let wake = tokio::select! {
                _ = &mut ends.stop => Wake::Stop,
                () = &mut died => Wake::Died,
                command = ends.commands.recv() => command.map_or(Wake::Stop, Wake::Command),
                changed = ends.announcement.changed(), if announcer_runs => match changed {
                    Ok(()) => Wake::Announced,
                    Err(_) => Wake::AnnouncerGone,
                },
                taken = ends.pushes.recv_many(&mut pushes, PUSHES_AT_ONCE) => match taken {
                    0 => Wake::Stop, // The receiver is gone.
                    _ => Wake::Pushes,
                },
                () = self.member.changed() => Wake::Changed,
                () = self.socket.stepped() => Wake::Stepped,
                () = sleep_until(due) => Wake::Due,
            };
            let now = Instant::now();
            match wake {
                Wake::Stop => return,
                Wake::Announced => announce.request(now),
                Wake::AnnouncerGone => announcer_runs = false,
                Wake::Command(command) => self.obey(command, &mut look, now).await,
                Wake::Pushes => {
                    pushes.drain(..).for_each(|push| self.receive(&push));
                    look.request(now);
                }
                Wake::Changed => look.request(now),
                Wake::Stepped => drop(pulse.get_or_insert(now.max(looked + pulse_spacing))),
                Wake::Due => {}
                Wake::Died => {
                    tokio::select! {
                        _ = &mut ends.stop => return,
                        () = self.restart(now - started) => {}
                    }
                    started = Instant::now();
                    died = Box::pin(self.member.died());
                    announce.request(started);
                    look.request(started);
                }
            }
            let now = Instant::now();
            if announce.take(now) {
                self.said = ends.announcement.borrow_and_update().clone();
                self.announce().await;
                look.request(now);
            }
            let pulses = pulse.is_some_and(|due| due <= now) && look.due().is_none();
            let rested = now >= looked + breath;
            if pulses || now >= looked + self.rest || rested && look.take(now) {
                (looked, pulse) = (now, None);
                self.look(&ends.view).await;
                breath = (now.elapsed() * REST_PER_WORK).min(pulse_spacing);
            }
        }
    }

    async fn obey(&mut self, command: Command, look: &mut Throttle, now: Instant) {
        match command {
            Command::Snapshot(answer) => {
                // Who asked may have given up.
                let _ = answer.send(self.member.snapshot().await);
            }
            Command::Feed(chunks, answer) => {
                let chunks: Result<Vec<_>, _> = chunks.iter().map(|chunk| Chunk::decode(chunk)).collect();
                let fed = match chunks {
                    Ok(chunks) => {
                        self.member.feed(chunks).await;
                        self.sync = SyncState::Synced;
                        look.request(now);
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                let _ = answer.send(fed);
            }
            #[cfg(test)]
            Command::Crash { pause } => {
                self.pause = pause;
                self.member.crash();
            }
        }
    }

    fn receive(&mut self, push: &Push) {
        match self.roster.receive(push) {
            Some(Fit::Gap) | None if fastrand::usize(..=self.roster.len()) <= ASKERS => {
                self.ask.insert(push.id.gossip_advertise_addr);
            }
            Some(_) | None => {}
        }
    }

    async fn announce(&mut self) {
        let Written { after, upto, changes, refused } = self.member.write(&self.said).await;
        for key in refused.difference(&self.refused) {
            error!(key, "cannot announce: the key or its value is too large");
            self.counters.count(Reason::Oversize);
        }
        self.refused = refused;
        if changes.is_empty() {
            return;
        }
        let push = Push { id: self.member.id().clone(), after, upto, whole: true, changes };
        let peers = self.roster.peers();
        for message in push.messages() {
            self.socket.send(&peers, Kind::Push, &message).await;
        }
    }

    /// Looks at what all say, and shows it if it has changed.
    pub async fn look(&mut self, view: &watch::Sender<Arc<View>>) {
        std::mem::take(&mut self.ask).into_iter().for_each(|peer| self.member.greet(peer));

        let now = self.clock.advance(std::time::Instant::now());
        let roster = &mut self.roster;
        let look = self.member.look(|states, heard| roster.look(states, heard, now)).await;
        self.socket.note_known(self.roster.len());
        look.events.iter().for_each(log);

        let deadline = self.roster.next_deadline(now);
        self.rest = deadline.map_or(self.idle, |deadline| self.idle.min(deadline - now));

        if self.sync != SyncState::Synced {
            self.sync = self.sync.step(self.roster.census(), now, self.identity.interval * 2);
        }
        let synced = self.sync == SyncState::Synced;
        if look.changed || synced != view.borrow().synced {
            view.send_replace(Arc::new(View { synced, hosts: self.roster.hosts(), selves: self.roster.selves() }));
        }
    }

    /// Goes on as a new incarnation that says the same and knows what the last one knew.
    async fn restart(&mut self, lasted: Duration) {
        if lasted > GOOD_RUN {
            self.pause = RESTART_PAUSE.0;
        }
        let known = self.member.snapshot().await;
        loop {
            warn!(pause = ?self.pause, "gossip has ended: restarting it as a new incarnation");
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(RESTART_PAUSE.1);
            let carried = known.iter().filter_map(|chunk| Chunk::decode(chunk).ok()).collect();
            let generation = self.generations.next();
            let socket = Arc::clone(&self.socket);
            match Member::start(&self.identity, generation, socket, &self.said, carried).await {
                Ok(member) => {
                    let now = self.clock.advance(std::time::Instant::now());
                    self.roster.start_over(member.id().clone(), now);
                    self.member = member;
                    return;
                }
                Err(error) => warn!(error, "gossip does not start"),
            }
        }
    }
}

fn log(event: &Event) {
    match event {
        Event::Appeared { node, addr } => info!(host = %node, %addr, "host appeared"),
        Event::Gone { node } => info!(host = %node, "host gone"),
        Event::Back { node } => info!(host = %node, "host back"),
        Event::Rival { addr } => {
            warn!(%addr, "another process uses this host's id: was its state copied to a second machine?");
        }
    }
}
