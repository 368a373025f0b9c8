//! What is done to a swarm wave by wave, and what has to be seen of it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::join_all;
use overlay::model::id::{EndpointId, HostId};
use overlay_agent::cluster::ClusterView;
use overlay_gossip::Reason;
use tokio::sync::watch;

use crate::agent::{Door, name};
use crate::crowd::{Born, Crowd, Doors, is_live};
use crate::figures::{Row, Spread, all_see, resident, used};

/// Whatever happens, all see it within so many intervals.
const BOUND: u32 = 10;
/// Waited for, to be able to say how late it was.
const TIMEOUT: u32 = 20;
/// Bytes of a digest: what is left of a datagram has to hold some news.
const MAX_DIGEST: usize = 60_000;
/// Of the pairs of living agents, those of which one may suspect the other at some moment. It is the one after a wave, when up to
/// half of those that each gossips with are dead.
const MAX_SUSPECTED: f64 = 0.03;
/// Agents that get an endpoint and let it go in a wave, while others die and start.
const CHANGES: usize = 4;

/// Intervals until gossip's own detector, which only decides who is remembered, takes all for dead who are: eight times what it
/// has heard in between (phi), which is up to two intervals.
const NOTICED: u32 = 16;
/// Waves whose mean is compared, of the beginning and of the end.
const TOGETHER: usize = 3;

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub agents: usize,
    pub interval: Duration,
    /// Of the agents, the share that is killed in a minute, and replaced.
    pub churn: f64,
    /// From one wave of deaths and births to the next.
    pub wave: Duration,
    pub waves: usize,
    /// How long gossip remembers the dead.
    pub remembered: Duration,
    /// The most by which memory and digest may grow once as many are forgotten as die; `None` if that takes longer than the swarm
    /// lives.
    pub growth: Option<f64>,
    pub seed: u64,
}

/// The life of a swarm.
pub async fn live(plan: Plan) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut crowd = Crowd::new(&plan).await?;
    let homes = crowd.new_homes(plan.agents - 1);
    let born = crowd.start(homes).await?;
    let observers = crowd.observers();
    let within = (Instant::now(), plan.interval * TIMEOUT);
    let all = all_see(&observers, within, |seen| born.iter().all(|b| is_seen(seen, b))).await;
    ensure!(all.lacking == 0, "{} of {} agents do not see all", all.lacking, plan.agents);
    println!("{} agents have started and see each other after {:.1?}", plan.agents, started.elapsed());
    println!("{}", Row::HEADER);
    // Who dies before anybody has heard it twice is given longer.
    tokio::time::sleep(plan.interval * 4).await;

    let mut rows = Vec::new();
    for wave in 1..=plan.waves {
        let (start, before) = (Instant::now(), used());
        let mut row = Row { wave, ..pass(&plan, &mut crowd, start).await? };
        row.took = start.elapsed();
        row.processors = (used() - before).as_secs_f64() / row.took.as_secs_f64();
        row.resident = resident();
        println!("{row}");
        rows.push(row);
    }
    judge(&plan, &rows)
}

fn judge(plan: &Plan, rows: &[Row]) -> anyhow::Result<()> {
    for row in rows {
        let worst = row.change.max(row.death).max(row.birth);
        ensure!(row.lacking == 0 && worst <= f64::from(BOUND), "later than {BOUND} intervals: {row}");
        ensure!(row.digest < MAX_DIGEST, "a digest of {} bytes: {row}", row.digest);
        ensure!(row.took < plan.wave * 2, "too slow a machine for so many who come and go: {row}");
        ensure!(row.suspected < MAX_SUSPECTED * 1e6, "living agents are suspected: {row}");
    }
    plan.growth.map_or(Ok(()), |most| is_flat(plan, rows, most))
}

/// Compares the last waves with the first ones after the first dead are no longer named.
fn is_flat(plan: &Plan, rows: &[Row], most: f64) -> anyhow::Result<()> {
    let named = plan.remembered / 2 + plan.interval * NOTICED;
    let mut began = Duration::ZERO;
    let warm = rows.iter().position(|row| {
        let is_warm = began >= named;
        began += row.took;
        is_warm
    });
    let warm = warm.filter(|warm| warm + 2 * TOGETHER <= rows.len());
    let warm =
        warm.with_context(|| format!("too few waves to tell whether it grows: the dead are named for {named:?}"))?;
    let growth = |of: fn(&Row) -> usize| {
        let sum = |rows: &[Row]| rows.iter().map(of).sum::<usize>() as f64;
        sum(&rows[rows.len() - TOGETHER..]) / sum(&rows[warm..warm + TOGETHER])
    };
    let (memory, digest) = (growth(|row| row.resident), growth(|row| row.digest));
    println!("from wave {} on: memory x {memory:.3}, digest x {digest:.3}", rows[warm].wave);
    ensure!(memory < most && digest < most, "it grows");
    Ok(())
}

