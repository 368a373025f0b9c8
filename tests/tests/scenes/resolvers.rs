//! What resolves on the host resolves in a container, whatever the host's nameserver is like and whichever C library asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, ensure};
use overlay_tests::lab::{Container, Done, Host, Lab, Place, Proc, run};

use super::support::SECOND;

/// What a nameserver is like, as `labtool names` calls it and as the docs do.
const MANNERS: [(&str, &str); 15] = [
    ("plain", "answers"),
    ("slow", "takes 1.5 s"),
    ("lower-case", "repeats the question in lower case"),
    ("twice", "answers twice"),
    ("large", "has 60 addresses, more than a datagram takes"),
    ("cut-tcp-shut", "cuts its answer, TCP is shut"),
    ("cut-tcp-silent", "cuts its answer, and says nothing by TCP"),
    ("chain", "leads over three aliases"),
    ("no-such-name-for-aaaa", "says that the name does not exist when asked for AAAA"),
    ("no-edns", "takes EDNS for a format error"),
    ("form-err", "finds a format error in everything"),
    ("refuses", "refuses"),
    ("fails", "fails"),
    ("knows-nothing", "knows no such name"),
    ("silent", "says nothing"),
];

/// The network is called like the last label of the question: the name is the world's all the same.
const NETWORK: &str = "org";
const QUESTION: &str = "WWW.Example.org";
/// What all nameservers answer.
const ANSWER: &str = "203.0.113.7";
const OWN: &str = "10.20.0.11";
const INSIDE: &str = "10.21.0.11";
/// So many hosts share the nameservers, so that the silent ones are waited for at the same time.
const HOSTS: u8 = 3;
/// More than what a client may take.
const LONGEST: Duration = Duration::from_secs(30);

/// The table that is documented.
const DOCS: &str = include_str!("../../../docs/names.md");

/// The programs that ask: getaddrinfo of two C libraries, and two that speak DNS themselves.
const CLIENTS: [&str; 4] = ["glibc", "musl", "dig", "busybox"];

/// What a client made of a name: how many of the addresses it found, or what it said, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    text: String,
    addresses: Vec<String>,
    patience: &'static str,
}

/// What all clients made of it.
type Cell = BTreeMap<&'static str, Outcome>;

pub fn what_resolves_on_the_host_resolves_in_a_container() -> anyhow::Result<()> {
    let lab = Lab::with_agents(HOSTS)?;
    let lookups = [("glibc", compiled("cc", "glibc")?), ("musl", compiled("musl-gcc", "musl")?)];
    let servers = nameservers(&lab)?;
    lab.network(NETWORK, "10.20.0.0/24")?;
    lab.json("h1", "network create inside --internal --subnet 10.21.0.0/24")?;
    let _own = lab.reachable("h1", NETWORK, "db", &format!("--ip {OWN}"))?;
    let _inside = lab.reachable("h1", "inside", "db-inside", &format!("--ip {INSIDE}"))?;
    let rows: anyhow::Result<Vec<Vec<String>>> = thread::scope(|scope| {
        let play = |host: u8| {
            let (lab, lookups) = (&lab, &lookups);
            scope.spawn(move || rows_of(lab, host, lookups))
        };
        let playing: Vec<_> = (1..=HOSTS).map(play).collect();
        playing.into_iter().map(|host| host.join().map_err(|_| anyhow::anyhow!("a thread died"))?).collect()
    });
    drop(servers);
    let rows = rows?;
    // Row by row, as they were dealt out.
    let table = (0..MANNERS.len()).map(|n| rows[n % usize::from(HOSTS)][n / usize::from(HOSTS)].clone());
    is_documented(&table.collect::<String>())
}

fn address_of(manner: usize) -> String {
    format!("198.51.100.{}", 10 + manner)
}

fn nameservers(lab: &Lab) -> anyhow::Result<Vec<Proc>> {
    let world = lab.internet();
    let start = |(n, (manner, _)): (usize, &(&str, &str))| {
        world.ip(&format!("address add {}/32 dev lo", address_of(n)))?;
        let log = Host::directory("internet").join(format!("names-{manner}.log"));
        world.place().tool(&format!("names {} {ANSWER} --manner {manner}", address_of(n)), &log)
    };
    MANNERS.iter().enumerate().map(start).collect()
}

