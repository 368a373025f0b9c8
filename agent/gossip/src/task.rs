//! The gossip task: writes what this host announces into chitchat, pushes it to the peers, and joins what comes from both into the view.
//!
//! It runs on an OS thread of its own with a runtime of its own, next to the socket and chitchat. So no other work of the daemon can
//! keep this host from being heard, or from hearing. It waits for the disk only before it starts anew as another incarnation.

pub(crate) mod look_schedule;
pub(crate) mod sync;
pub(crate) mod throttle;
pub(crate) mod token_bucket;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::ChitchatId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use crate::counters::{Counters, Reason};
use crate::incarnation::announce::{Announcement, Written};
use crate::incarnation::snapshot::{Chunk, SnapshotError};
use crate::incarnation::{Member, NodeIdentity};
use crate::limits::Limit;
use crate::push::Push;
use crate::roster::liveness::AttendedClock;
use crate::roster::merge::Fit;
use crate::roster::{Event, Roster};
use crate::task::look_schedule::{LOOK_REFILL, LookSchedule};
use crate::task::sync::SyncState;
use crate::task::throttle::Throttle;
use crate::task::token_bucket::TokenBucket;
use crate::transport::{GossipSocket, Kind};
use crate::{Generations, View};

/// Announcements that can follow each other at once. A single change, or a short row of them, is pushed without a wait.
const ANNOUNCE_BURST: u32 = 8;
/// Over time there is at most one announcement per this time. Changes that come meanwhile are pushed together.
const ANNOUNCE_REFILL: Duration = Duration::from_millis(25);
/// Pushes that are taken in one go.
const PUSHES_AT_ONCE: usize = 256;
/// When all hosts miss the same change of one host, about this many of them ask that host for it. All hosts miss the first announcement
/// of a new host: if all of them asked, a new host in a cluster of a thousand would get a thousand questions at once. The next round
/// of gossip brings the change to the hosts that do not ask.
const ASKERS: usize = 16;
/// Between the end of chitchat and its restart: at first, and at most if it ends again and again.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// After a run of chitchat that was longer than this, the pause before the restart is short again.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Commands that wait for the task. A caller waits while the queue is full, as it then waits for its answer.
pub(crate) const COMMANDS: usize = 16;

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
    pub commands: mpsc::Receiver<Command>,
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
    announced: Announcement,
    refused: BTreeSet<String>,
    /// The longest time between two looks. A round of gossip is shorter, and causes a look.
    longest_idle: Duration,
    /// The time until the next look if nothing happens: less if a silent host is to be judged anew before.
    idle: Duration,
    /// Peers that have changes that this host misses.
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
    /// A task for `member`, which has announced `announced`.
    pub fn new(
        identity: NodeIdentity,
        generations: Box<dyn Generations + Send>,
        (socket, counters): (Arc<GossipSocket>, Arc<Counters>),
        (member, roster): (Member, Roster),
        announced: Announcement,
    ) -> Self {
        let sync = match identity.seeds.is_empty() {
            true => SyncState::Synced,
            false => SyncState::Alone,
        };
        let idle = identity.interval + LOOK_REFILL;
        Self {
            roster,
            longest_idle: idle,
            idle,
            clock: AttendedClock::new(std::time::Instant::now(), idle),
            identity,
            generations,
            socket,
            counters,
            member,
            sync,
            announced,
            refused: BTreeSet::new(),
            ask: BTreeSet::new(),
            pause: RESTART_PAUSE.0,
        }
    }

    /// Runs until `ends.stop` resolves, all handles are gone, or the receiver of datagrams has ended.
    pub async fn run(mut self, mut ends: Ends) {
        let mut started = Instant::now();
        let mut announcements = Throttle::new(TokenBucket::new(ANNOUNCE_BURST, ANNOUNCE_REFILL, started));
        let mut looks = LookSchedule::new(self.identity.interval, started);
        let mut announcer_runs = true;
        let mut died = Box::pin(self.member.died());
        let mut pushes = Vec::with_capacity(PUSHES_AT_ONCE);
        announcements.request(started);
        looks.note_change(started);

        loop {
            let look_due = looks.due(self.idle);
            let due = announcements.due().map_or(look_due, |due| due.min(look_due));
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
                Wake::Announced => announcements.request(now),
                Wake::AnnouncerGone => announcer_runs = false,
                Wake::Command(command) => {
                    if self.obey(command).await {
                        looks.note_change(now);
                    }
                }
                Wake::Pushes => {
                    pushes.drain(..).for_each(|push| self.receive(&push));
                    looks.note_change(now);
                }
                Wake::Changed => looks.note_change(now),
                Wake::Stepped => looks.note_heartbeats(now),
                Wake::Due => {}
                Wake::Died => {
                    tokio::select! {
                        _ = &mut ends.stop => return,
                        () = self.restart(now - started) => {}
                    }
                    started = Instant::now();
                    died = Box::pin(self.member.died());
                    announcements.request(started);
                    looks.note_change(started);
                }
            }
            let now = Instant::now();
            if announcements.take(now) {
                self.announced = ends.announcement.borrow_and_update().clone();
                self.announce().await;
                looks.note_change(now);
            }
            if looks.take(self.idle, now) {
                self.look(&ends.view).await;
                looks.note_work(now.elapsed());
            }
        }
    }

    /// Does what was asked for; says whether chitchat's states may have changed.
    async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Snapshot(answer) => {
                let now = self.clock.advance(std::time::Instant::now());
                let silence = |id: &ChitchatId| self.roster.silence(id, now);
                // The caller may have given up.
                let _ = answer.send(self.member.snapshot(silence, self.identity.remembered).await);
                false
            }
            Command::Feed(chunks, answer) => {
                let chunks: Result<Vec<_>, _> = chunks.iter().map(|chunk| Chunk::decode(chunk)).collect();
                let fed = match chunks {
                    Ok(chunks) => {
                        let now = self.clock.advance(std::time::Instant::now());
                        let told = chunks.iter().map(Chunk::silence).map(|(id, silent)| (id.clone(), silent));
                        self.roster.note_silence(told.collect(), now);
                        self.member.feed(chunks).await;
                        self.sync = SyncState::Synced;
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                let is_fed = fed.is_ok();
                let _ = answer.send(fed);
                is_fed
            }
            #[cfg(test)]
            Command::Crash { pause } => {
                self.pause = pause;
                self.member.crash();
                false
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
        let largest = self.announced.values().map(String::len).max();
        self.counters.note_use(Limit::Value, largest.unwrap_or_default());
        let Written { after, upto, changes, refused } = self.member.write(&self.announced).await;
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

    /// Looks at chitchat's states, and shows them in the view if they have changed.
    pub async fn look(&mut self, view: &watch::Sender<Arc<View>>) {
        std::mem::take(&mut self.ask).into_iter().for_each(|peer| self.member.greet(peer));

        let now = self.clock.advance(std::time::Instant::now());
        let roster = &mut self.roster;
        let look = self.member.look(|states, heard| roster.look(states, heard, now)).await;
        self.counters.note_use(Limit::Incarnations, self.roster.len());
        look.events.iter().for_each(log);
        self.socket.note_standings(self.roster.standings(now, self.identity.named()));

        let deadline = self.roster.next_deadline(now);
        self.idle = deadline.map_or(self.longest_idle, |deadline| self.longest_idle.min(deadline - now));

        if self.sync != SyncState::Synced {
            self.sync = self.sync.step(self.roster.census(), now, self.identity.interval * 2);
        }
        let synced = self.sync == SyncState::Synced;
        if look.changed || synced != view.borrow().synced {
            view.send_replace(Arc::new(View { synced, hosts: self.roster.hosts(), selves: self.roster.selves() }));
        }
    }

    /// Starts chitchat again as a new incarnation, which announces the same and knows what the last one knew.
    async fn restart(&mut self, lasted: Duration) {
        if lasted > GOOD_RUN {
            self.pause = RESTART_PAUSE.0;
        }
        // The roster stays, and knows how long each incarnation is silent.
        let known = self.member.snapshot(|_| Duration::ZERO, Duration::MAX).await;
        loop {
            warn!(pause = ?self.pause, "gossip has ended: restarting it as a new incarnation");
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(RESTART_PAUSE.1);
            let carried = known.iter().filter_map(|chunk| Chunk::decode(chunk).ok()).collect();
            let generation = self.generations.next();
            let socket = Arc::clone(&self.socket);
            match Member::start(&self.identity, generation, socket, &self.announced, carried).await {
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
