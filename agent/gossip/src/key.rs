//! The cluster key: the one secret that makes a host a member. Owns its text form; reads and writes no file.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::rand::{SecureRandom, SystemRandom};

/// Length of the secret: 256 bits.
pub const KEY_BYTES: usize = 32;

/// The secret that all hosts of a cluster share.
///
/// `Display` is the text to store (standard base64, 44 characters): it *is* the secret. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

/// Why a text is not a cluster key. No variant carries any of the text, since it may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing but white space.
    #[error("the cluster key is empty: expected one line of base64, as `overlayctl cluster keygen` prints it")]
    Empty,
    /// Further text after the first line.
    #[error("the cluster key has {lines} lines: expected one line of base64, as `overlayctl cluster keygen` prints it")]
    Lines {
        /// Lines that are not blank.
        lines: usize,
    },
    /// Not standard base64 with padding (RFC 4648, section 4).
    #[error("the cluster key is not base64: expected one line, as `overlayctl cluster keygen` prints it")]
    NotBase64,
    /// Fewer bytes than a key has.
    #[error("the cluster key is too short: {bytes} bytes, expected {KEY_BYTES}")]
    TooShort {
        /// Bytes that the text stands for.
        bytes: usize,
    },
    /// More bytes than a key has.
    #[error("the cluster key is too long: {bytes} bytes, expected {KEY_BYTES}")]
    TooLong {
        /// Bytes that the text stands for.
        bytes: usize,
    },
    /// The system gave no random bytes.
    #[error("cannot make a cluster key: the system gave no random bytes")]
    NoRandomness,
}

impl ClusterKey {
    /// A new random key.
    ///
    /// # Errors
    ///
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// The key that `text` stands for: one line of base64, white space around it allowed.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.next().ok_or(KeyError::Empty)?;
        match lines.count() {
            0 => {}
            more => return Err(KeyError::Lines { lines: 1 + more }),
        }
        let bytes = BASE64_STANDARD.decode(line).map_err(|_| KeyError::NotBase64)?;
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| match length < KEY_BYTES {
            true => KeyError::TooShort { bytes: length },
            false => KeyError::TooLong { bytes: length },
        })
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

#[cfg(test)]
mod tests;
