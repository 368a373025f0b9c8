//! What a command in a network sees of the host's name service: a resolv.conf of its own, and no name caches.
//!
//! The host's caches answer for the host: the C library would ask them before it reads resolv.conf. All is mounted in the mount
//! namespace of the sandbox alone, and nothing of the host is changed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::output::Failure;

/// What programs ask for their nameserver.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The directories of the sockets of name caches: nscd(8), nss-resolve(8) and nss-mdns.
const CACHES: [&str; 4] = ["/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/avahi-daemon"];

/// More than any file about names has, in bytes.
const LARGEST_FILE: u64 = 64 * 1024;

/// Gives this mount namespace a resolv.conf with that text. `scratch` is a directory that can be written.
pub fn give(text: &str, scratch: &Path) -> Result<(), Failure> {
    let failed = |e: Errno| Failure::failed(format!("can't give the command a {RESOLV_CONF} of its own: {}", e.desc()));
    for directory in CACHES.map(Path::new).iter().filter(|directory| directory.is_dir()) {
        let hidden = hide_sockets(directory);
        hidden.map_err(|e| {
            Failure::failed(format!("can't hide the name cache in {}: {}", directory.display(), e.desc()))
        })?;
    }
    bind_resolv_conf(text, scratch).map_err(failed)
}

/// Covers a directory with one that has the same files, and nothing else that it has. Links to its files lead to them still.
fn hide_sockets(directory: &Path) -> Result<(), Errno> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| errno(&e))?.flatten() {
        let small = entry.metadata().is_ok_and(|about| about.is_file() && about.len() <= LARGEST_FILE);
        if let Some(content) = small.then(|| fs::read(entry.path()).ok()).flatten() {
            files.push((entry.path(), content));
        }
    }
    tmpfs(directory)?;
    files.into_iter().try_for_each(|(path, content)| fs::write(path, content).map_err(|e| errno(&e)))
}

/// The file is one of a file system of its own, so that it has a name there, and what runs in the sandbox can mount over it.
fn bind_resolv_conf(text: &str, scratch: &Path) -> Result<(), Errno> {
    let own = scratch.join(format!("sandbox.{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&own).map_err(|e| errno(&e))?;
    let bound = tmpfs(&own).and_then(|()| {
        let bound = if Path::new(RESOLV_CONF).is_file() { bind(text, &own) } else { layer(text, &own) };
        // What is mounted keeps the file system.
        umount2(&own, MntFlags::MNT_DETACH).and(bound)
    });
    let removed = fs::remove_dir(&own).map_err(|e| errno(&e));
    bound.and(removed)
}

/// Mounts a file over the host's, or over the one that its link leads to.
fn bind(text: &str, own: &Path) -> Result<(), Errno> {
    let file = own.join("resolv.conf");
    fs::write(&file, text).map_err(|e| errno(&e))?;
    mount(Some(&file), RESOLV_CONF, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// The host has none, or a link that leads nowhere, and so nothing to mount over: puts a layer over the directory that has one.
fn layer(text: &str, own: &Path) -> Result<(), Errno> {
    let (upper, work, directory) = (own.join("upper"), own.join("work"), Path::new("/etc"));
    for part in [&upper, &work] {
        DirBuilder::new().mode(0o755).create(part).map_err(|e| errno(&e))?;
    }
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    eprintln!(
        "overlayctl: this host has no {RESOLV_CONF}: the command sees /etc with one, and what it writes there is gone when it ends"
    );
    match fs::remove_file(RESOLV_CONF) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(errno(&error)),
        Ok(()) | Err(_) => fs::write(RESOLV_CONF, text).map_err(|e| errno(&e)),
    }
}

fn tmpfs(at: &Path) -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=755,size=64m"))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
