//! Seals datagrams: AES-256-GCM (RFC 5116) under a key of the sender's session, derived by HKDF-SHA256 (RFC 5869) from the cluster key.
//!
//! A session's key is used by one process only, so a counter is enough to never repeat a nonce, and nothing needs to be kept on disk.
//! What a receiver has opened it does not open again, as long as it remembers the session (the last [`MAX_SESSIONS`]); whatever a
//! replay could bring after that is older than what gossip already has, and gossip keeps the newer.
//!
//! Owns keys, sessions and replay windows; touches no socket and knows nothing of what the datagrams say.

use std::collections::HashMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use crate::counters::Reason;
use crate::key::ClusterKey;
use crate::limits::MAX_SESSIONS;
use crate::transport::datagram::{FragmentIndex, HEADER, Session, TAG};
use crate::transport::fragment;
use crate::transport::replay::ReplayWindow;

const MAGIC: &[u8; 3] = b"ovg";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"overlay gossip datagram v1 aes-256-gcm";

/// Seals what this process sends.
pub(crate) struct Sealer {
    key: LessSafeKey,
    session: Session,
    next: u64,
}

impl Sealer {
    /// A new session under `key`; `None` if the system gives no random bytes.
    pub fn new(key: &ClusterKey) -> Option<Self> {
        let mut session = Session::default();
        SystemRandom::new().fill(&mut session).ok()?;
        Some(Self { key: session_key(key, &session)?, session, next: 1 })
    }

    pub fn session(&self) -> Session {
        self.session
    }

    /// The datagrams that carry `message`.
    ///
    /// # Errors
    ///
    /// [`Reason::Oversize`] if it is empty or larger than [`fragment::MAX_MESSAGE`].
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, Reason> {
        fragment::split(message)?.map(|(index, part)| self.seal_part(index, part)).collect()
    }

    fn seal_part(&mut self, index: FragmentIndex, part: &[u8]) -> Result<Vec<u8>, Reason> {
        let counter = self.next;
        self.next = counter.checked_add(1).ok_or(Reason::Oversize)?;

        let mut datagram = Vec::with_capacity(HEADER + part.len() + TAG);
        datagram.extend_from_slice(MAGIC);
        datagram.push(VERSION);
        datagram.extend_from_slice(&self.session);
        datagram.extend_from_slice(&counter.to_be_bytes());
        datagram.extend_from_slice(&[index.index, index.count]);
        let header = Aad::from(<[u8; HEADER]>::try_from(datagram.as_slice()).map_err(|_| Reason::Oversize)?);
        let mut body = part.to_vec();
        self.key.seal_in_place_append_tag(nonce(counter), header, &mut body).map_err(|_| Reason::Oversize)?;
        datagram.append(&mut body);
        Ok(datagram)
    }
}

/// A datagram whose seal was good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    pub session: Session,
    pub counter: u64,
    pub index: FragmentIndex,
    pub part: &'a [u8],
}

/// Opens what others of the cluster send.
pub(crate) struct Opener {
    key: ClusterKey,
    own: Session,
    sessions: HashMap<Session, Peer>,
    clock: u64,
}

struct Peer {
    key: LessSafeKey,
    window: ReplayWindow,
    used: u64,
}

impl Opener {
    /// Opens datagrams sealed under `key` by any session but `own`.
    pub fn new(key: ClusterKey, own: Session) -> Self {
        Self { key, own, sessions: HashMap::new(), clock: 0 }
    }

    /// Opens `datagram` in place.
    ///
    /// # Errors
    ///
    /// Why it is to be dropped. A datagram of another program costs a comparison. One that imitates the header costs a key derivation
    /// and leaves nothing behind.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Opened<'a>, Reason> {
        if !datagram.starts_with(MAGIC) {
            return Err(Reason::NotOurs);
        }
        if datagram.get(MAGIC.len()) != Some(&VERSION) {
            return Err(Reason::BadVersion);
        }
        let (header, body) = datagram.split_first_chunk_mut::<HEADER>().ok_or(Reason::Malformed)?;
        let header = *header;
        let session: Session = header[4..20].try_into().map_err(|_| Reason::Malformed)?;
        let counter = header[20..28].try_into().map(u64::from_be_bytes).map_err(|_| Reason::Malformed)?;
        let index = FragmentIndex { index: header[28], count: header[29] };
        if session == self.own {
            return Err(Reason::Reflected);
        }

        let part = match self.sessions.get_mut(&session) {
            Some(peer) => {
                if !peer.window.is_new(counter) {
                    return Err(Reason::Replayed);
                }
                let part = open_body(&peer.key, counter, header, body)?;
                self.clock += 1;
                peer.used = self.clock;
                peer.window.mark(counter);
                part
            }
            None => {
                let key = session_key(&self.key, &session).ok_or(Reason::BadSeal)?;
                let part = open_body(&key, counter, header, body)?;
                self.remember(session, key, counter)?;
                part
            }
        };
        Ok(Opened { session, counter, index, part })
    }

    fn remember(&mut self, session: Session, key: LessSafeKey, counter: u64) -> Result<(), Reason> {
        let mut window = ReplayWindow::new();
        if !window.is_new(counter) {
            return Err(Reason::Malformed);
        }
        window.mark(counter);
        if self.sessions.len() >= MAX_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, peer)| peer.used).map(|(session, _)| *session);
            oldest.map(|session| self.sessions.remove(&session));
        }
        self.clock += 1;
        self.sessions.insert(session, Peer { key, window, used: self.clock });
        Ok(())
    }
}

fn open_body<'a>(
    key: &LessSafeKey,
    counter: u64,
    header: [u8; HEADER],
    body: &'a mut [u8],
) -> Result<&'a [u8], Reason> {
    key.open_in_place(nonce(counter), Aad::from(header), body).map(|part| &*part).map_err(|_| Reason::BadSeal)
}

fn session_key(key: &ClusterKey, session: &Session) -> Option<LessSafeKey> {
    let secret = Salt::new(HKDF_SHA256, session).extract(key.secret());
    let key = secret.expand(&[LABEL], &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests;
