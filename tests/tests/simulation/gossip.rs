//! What hosts have heard of each other, and how it gets round: in pairs, at random, both ways.

use std::sync::Arc;

use overlay::cluster::presence::liveness;
use overlay::ledger::Millis;
use overlay::model::host::Liveness;
use overlay::model::id::HostId;
use overlay::model::record::Record;

/// Between two rounds of gossip.
pub const INTERVAL: Millis = 250;

/// The number of an identity, from 0: whoever starts over as another host gets the next one.
pub type Slot = usize;

/// What a host says of itself.
#[derive(Debug, Clone)]
pub struct News {
    pub id: HostId,
    pub generation: u64,
    pub version: u64,
    pub record: Arc<Record>,
}

impl News {
    pub fn age(&self) -> (u64, u64) {
        (self.generation, self.version)
    }
}

/// What one host has heard of all others. By number and not by identity: a thousand hosts compare a thousand of them
/// some ten thousand times a second.
#[derive(Debug)]
pub struct Heard {
    me: Slot,
    news: Vec<Option<News>>,
    /// When each said last that it is alive.
    beats: Vec<Millis>,
}

/// What one host tells another.
pub struct Letter {
    pub news: Vec<(Slot, News)>,
    beats: Vec<Millis>,
}

impl Heard {
    pub fn nothing(me: Slot) -> Self {
        Self { me, news: Vec::new(), beats: Vec::new() }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &News, Millis)> {
        let of = |(slot, news): (Slot, &'_ Option<News>)| news.is_some().then_some(slot);
        let heard = self.news.iter().enumerate().filter_map(of);
        heard.filter_map(|slot| Some((slot, self.news[slot].as_ref()?, self.beats[slot])))
    }

    /// What `other` does not know yet, told by the host that says `own` of itself; and what is said of `other` itself.
    pub fn letter(&self, own: &News, other: &Self, now: Millis) -> Letter {
        let mut beats = self.beats.clone();
        put(&mut beats, self.me, now);
        let mine = std::iter::once((self.me, own));
        let known = |slot: Slot| other.news.get(slot).and_then(Option::as_ref).map(News::age);
        let all = self.iter().map(|(slot, news, _)| (slot, news)).chain(mine);
        let news = all.filter(|(slot, news)| *slot == other.me || known(*slot) < Some(news.age()));
        Letter { news: news.map(|(slot, news)| (slot, news.clone())).collect(), beats }
    }

    /// The higher version of each counts, so it does not matter how often or in which order letters come.
    pub fn take(&mut self, letter: Letter) {
        for (slot, news) in letter.news.into_iter().filter(|(slot, _)| *slot != self.me) {
            if self.news.get(slot).and_then(Option::as_ref).is_none_or(|known| known.age() < news.age()) {
                put(&mut self.news, slot, Some(news));
            }
        }
        let len = self.beats.len().max(letter.beats.len()).max(self.news.len());
        self.beats.resize(len, 0);
        for (known, beat) in self.beats.iter_mut().zip(letter.beats) {
            *known = beat.max(*known);
        }
    }
}

/// In a list by number.
pub fn put<T: Default + Clone>(all: &mut Vec<T>, slot: Slot, value: T) {
    if all.len() <= slot {
        all.resize(slot + 1, T::default());
    }
    all[slot] = value;
}

/// What silence means. Up to a dozen hosts these are the agent's times; here, where each tells only a few, word of a
/// host takes one round more to get round with each doubling.
#[derive(Debug, Clone, Copy)]
pub struct Detector {
    suspect: Millis,
    dead: Millis,
}

impl Detector {
    pub fn of(hosts: usize) -> Self {
        let suspect = 750 + INTERVAL * u64::from(hosts.div_ceil(12).max(1).ilog2());
        Self { suspect, dead: 2 * suspect }
    }

    /// Of a host whose last beat was at `beat`, to one whose agent has started at `started`.
    pub fn judge(self, (beat, started): (Millis, Millis), now: Millis, answers: impl FnOnce() -> bool) -> Liveness {
        let silent = now - beat.max(started);
        let agent = match silent {
            _ if beat < started && silent < self.dead => Liveness::Suspect,
            _ if silent < self.suspect => Liveness::Live,
            _ if silent < self.dead => Liveness::Suspect,
            _ => Liveness::Dead,
        };
        liveness(agent, agent == Liveness::Dead && !answers())
    }
}