/// The lines of the table that are this host's.
fn rows_of(lab: &Lab, number: u8, lookups: &[(&'static str, PathBuf); 2]) -> anyhow::Result<Vec<String>> {
    let host = format!("h{number}");
    let names = ["app", "hidden", "both"].map(|name| format!("{name}-{number}"));
    let app = lab.connect(&host, NETWORK, &names[0], "")?;
    let hidden = lab.connect(&host, "inside", &names[1], "")?;
    let both = lab.connect(&host, NETWORK, &names[2], "")?;
    let also = format!("network connect inside --netns {} --name {}", both.netns().display(), names[2]);
    lab.json(&host, &also)?;
    for container in [&app, &hidden, &both] {
        container.set_resolv_conf("nameserver 169.254.53.53\n")?;
    }
    let on_host = lab.host(&host)?.place();
    let places = [&on_host, app.place(), hidden.place(), both.place()];
    let mut rows = Vec::new();
    for (n, (_, words)) in MANNERS.iter().enumerate().filter(|(n, _)| n % usize::from(HOSTS) == usize::from(number) - 1)
    {
        lab.host(&host)?.set_resolv_conf(&format!("nameserver {}\n", address_of(n)))?;
        let row = row_of(words, places, lookups)?;
        // On a busy machine a client may be late for once.
        rows.push(if DOCS.contains(&row) { row } else { row_of(words, places, lookups)? });
        own_names_are_found(&[&app, &hidden, &both], lookups).with_context(|| format!("a nameserver that {words}"))?;
    }
    Ok(rows)
}

/// What is found behind a nameserver, from all places at once.
fn row_of(words: &str, places: [&Place; 4], lookups: &[(&'static str, PathBuf); 2]) -> anyhow::Result<String> {
    let cells: anyhow::Result<Vec<Cell>> = thread::scope(|scope| {
        let asking = places.map(|place| scope.spawn(move || ask(place, QUESTION, lookups)));
        asking.into_iter().map(|cell| cell.join().map_err(|_| anyhow::anyhow!("a thread died"))?).collect()
    });
    let cells = cells?;
    containers_are_no_worse(&cells).with_context(|| format!("a nameserver that {words}"))?;
    let shown: Vec<String> = cells.iter().map(shown).collect();
    Ok(format!("| {words} | {} |\n", shown.join(" | ")))
}

/// All clients ask at once.
fn ask(place: &Place, name: &str, lookups: &[(&'static str, PathBuf); 2]) -> anyhow::Result<Cell> {
    let lookup = |n: usize| format!("{} {name}", lookups[n].1.display());
    let lines = [
        lookup(0),
        lookup(1),
        format!("dig +noall +comments +answer +time=5 +tries=2 {name}"),
        format!("busybox nslookup -type=a {name}"),
    ];
    thread::scope(|scope| {
        let asking = CLIENTS.iter().zip(lines).map(|(client, line)| {
            scope.spawn(move || {
                // getaddrinfo of glibc waits without end for an answer by TCP.
                let words: Vec<&str> = ["timeout", "12"].into_iter().chain(line.split_whitespace()).collect();
                Ok((*client, outcome(&run(&mut place.command(&words), LONGEST)?)))
            })
        });
        let asking: Vec<_> = asking.collect();
        asking.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread died"))?).collect()
    })
}

fn outcome(done: &Done) -> Outcome {
    let all = format!("{}{}", done.stdout, done.stderr);
    // busybox shows the nameserver's address with a port.
    let words = all.split_whitespace().filter(|word| word.starts_with("203.0.113.") || word.starts_with("10.2"));
    let mut addresses: Vec<&str> = words.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let no_such_name = ["NXDOMAIN", "not known", "does not resolve"].iter().any(|word| all.contains(word));
    let text = match addresses.len() {
        0 if no_such_name => "no such name".to_owned(),
        0 => "no answer".to_owned(),
        1 => "found".to_owned(),
        60 => "all 60".to_owned(),
        some => format!("{some} of 60"),
    };
    let patience = match done.took {
        short if short < SECOND => "",
        longer if longer < 9 * SECOND / 2 => " late",
        _ => " after 5 s or more",
    };
    Outcome { text, addresses: addresses.into_iter().map(str::to_owned).collect(), patience }
}

/// In the network with a way out and in both, each client finds what it finds on the host, or more.
fn containers_are_no_worse(cells: &[Cell]) -> anyhow::Result<()> {
    let [host, app, hidden, both] = cells else { anyhow::bail!("four places ask") };
    for client in CLIENTS {
        for (place, cell) in [("a network", app), ("two networks", both)] {
            let (there, here) = (&host[client], &cell[client]);
            ensure!(
                there.addresses.iter().all(|address| here.addresses.contains(address))
                    || here.addresses.len() >= there.addresses.len(),
                "{client} in {place}: {here:?}; on the host: {there:?}"
            );
        }
        let inside = &hidden[client];
        ensure!(
            inside.text == "no such name" && inside.patience.is_empty(),
            "{client} in an internal network: {inside:?}"
        );
    }
    Ok(())
}

/// Whatever the host's nameserver is like: bare, with the network behind it, and behind a search domain that is tried first and that
/// the internal network knows nothing of.
fn own_names_are_found(containers: &[&Container; 3], lookups: &[(&'static str, PathBuf); 2]) -> anyhow::Result<()> {
    let [app, hidden, both] = containers;
    hidden.set_resolv_conf("nameserver 169.254.53.53\nsearch corp.example\n")?;
    let own = [
        (app, "db", OWN),
        (app, "DB.Org", OWN),
        (hidden, "db-inside", INSIDE),
        (both, "db", OWN),
        (both, "db-inside.inside", INSIDE),
    ];
    for (container, name, address) in own {
        for (client, outcome) in ask(container.place(), name, lookups)? {
            // nslookup of busybox asks for the name in the search domain alone.
            if client == "busybox" && container.name() == hidden.name() {
                continue;
            }
            let is_found = outcome.addresses == [address] && outcome.patience.is_empty();
            ensure!(is_found, "{client} asks {} for {name}: {outcome:?}", container.name());
        }
    }
    hidden.set_resolv_conf("nameserver 169.254.53.53\n")
}

/// What all clients say alike is said once.
fn shown(cell: &Cell) -> String {
    let said = |client: &str| format!("{}{}", cell[client].text, cell[client].patience);
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for client in CLIENTS {
        match groups.iter_mut().find(|(text, _)| *text == said(client)) {
            Some((_, clients)) => clients.push(client),
            None => groups.push((said(client), vec![client])),
        }
    }
    match groups.as_slice() {
        [(text, _)] => text.clone(),
        several => several
            .iter()
            .map(|(text, clients)| format!("{}: {text}", clients.join(", ")))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

/// The table is the one of the docs. If it is not, the new one is in `target/names.md`.
fn is_documented(rows: &str) -> anyhow::Result<()> {
    let header =
        "| the nameserver | on the host | in a network | in an internal network | in both |\n|---|---|---|---|---|\n";
    let table = format!("{header}{rows}");
    if DOCS.contains(&table) {
        return Ok(());
    }
    let program = env::current_exe()?;
    let target = program.ancestors().nth(3).context("the test is not in a directory of cargo's")?.join("names.md");
    fs::write(&target, &table)?;
    anyhow::bail!("docs/names.md says otherwise; this is what was seen, also in {}:\n{table}", target.display())
}

/// getaddrinfo of a C library, as a program.
fn compiled(compiler: &str, library: &str) -> anyhow::Result<PathBuf> {
    let source = Path::new("/run/lab/lookup.c");
    fs::write(source, include_str!("support/lookup.c"))?;
    let program = PathBuf::from(format!("/run/lab/lookup-{library}"));
    let mut command = std::process::Command::new(compiler);
    let done = run(command.arg("-o").arg(&program).arg(source), LONGEST)?;
    done.ok().with_context(|| format!("{compiler} is in the packages of deploy/packages.txt"))?;
    Ok(program)
}
