//! chitchat's wire format, from the published crate.
//!
//! chitchat lets others bring their own transport, but since 0.12 keeps the (de)serialization of its envelopes to itself
//! (<https://github.com/quickwit-oss/chitchat/issues/207>). Its own UDP socket has both, so one is used as the codec, over loopback:
//! what it sends to a socket next to it is the encoding of an envelope, what that socket sends to it comes out decoded.
//! Loopback delivers within the call of `send`, so this costs two system calls and no waiting.
//!
//! Owns two sockets on 127.0.0.1, which accept nothing but each other's datagrams. Never judges what a message says.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chitchat::ChitchatEnvelope;
use chitchat::transport::{Socket, UdpSocket as ChitchatSocket};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::counters::Reason;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Bytes of the largest message that chitchat can encode: one UDP datagram over IPv4.
pub(crate) const MAX_ENCODED: usize = 65_507;
/// Loopback answers at once, unless a local process floods the port.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The encoding of an acknowledgement without changes, which ends most exchanges: magic, format V1, its kind, an empty stream.
pub(crate) const NOTHING_MORE: [u8; 5] = [0x53, 0xb0, 1, 2, 0];

/// Turns envelopes into bytes and back.
pub(crate) struct Codec {
    chitchat: ChitchatSocket,
    helper: UdpSocket,
    helper_addr: SocketAddr,
    buffer: Box<[u8]>,
}

impl Codec {
    /// Opens the two sockets.
    ///
    /// # Errors
    ///
    /// If 127.0.0.1 cannot be bound: the loopback interface of this network namespace is down.
    pub async fn open() -> io::Result<Self> {
        let helper = UdpSocket::bind(ANY_PORT).await?;
        let chitchat = ChitchatSocket::open(ANY_PORT).await.map_err(io::Error::other)?;
        let chitchat_addr = chitchat.local_addr().map_err(io::Error::other)?;
        let helper_addr = helper.local_addr()?;
        // From now on the kernel drops what others send to the helper.
        helper.connect(chitchat_addr).await?;
        Ok(Self { chitchat, helper, helper_addr, buffer: vec![0; MAX_ENCODED].into() })
    }

    /// The bytes of `envelope`.
    ///
    /// # Errors
    ///
    /// [`Reason::Oversize`] if it does not fit into a datagram, [`Reason::Codec`].
    pub async fn encode(&mut self, envelope: ChitchatEnvelope) -> Result<&[u8], Reason> {
        self.chitchat.send(self.helper_addr, envelope).await.map_err(|_| Reason::Oversize)?;
        match timeout(TIMEOUT, self.helper.recv(&mut self.buffer)).await {
            Ok(Ok(length)) => Ok(&self.buffer[..length]),
            Ok(Err(_)) | Err(_) => {
                self.reopen().await;
                Err(Reason::Codec)
            }
        }
    }

    /// The envelope that `bytes` stand for; they must have passed [`crate::transport::inspect::inspect`], or there is no answer.
    ///
    /// # Errors
    ///
    /// [`Reason::Codec`].
    pub async fn decode(&mut self, bytes: &[u8]) -> Result<ChitchatEnvelope, Reason> {
        let sent = self.helper.send(bytes).await;
        let helper = self.helper_addr;
        let answer = async {
            loop {
                match self.chitchat.recv().await {
                    Ok(received) if received.from_addr == helper => return Some(received.envelope),
                    Ok(_stranger) => {}
                    Err(_) => return None,
                }
            }
        };
        match (sent, timeout(TIMEOUT, answer).await) {
            (Ok(_), Ok(Some(envelope))) => Ok(envelope),
            _ => {
                // An answer that comes late would be taken for the next one.
                self.reopen().await;
                Err(Reason::Codec)
            }
        }
    }

    async fn reopen(&mut self) {
        if let Ok(fresh) = Self::open().await {
            *self = fresh;
        }
    }

    #[cfg(test)]
    fn addr(&self) -> SocketAddr {
        self.chitchat.local_addr().expect("bound")
    }
}

#[cfg(test)]
mod tests;
