//! Names, as a command asks for them that `overlayctl run` has started.

use std::fs;

use anyhow::ensure;
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Host, Lab, Proc, Programs};

use super::support::SECOND;

/// The address of the endpoint whose name is asked for.
const OWN: &str = "10.20.0.11";

/// What a command that is run sees of the host's name service: its own nameserver, and the host's ways with names.
pub fn a_command_that_is_run_asks_its_own_nameserver() -> anyhow::Result<()> {
    let lab = Lab::with_agents(1)?;
    lab.network("web", "10.20.0.0/24")?;
    let _db = lab.reachable("h1", "web", "db", &format!("--ip {OWN}"))?;
    let host = lab.host("h1")?;
    let script = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = format!("/run/lab/{name}.sh");
        fs::write(&path, format!("set -e\n{text}\n"))?;
        Ok(path)
    };
    let run = |line: &str| lab.ctl("h1", &format!("run --network web --name job -- {line}"))?.ok();

    host.set_resolv_conf("nameserver 192.0.2.200\nsearch corp.example example\noptions timeout:2 edns0\n")?;
    let shown = run("cat /etc/resolv.conf")?;
    for line in ["nameserver 169.254.53.53\n", "search corp.example example\n", "options timeout:2 edns0 ndots:0\n"] {
        ensure!(shown.contains(line), "{shown}");
    }
    ensure!(!shown.contains("192.0.2.200"), "{shown}");

    // A program in there can have another one, as the host's programs can.
    let nested = script(
        "nested",
        "echo nameserver 192.0.2.201 >/run/lab/other\nunshare --mount sh -c 'mount --bind /run/lab/other /etc/resolv.conf; cat /etc/resolv.conf'",
    )?;
    ensure!(run(&format!("sh {nested}"))?.contains("192.0.2.201"), "a nested program could not mount its own");

    // Name caches of the host answer for the host.
    host.sh("mkdir -p /run/nscd /run/systemd/resolve")?;
    let caches = ["/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"];
    let listening: anyhow::Result<Vec<Proc>> = caches
        .iter()
        .enumerate()
        .map(|(n, path)| {
            host.place().spawn(&format!("nc -l -k -U {path}"), &Host::directory("h1").join(format!("cache-{n}")))
        })
        .collect();
    let _listening = listening?;
    for path in caches {
        eventually(5 * SECOND, "a socket of a name cache", || host.sh(&format!("test -S {path}")))?;
    }
    let look = script(
        "look",
        &format!(
            "for path in {}; do if test -e $path; then echo $path; fi; done\ngetent ahostsv4 db",
            caches.join(" ")
        ),
    )?;
    let seen = run(&format!("sh {look}"))?;
    ensure!(seen.contains(OWN) && !caches.iter().any(|path| seen.contains(path)), "{seen}");

    // A host that has no resolv.conf, or a link that leads nowhere.
    let ctl = Programs::find()?.overlayctl()?;
    for (name, make) in [
        ("missing", "true"),
        ("dangling", "ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf"),
        ("nowhere", "ln -s /run/none/of/this /etc/resolv.conf"),
    ] {
        let line = format!(
            "cp -a /etc /run/etc-{name}\numount /etc/resolv.conf\nmount --bind /run/etc-{name} /etc\nrm -f /etc/resolv.conf\n{make}\n\
             {} run --network web --name job -- sh -c 'getent ahostsv4 db; cat /etc/resolv.conf'\n\
             test ! -e /etc/resolv.conf",
            ctl.display()
        );
        let path = script(name, &line)?;
        let done = host.place().try_sh(&format!("unshare --mount sh {path}"))?;
        ensure!(
            done.code == 0 && done.stdout.contains(OWN) && done.stdout.contains("169.254.53.53"),
            "{name}: {done:?}"
        );
        ensure!(done.stderr.contains("resolv.conf"), "{name}: it is said: {done:?}");
    }
    let left = host.sh("ls /run/overlayd")?;
    ensure!(!left.contains("sandbox") && !left.contains("resolv"), "left behind: {left}");
    Ok(())
}