/// A wave: some are killed, as many start, half of them where one was killed, and meanwhile others change.
async fn pass(plan: &Plan, crowd: &mut Crowd, start: Instant) -> anyhow::Result<Row> {
    let patience = plan.interval * TIMEOUT;
    let share = plan.churn * plan.wave.as_secs_f64() / 60.0;
    let killed = crowd.kill((plan.agents as f64 * share).round() as usize).await?;
    let at = Instant::now();
    let observers = crowd.observers();
    let (back, gone) = killed.split_at(killed.len() / 2);
    let gone: Vec<HostId> = gone.iter().map(|(id, _)| *id).collect();
    let died = {
        let observers = observers.clone();
        let gone = gone.clone();
        let all_gone = move |seen: &ClusterView| !gone.iter().any(|id| is_live(&seen.cluster, *id));
        tokio::spawn(async move { all_see(&observers, (at, patience), all_gone).await })
    };
    let mut homes: Vec<_> = back.iter().map(|(_, home)| home.clone()).collect();
    homes.extend(crowd.new_homes(gone.len()));

    let changer = Changer { doors: crowd.doors(), patience, network: crowd.network.clone() };
    let changed = tokio::spawn(changer.change(observers, crowd.numbers()));
    let born = crowd.start(homes).await?;

    let observers = Arc::new(crowd.observers());
    let births = born.into_iter().map(|born| tokio::spawn(seen_by_all(Arc::clone(&observers), born, patience)));
    let (births, changed, death) = tokio::join!(join_all(births), changed, died);
    let (mut birth, mut change, death) = (Spread::default(), changed??, death?);
    for spreads in births {
        let (host, endpoints) = spreads?;
        (birth, change) = (birth.and(host), change.and(endpoints));
    }

    let end = start + plan.wave;
    let mut suspected: f64 = crowd.suspected();
    while Instant::now() < end {
        tokio::time::sleep_until((Instant::now() + plan.interval / 2).min(end).into()).await;
        suspected = suspected.max(crowd.suspected());
    }
    let mut dropped = String::new();
    for (reason, count) in crowd.dropped() {
        write!(dropped, "{} {count} ", reason.name())?;
    }
    ensure!(!crowd.dropped().contains_key(&Reason::Overflow), "digests are too large: {dropped}");
    let intervals = |spread: Spread| spread.worst.div_duration_f64(plan.interval);
    Ok(Row {
        living: crowd.agents.len(),
        killed: killed.len(),
        changes: 2 * CHANGES,
        change: intervals(change),
        death: intervals(death),
        birth: intervals(birth),
        lacking: change.lacking + death.lacking + birth.lacking,
        suspected: suspected * 1e6,
        digest: crowd.digest(),
        dropped,
        ..Row::default()
    })
}

fn is_seen(seen: &ClusterView, born: &Born) -> bool {
    // Its own life is the newest there is to itself.
    let is_this_life = seen.cluster.hosts.get(&born.id).is_some_and(|host| host.generation >= born.generation);
    is_this_life && is_live(&seen.cluster, born.id)
}

async fn seen_by_all(
    observers: Arc<Vec<watch::Receiver<ClusterView>>>,
    born: Born,
    patience: Duration,
) -> (Spread, Spread) {
    let host = all_see(&observers, (born.since, patience), |seen| is_seen(seen, &born)).await;
    let endpoints = born.endpoints.iter().map(|(id, since)| {
        let wanted = |seen: &ClusterView| has(seen, *id);
        all_see(&observers, (*since, patience), wanted)
    });
    (host, join_all(endpoints).await.into_iter().fold(Spread::default(), Spread::and))
}

fn has(seen: &ClusterView, endpoint: EndpointId) -> bool {
    seen.cluster.networks.values().any(|network| network.endpoints.contains_key(&endpoint))
}

/// Changes what living agents say.
struct Changer {
    doors: Doors,
    patience: Duration,
    network: overlay::model::network::Network,
}

impl Changer {
    /// Some agents get an endpoint more, all at once, and each lets it go again when all have seen it.
    async fn change(
        self,
        observers: Vec<watch::Receiver<ClusterView>>,
        mut rng: fastrand::Rng,
    ) -> anyhow::Result<Spread> {
        let chosen = rng.choose_multiple(self.doors.values(), CHANGES);
        let changes: Vec<_> = chosen
            .into_iter()
            .map(|door| self.change_one(door, EndpointId::from_bytes(rng.u128(..).to_be_bytes()), &observers))
            .collect();
        join_all(changes).await.into_iter().try_fold(Spread::default(), |spread, one| Ok(spread.and(one?)))
    }

    async fn change_one(
        &self,
        door: &Door,
        id: EndpointId,
        observers: &[watch::Receiver<ClusterView>],
    ) -> anyhow::Result<Spread> {
        let reach = |host| self.doors.get(&host).cloned();
        if door.attach(&self.network, (id, name("more")), reach).await?.is_none() {
            return Ok(Spread::default());
        }
        let attached = all_see(observers, (Instant::now(), self.patience), |seen| has(seen, id)).await;
        door.detach(id).await?;
        Ok(attached.and(all_see(observers, (Instant::now(), self.patience), |seen| !has(seen, id)).await))
    }
}
