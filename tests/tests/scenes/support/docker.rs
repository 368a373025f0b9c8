//! A real `dockerd` on a host of the lab.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Host, Lab, Place, Proc};

use super::SECOND;

/// Where its containers' control groups are: the lab's hosts see those of the machine.
const CGROUP: &str = "overlay-lab";
/// All that its containers have.
const PROGRAMS: [&str; 5] = ["sh", "sleep", "nc", "echo", "ping"];

/// A `dockerd`.
pub struct Docker {
    host: String,
    place: Place,
    directory: PathBuf,
    daemon: Proc,
}

/// A container of its.
pub struct Boxed {
    /// Its process, in the host's numbering.
    pub pid: String,
    /// Its address on Docker's own bridge, if it is there.
    pub address: String,
}

impl Docker {
    /// It needs to be root for good: in a user namespace where only one user is mapped it does not start.
    pub fn can_run() -> anyhow::Result<bool> {
        let map = fs::read_to_string("/proc/self/uid_map")?;
        Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
    }

    /// Starts it, as its service does on a machine.
    pub fn start(lab: &Lab, host: &str) -> anyhow::Result<Self> {
        let directory = Host::directory(host).join("docker");
        fs::create_dir_all(&directory)?;
        let place = lab.host(host)?.place();
        sweep(&place)?;
        let daemon = Self::daemon(&place, &directory)?;
        let docker = Self { host: host.to_owned(), place, directory, daemon };
        docker.is_up()?;
        docker.make_image()?;
        Ok(docker)
    }

    fn daemon(place: &Place, directory: &std::path::Path) -> anyhow::Result<Proc> {
        let d = directory.display();
        let line = format!(
            "dockerd --data-root {d}/data --exec-root /run/docker-exec --pidfile /run/docker.pid -H unix:///run/docker.sock \
             --storage-driver vfs --bip 172.31.0.1/24 --cgroup-parent /{CGROUP} --exec-opt native.cgroupdriver=cgroupfs"
        );
        place.spawn(&line, &directory.join("dockerd.log"))
    }

    fn is_up(&self) -> anyhow::Result<()> {
        eventually(30 * SECOND, "dockerd to answer", || self.docker("version"))
            .map(drop)
            .with_context(|| self.daemon.printed().unwrap_or_default())
    }

    /// An image of one program with several names.
    fn make_image(&self) -> anyhow::Result<()> {
        let bin = self.directory.join("root/bin");
        fs::create_dir_all(&bin)?;
        fs::copy("/bin/busybox", bin.join("busybox")).context("busybox: install the package busybox-static")?;
        for program in PROGRAMS {
            std::os::unix::fs::symlink("busybox", bin.join(program))?;
        }
        let (root, tar) = (self.directory.join("root"), self.directory.join("root.tar"));
        self.place.sh(&format!("tar -C {} -cf {} .", root.display(), tar.display()))?;
        self.docker(&format!("import {} tiny", tar.display())).map(drop)
    }

    fn docker(&self, line: &str) -> anyhow::Result<String> {
        self.place.sh(&format!("docker -H unix:///run/docker.sock {line}"))
    }

    /// Runs a container that answers on its port 80 with its name.
    pub fn run(&self, name: &str, more: &str) -> anyhow::Result<Boxed> {
        self.docker(&format!(
            "run -d --name {name} --stop-signal KILL {more} tiny /bin/nc -ll -p 80 -e /bin/echo {name} 0.0.0.0"
        ))?;
        let pid = self.docker(&format!("inspect -f {{{{.State.Pid}}}} {name}"))?.trim().to_owned();
        let address = self.docker(&format!("inspect -f {{{{.NetworkSettings.IPAddress}}}} {name}"))?.trim().to_owned();
        ensure!(pid != "0", "{name} does not run: {}", self.docker(&format!("logs {name}"))?);
        Ok(Boxed { pid, address })
    }

    /// Runs a program in a container.
    pub fn exec(&self, name: &str, line: &str) -> anyhow::Result<String> {
        self.docker(&format!("exec {name} {line}"))
    }

    /// Ends it as its service does, and starts it again.
    pub fn restart(mut self, lab: &Lab) -> anyhow::Result<Self> {
        self.end()?;
        self.place = lab.host(&self.host)?.place();
        self.daemon = Self::daemon(&self.place, &self.directory)?;
        self.is_up()?;
        Ok(self)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.daemon.signal(Signal::SIGTERM)?;
        self.daemon.wait(30 * SECOND).map(drop)
    }

    /// Removes its containers and ends it. Their control groups are not the lab's, so they do not go with it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        for container in self.docker("ps -aq")?.split_whitespace() {
            self.docker(&format!("rm -f {container}"))?;
        }
        self.end()?;
        sweep(&self.place)
    }
}

/// Removes the control groups of containers that are gone, also those of a scene that failed: one in which somebody runs stays.
fn sweep(place: &Place) -> anyhow::Result<()> {
    let find = "find /sys/fs/cgroup -depth -maxdepth 4 -type d";
    place.try_sh(&format!("{find} -path */{CGROUP}* -exec rmdir {{}} ;")).map(drop)
}
