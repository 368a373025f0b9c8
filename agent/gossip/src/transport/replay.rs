//! The replay window: which counters of one session were seen, in constant space (as in RFC 4303, section 3.4.3).

/// How far behind the newest datagram another may arrive, in datagrams.
pub(crate) const WINDOW: u64 = 1024;

/// The counters seen in one session. Counters start at 1.
#[derive(Debug, Clone)]
pub(crate) struct ReplayWindow {
    highest: u64,
    // One bit for each of the last `WINDOW` counters, at `counter % WINDOW`.
    seen: [u64; (WINDOW / 64) as usize],
}

impl ReplayWindow {
    pub fn new() -> Self {
        Self { highest: 0, seen: [0; (WINDOW / 64) as usize] }
    }

    /// Whether `counter` was not seen yet, as far as can be told.
    pub fn is_new(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        counter != 0 && self.highest - counter < WINDOW && self.seen[word(counter)] & bit(counter) == 0
    }

    /// Notes that `counter` was seen. To be called only for datagrams whose seal was good.
    pub fn mark(&mut self, counter: u64) {
        if counter > self.highest {
            match counter - self.highest < WINDOW {
                true => (self.highest + 1..=counter).for_each(|passed| self.seen[word(passed)] &= !bit(passed)),
                false => self.seen.fill(0),
            }
            self.highest = counter;
        }
        self.seen[word(counter)] |= bit(counter);
    }
}

const fn word(counter: u64) -> usize {
    ((counter % WINDOW) / 64) as usize
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests;
