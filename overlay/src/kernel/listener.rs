//! A socket on which the kernel tells of changes.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::libc::{ENOBUFS, MSG_DONTWAIT};

use super::netns::{Netns, NetnsError};

/// Bytes: a flush of many thousand rows is one message each.
const RECEIVE_BUFFER: u32 = 4 << 20;
/// Bytes of the longest message.
const MESSAGE: usize = 64 * 1024;
/// A look reads at most this many messages, so that a container that makes messages all the time can't keep it from its end.
const MOST_AT_ONCE: usize = 65_536;

/// What is done with each message; `None` stands for any number of messages that were lost.
type Tell = Box<dyn FnMut(Option<&[u8]>) + Send>;

/// The socket. Two may read from it: the task that waits for messages, and a look that has to know of all of them.
pub(super) struct Listener {
    socket: TokioSocket,
    /// Reading and telling are one step, so that messages are told in their order.
    reader: Mutex<Reader>,
}

struct Reader {
    message: Vec<u8>,
    /// Messages were lost, and the queue was not empty since.
    is_losing: bool,
    tell: Tell,
}

impl Listener {
    /// Listens to these groups of the protocol in a namespace.
    pub(super) fn open(netns: &Netns, protocol: isize, groups: u32, tell: Tell) -> Result<Arc<Self>, NetnsError> {
        let runtime = tokio::runtime::Handle::current();
        let made = netns.run(|| -> io::Result<TokioSocket> {
            let _guard = runtime.enter();
            let mut socket = TokioSocket::new(protocol)?;
            // Capped by net.core.rmem_max; less only means more overruns.
            socket.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
            socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
            Ok(socket)
        })?;
        let socket = made.map_err(|source| NetnsError::Refused { path: netns.path().to_owned(), source })?;
        Ok(Arc::new(Self {
            socket,
            reader: Mutex::new(Reader { message: Vec::with_capacity(MESSAGE), is_losing: false, tell }),
        }))
    }

    /// Tells of all changes that were made until now: the kernel queues its message before it answers the one who made the change.
    /// If there are very many, the rest is told of as lost.
    ///
    /// # Errors
    /// When the socket is of no more use.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        let mut reader = self.reader();
        for _ in 0..MOST_AT_ONCE {
            reader.message.clear();
            match self.socket.socket_ref().recv(&mut reader.message, MSG_DONTWAIT) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    reader.queue_is_empty();
                    return Ok(());
                }
                received => reader.tell(received.map(drop))?,
            }
        }
        (reader.tell)(None);
        Ok(())
    }

    /// Tells of changes as they come, until the socket is of no more use.
    pub(super) async fn follow(self: Arc<Self>) {
        let next = || {
            poll_fn(|context| {
                let mut reader = self.reader();
                reader.message.clear();
                let Poll::Ready(received) = self.socket.poll_recv(context, &mut reader.message) else {
                    reader.queue_is_empty();
                    return Poll::Pending;
                };
                Poll::Ready(reader.tell(received))
            })
        };
        while next().await.is_ok() {}
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Tells of the message that was received.
    fn tell(&mut self, received: io::Result<()>) -> io::Result<()> {
        match received {
            Ok(()) => (self.tell)(Some(&self.message)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                (self.tell)(None);
                if error.raw_os_error() != Some(ENOBUFS) {
                    return Err(error);
                }
                self.is_losing = true;
            }
        }
        Ok(())
    }

    /// From its error on, the kernel drops messages without another error until the queue is empty (`netlink_overrun` in Linux).
    fn queue_is_empty(&mut self) {
        if std::mem::take(&mut self.is_losing) {
            (self.tell)(None);
        }
    }
}
