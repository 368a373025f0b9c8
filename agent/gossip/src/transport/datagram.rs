//! What a sealed datagram looks like.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..3 | magic | `ovg` |
//! | 3 | version | 1 |
//! | 4..20 | session | random, drawn by the sender's process |
//! | 20..28 | counter | big endian, from 1, never repeated in a session: the nonce |
//! | 28, 29 | fragment index, fragment count | |
//! | 30.. | ciphertext and 16 bytes of tag | the header is authenticated with it |

/// Largest UDP payload that is sent: with room for headers it passes any path of 1,420 bytes and more unfragmented.
pub(crate) const MAX_DATAGRAM: usize = 1372;
/// Bytes before the ciphertext.
pub(crate) const HEADER: usize = 30;
/// Bytes that authenticate it, and the header.
pub(crate) const TAG: usize = 16;
/// Plain bytes in one datagram.
pub(crate) const MAX_PART: usize = MAX_DATAGRAM - HEADER - TAG;

/// The random name of one process's stream of datagrams.
pub(crate) type Session = [u8; 16];

/// Where a part stands in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FragmentIndex {
    pub index: u8,
    pub count: u8,
}
