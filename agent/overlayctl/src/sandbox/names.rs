//! What a command in a network sees of the host's name service: a resolv.conf of its own, and no name caches.
//!
//! The host's caches answer for the host: the C library would ask them before it reads resolv.conf. All is mounted in the mount
//! namespace of the sandbox alone, and nothing of the host is changed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::mkdtemp;

use crate::output::Failure;

/// What programs ask for their nameserver.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The directories of the sockets of name caches: nscd(8), nss-resolve(8) since systemd 246, and nss-mdns. Where /var/run is a link to
/// /run, both names are one directory.
const CACHES: [&str; 5] =
    ["/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/avahi-daemon", "/var/run/avahi-daemon"];

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
        // A link within the directory becomes the file that it leads to.
        let Ok(about) = fs::metadata(entry.path()) else { continue };
        if about.is_file() && about.len() <= LARGEST_FILE {
            files.extend(fs::read(entry.path()).ok().map(|content| (entry.path(), content, about.permissions())));
        }
    }
    tmpfs(directory)?;
    files.into_iter().try_for_each(|(path, content, permissions)| write(&path, content, permissions))
}

/// The file is one of a file system of its own, so that it has a name there, and what runs in the sandbox can mount over it.
fn bind_resolv_conf(text: &str, scratch: &Path) -> Result<(), Errno> {
    let own = mkdtemp(&scratch.join("sandbox.XXXXXX"))?;
    let bound = tmpfs(&own).and_then(|()| {
        let bound = if Path::new(RESOLV_CONF).is_file() { bind(text, &own) } else { layer(text, &own) };
        // The mounts of its files keep the file system.
        umount2(&own, MntFlags::MNT_DETACH).and(bound)
    });
    let removed = fs::remove_dir(&own).map_err(|e| errno(&e));
    bound.and(removed)
}

/// Mounts a file over the host's, or over the one that its link leads to.
fn bind(text: &str, own: &Path) -> Result<(), Errno> {
    let file = own.join("resolv.conf");
    write(&file, text, Permissions::from_mode(0o644))?;
    mount(Some(&file), RESOLV_CONF, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// The host has none, or a link that leads nowhere, and so nothing to mount over: puts a layer over the directory that has one.
fn layer(text: &str, own: &Path) -> Result<(), Errno> {
    let (upper, work, directory) = (own.join("upper"), own.join("work"), Path::new("/etc"));
    let permissions = fs::metadata(directory).map_err(|e| errno(&e))?.permissions();
    for part in [&upper, &work] {
        fs::create_dir(part).map_err(|e| errno(&e))?;
    }
    fs::set_permissions(&upper, permissions).map_err(|e| errno(&e))?;
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    eprintln!(
        "overlayctl: this host has no {RESOLV_CONF}: the command sees /etc with one, and what it writes there is gone when it ends"
    );
    match fs::remove_file(RESOLV_CONF) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(errno(&error)),
        Ok(()) | Err(_) => write(Path::new(RESOLV_CONF), text, Permissions::from_mode(0o644)),
    }
}

/// Writes a file with these permissions, whatever the umask of this process is.
fn write(path: &Path, content: impl AsRef<[u8]>, permissions: Permissions) -> Result<(), Errno> {
    fs::write(path, content).and_then(|()| fs::set_permissions(path, permissions)).map_err(|e| errno(&e))
}

fn tmpfs(at: &Path) -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=755,size=64m"))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
