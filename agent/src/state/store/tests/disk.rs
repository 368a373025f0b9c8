//! A disk that remembers what was written to it in which order, and what it may hold after its power was cut.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use redb::StorageBackend;

/// What was done to the disk.
#[derive(Debug, Clone)]
enum Op {
    Write(usize, Vec<u8>),
    Len(usize),
    Sync,
}

#[derive(Debug, Default)]
struct Surface {
    before: Vec<u8>,
    bytes: Vec<u8>,
    log: Vec<Op>,
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Surface>>);

/// What becomes of the writes that no sync came after.
#[derive(Debug)]
pub(super) enum Fate {
    /// The daemon was killed: the kernel still writes all of them.
    Killed,
    /// The power failed before any of them was on the disk.
    AllLost,
    /// The power failed when some of them were there, in any order, and halves of others.
    SomeLost(Rng),
}

impl Disk {
    /// A disk with this on it, of which nothing is remembered yet.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Surface { before: bytes.clone(), bytes, log: Vec::new() })))
    }

    fn surface(&self) -> MutexGuard<'_, Surface> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, op: Op) {
        let mut surface = self.surface();
        Fate::Killed.befall(&op, &mut surface.bytes);
        surface.log.push(op);
    }

    /// What is on it while it has power.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.surface().bytes.clone()
    }

    /// How much it remembers.
    pub(super) fn done(&self) -> usize {
        self.surface().log.len()
    }

    /// What a daemon finds that is started again. If only the last one was killed, and the power did not fail, what it wrote
    /// and did not sync can still be lost.
    pub(super) fn left(&self, after: usize, fate: &mut Fate) -> Self {
        let bytes = self.cut(after, fate);
        match fate {
            Fate::Killed => {
                let surface = self.surface();
                let (before, log) = (surface.before.clone(), surface.log[..after].to_vec());
                Self(Arc::new(Mutex::new(Surface { before, bytes, log })))
            }
            Fate::AllLost | Fate::SomeLost(_) => Self::holding(bytes),
        }
    }

    /// What is on it if its power is cut after so many of the things that were done to it.
    pub(super) fn cut(&self, after: usize, fate: &mut Fate) -> Vec<u8> {
        let surface = self.surface();
        let log = &surface.log[..after];
        let synced = log.iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
        let mut bytes = surface.before.clone();
        for (at, op) in log.iter().enumerate() {
            if at < synced {
                Fate::Killed.befall(op, &mut bytes);
            } else {
                fate.befall(op, &mut bytes);
            }
        }
        bytes
    }
}

impl Fate {
    fn befall(&mut self, op: &Op, bytes: &mut Vec<u8>) {
        match op {
            Op::Sync => {}
            Op::Len(len) => {
                let survives = match self {
                    Self::Killed => true,
                    Self::AllLost => false,
                    Self::SomeLost(random) => random.bool(),
                };
                if survives {
                    bytes.resize(*len, 0);
                }
            }
            Op::Write(at, data) => {
                let part = self.part(data.len());
                if !part.is_empty() && bytes.len() < at + part.end {
                    bytes.resize(at + part.end, 0);
                }
                if !part.is_empty() {
                    bytes[at + part.start..at + part.end].copy_from_slice(&data[part]);
                }
            }
        }
    }

    /// What is left of a write of that length.
    fn part(&mut self, len: usize) -> Range<usize> {
        match self {
            Self::Killed => 0..len,
            Self::AllLost => 0..0,
            Self::SomeLost(random) => match random.u8(0..6) {
                0 | 1 => 0..0,
                2 => 0..random.usize(0..=len),
                3 => random.usize(0..=len)..len,
                _ => 0..len,
            },
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.surface().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let surface = self.surface();
        let there = surface.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.note(Op::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.note(Op::Write(at, data.to_vec()));
        Ok(())
    }
}
