//! Network namespaces: naming them without doubt, working inside them, keeping our own.
//!
//! Only sockets are made inside a namespace, by a short-lived thread that enters it; they stay in it for good and are
//! used from anywhere. No thread of the runtime ever changes its namespace.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::sys::statfs::{FsType, statfs};
use nix::{getsockopt_impl, sockopt_impl};
use tokio::task::spawn_blocking;

use super::addr;
use super::error::Meaning;
use super::link;
use crate::datapath::desired::Prefixed;
use crate::datapath::kernel_api::Cause;
use crate::model::addr::IfName;
use crate::model::intent::{AtPath, NetnsRef};

sockopt_impl!(
    /// The number of the namespace that a socket is in (Linux 5.14).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The file system that namespaces are files of (`linux/magic.h`).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// The namespace of the thread that opens it; `/proc/self` would be that of the process's first thread.
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// Why a network namespace can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is nothing at the path; perhaps the container has ended.
    #[error("there is no network namespace at {}", path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{} is not a network namespace; name one like /run/netns/NAME or /proc/PID/ns/net", path.display())]
    NotNetns {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is another one than it was.
    #[error("the network namespace at {} is another one than it was: connect the new container again", path.display())]
    Replaced {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// This process may not use it (EACCES, EPERM).
    #[error("overlayd may not use the network namespace at {}: it needs CAP_SYS_ADMIN, and the right to look at its process", path.display())]
    Denied {
        /// Where it is.
        path: PathBuf,
    },
    /// No socket can be bound there: nobody has the address, or somebody uses the port.
    #[error("can't listen on {address} in the network namespace at {}", path.display())]
    Bind {
        /// Where it is.
        path: PathBuf,
        /// What was to be bound.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else that the kernel said.
    #[error("can't use the network namespace at {}", path.display())]
    Refused {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Meaning for NetnsError {
    fn meaning(&self) -> Cause {
        match self {
            Self::NotFound { .. } | Self::NotNetns { .. } | Self::Replaced { .. } => Cause::Gone,
            Self::Denied { .. } => Cause::Denied,
            Self::Bind { source, .. } | Self::Refused { source, .. } => source.meaning(),
        }
    }
}

impl NetnsError {
    fn from_errno(path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR => Self::NotFound { path },
            Errno::EACCES | Errno::EPERM => Self::Denied { path },
            Errno::EINVAL => Self::NotNetns { path },
            other => Self::Refused { path, source: other.into() },
        }
    }

    fn from_io(path: &Path, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::from_errno(path, Errno::from_raw(errno)),
            None => Self::Refused { path: path.to_owned(), source: error },
        }
    }
}

/// An open network namespace: as long as it is open it lives, whatever becomes of its path.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
    cookie: u64,
}

impl Netns {
    /// Opens the namespace at a path.
    ///
    /// # Errors
    /// If there is none, something else, or it can't be entered.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        // Looked at first: merely opening a FIFO or a device may block or do something.
        if !is_nsfs(path).map_err(|errno| NetnsError::from_errno(path, errno))? {
            return Err(NetnsError::NotNetns { path: path.to_owned() });
        }
        let options = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).clone();
        let file = options.open(path).map_err(|error| NetnsError::from_io(path, error))?;
        Self::from_file(path, file)
    }

    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    /// If it can't be opened: `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(OF_THIS_THREAD))
    }

    /// Opens the namespace if it is still the one that was meant.
    ///
    /// # Errors
    /// As [`Netns::open`], and if there is another one at the path.
    pub fn of(netns: &NetnsRef) -> Result<Self, NetnsError> {
        let open = Self::open(&netns.path)?;
        if open.cookie == netns.cookie { Ok(open) } else { Err(NetnsError::Replaced { path: netns.path.clone() }) }
    }

    fn from_file(path: &Path, file: File) -> Result<Self, NetnsError> {
        let cookie = run_in(file.as_fd(), || {
            let probe = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            getsockopt(&probe, NetnsCookie)
        })
        .and_then(|cookie| cookie)
        .map_err(|errno| NetnsError::from_errno(path, errno))?;
        Ok(Self { path: path.to_owned(), file, cookie })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's number for it, never used twice between two boots.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Runs `work` inside, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// If it can't be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        run_in(self.file.as_fd(), work).map_err(|errno| NetnsError::from_errno(&self.path, errno))
    }

    /// Runs `work` inside, off the threads of the runtime.
    ///
    /// # Errors
    /// If it can't be entered.
    pub(super) async fn run_off<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let netns = Arc::clone(self);
        blocking(move || netns.run(work)).await
    }

    /// Is it still what stands at its path? While it is open its inode number belongs to no other.
    pub(super) fn is_in_place(&self) -> bool {
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
            _ => false,
        }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Does `work` off the threads of the runtime, which it would hold up: entering a namespace takes a thread of its own, and the kernel
/// may let it wait.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime ends, which ends this task as well.
            Err(_) => std::future::pending().await,
        },
    }
}

fn is_nsfs(path: &Path) -> Result<bool, Errno> {
    Ok(statfs(path)?.filesystem_type() == NSFS_MAGIC)
}

fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    thread::scope(|scope| {
        let worker = scope.spawn(move || setns(netns, CloneFlags::CLONE_NEWNET).map(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a namespace that will stand at `path`, with `setup` done inside it by its first thread.
pub(super) fn create(path: &Path, setup: impl FnOnce() -> io::Result<()> + Send) -> Result<Netns, NetnsError> {
    let failed = |error| NetnsError::from_io(path, error);
    let made: io::Result<File> = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            setup()?;
            File::open(OF_THIS_THREAD)
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    Netns::from_file(path, made.map_err(failed)?)
}

/// Keeps a namespace at its path, whoever ends. What is left there of an earlier boot is replaced.
pub(super) fn keep(netns: &Netns) -> Result<(), NetnsError> {
    let path = netns.path();
    let failed = |source| NetnsError::Refused { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let source = format!("/proc/self/fd/{}", netns.raw_fd());
    mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| NetnsError::from_errno(path, errno))
}

/// Takes a namespace of ours off its path. It ends when nothing is open in it any more.
pub(super) fn remove(path: &Path) -> Result<(), NetnsError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a plain file, left of an earlier boot.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(NetnsError::from_errno(path, errno)),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NetnsError::from_io(path, error)),
        _ => Ok(()),
    }
}

/// Is a namespace kept at this path?
pub(super) fn is_kept(path: &Path) -> bool {
    is_nsfs(path).unwrap_or(false)
}

/// Names the namespace at a path without doubt.
///
/// # Errors
/// As [`Netns::open`].
pub fn identify(path: &Path) -> Result<NetnsRef, NetnsError> {
    let path = std::path::absolute(path).map_err(|error| NetnsError::from_io(path, error))?;
    let cookie = Netns::open(&path)?.cookie;
    Ok(NetnsRef { path, cookie })
}

/// What stands now where the namespace was. It waits for the kernel: not to be called on a thread of the runtime.
pub fn at_path(netns: &NetnsRef) -> AtPath {
    use NetnsError::{NotFound, NotNetns, Replaced};
    match Netns::of(netns) {
        Err(NotFound { .. } | NotNetns { .. } | Replaced { .. }) => AtPath::Gone,
        Ok(_) | Err(_) => AtPath::Same,
    }
}

/// Opens the namespace if it is still the one that was meant, and a route-netlink connection inside it.
pub(super) async fn enter(netns: &NetnsRef) -> Result<(Arc<Netns>, rtnetlink::Handle), NetnsError> {
    let netns = netns.clone();
    blocking(move || {
        let open = Netns::of(&netns)?;
        let route = connect(&open)?;
        Ok((Arc::new(open), route))
    })
    .await
}

/// The interfaces in a namespace with their addresses.
///
/// # Errors
/// If it is gone, or can't be looked at.
pub async fn interfaces(netns: &NetnsRef) -> Result<BTreeMap<IfName, Vec<Prefixed>>, NetnsError> {
    let (_, route) = enter(netns).await?;
    let refused =
        |error: rtnetlink::Error| NetnsError::Refused { path: netns.path.clone(), source: io::Error::other(error) };
    let addresses = addr::all(&route).await.map_err(refused)?;
    let links = link::all(&route).await.map_err(refused)?;
    let of = |link: &link::Interface| addresses.get(&link.index).cloned().unwrap_or_default();
    Ok(links.iter().filter_map(|link| Some((link.name.parse().ok()?, of(link)))).collect())
}

/// A UDP socket bound inside the namespace at `path`, not blocking.
///
/// # Errors
/// If the namespace can't be entered, or the address can't be bound: nobody has it there, or somebody uses the port.
pub fn udp_socket_in(path: &Path, address: SocketAddr) -> Result<UdpSocket, NetnsError> {
    bind_in(path, address, || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// A TCP listener bound inside the namespace at `path`, not blocking.
///
/// # Errors
/// As [`udp_socket_in`].
pub fn tcp_listener_in(path: &Path, address: SocketAddr) -> Result<TcpListener, NetnsError> {
    bind_in(path, address, || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

fn bind_in<S: Send>(
    path: &Path,
    address: SocketAddr,
    bind: impl FnOnce() -> io::Result<S> + Send,
) -> Result<S, NetnsError> {
    let bound = Netns::open(path)?.run(bind)?;
    bound.map_err(|source| NetnsError::Bind { path: path.to_owned(), address, source })
}

/// A route-netlink connection inside the namespace; it ends with the last of its handles.
///
/// Must be called on a tokio runtime, which then carries the connection.
pub(super) fn connect(netns: &Netns) -> Result<rtnetlink::Handle, NetnsError> {
    let runtime = tokio::runtime::Handle::current();
    let made = netns.run(|| {
        let _guard = runtime.enter();
        // Strict, or it would send all routes to who asks for those over one link.
        rtnetlink::new_connection_with_strict_check()
    })?;
    let (connection, handle, _) = made.map_err(|error| NetnsError::from_io(&netns.path, error))?;
    runtime.spawn(connection);
    Ok(handle)
}
