//! What `network connect` takes: until it returns, until another host answers, until a third host's kernel knows.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use overlay_tests::lab::{Container, Lab};
use serde_json::Value;

use crate::ctl::Ctl;
use crate::dice::Dice;
use crate::echo::first_reply;
use crate::figure::{Figure, Unit};
use crate::netns::NetnsPath;
use crate::rows::{Change, Rows};

const NETWORK: &str = "attach";
const TIMES: u32 = 20;
/// Whatever takes longer does not work.
const LIMIT: Duration = Duration::from_secs(10);

/// Where the address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A free one of a block that the host holds.
    Dynamic,
    /// One that was asked for, of a block that another host holds: that one is asked to lend it.
    Borrowed,
}

/// On h1; h2 answers and h3 learns. Each kind twenty times, in random order.
pub fn measure(lab: &Lab, dice: &mut Dice) -> anyhow::Result<Vec<Figure>> {
    lab.network(NETWORK, "10.42.0.0/16")?;
    let _here = lab.reachable("h1", NETWORK, "here", "")?;
    let witness = lab.reachable("h2", NETWORK, "witness", "")?;
    let _learner = lab.reachable("h3", NETWORK, "learner", "")?;
    lab.wait_until_reachable(NETWORK, &witness)?;
    let rows = Rows::watch(&NetnsPath::of(lab.host("h3")?, &lab.segment("h3", NETWORK)?)?)?;

    let mut order: Vec<Kind> = (0..TIMES).flat_map(|_| [Kind::Dynamic, Kind::Borrowed]).collect();
    dice.shuffle(&mut order);
    let mut lent = lent_addresses(lab)?;
    let [mut dynamic, mut borrowed] = [Kind::Dynamic, Kind::Borrowed].map(figures);
    for (number, kind) in (1..).zip(order) {
        let ip = match kind {
            Kind::Dynamic => None,
            Kind::Borrowed => Some(lent.next().context("the other host has no more addresses")?),
        };
        let times = attach(lab, &format!("guest-{number}"), ip, &witness, &rows)?;
        let shown = times.map(|time| Unit::Milliseconds.show(time));
        eprintln!("  attach {number} of {}, {kind:?}: {} ms", 2 * TIMES, shown.join(", "));
        let figures = if kind == Kind::Dynamic { &mut dynamic } else { &mut borrowed };
        for (figure, time) in figures.iter_mut().zip(times) {
            figure.values.push(time);
        }
    }
    Ok(dynamic.into_iter().chain(borrowed).collect())
}

/// In the order in which [`attach`] has the times.
fn figures(kind: Kind) -> [Figure; 3] {
    let address = match kind {
        Kind::Dynamic => "any address",
        Kind::Borrowed => "an address borrowed from another host",
    };
    ["call to return", "call to first ping reply from another host", "call to FDB row in a third host's kernel"]
        .map(|what| Figure::new(format!("`network connect`, {address}: {what}"), Unit::Milliseconds))
}

/// Attaches a container, takes the times in milliseconds from the call, and removes it.
fn attach(lab: &Lab, name: &str, ip: Option<Ipv4Addr>, witness: &Container, rows: &Rows) -> anyhow::Result<[f64; 3]> {
    let host = lab.host("h1")?;
    let container = lab.container("h1", name)?;
    let inside = NetnsPath::of(host, container.netns())?;
    let ip = ip.map(|ip| format!("--ip {ip}")).unwrap_or_default();
    let line = format!("network connect {NETWORK} --name {name} --netns {} {ip}", container.netns().display());
    let ctl = Ctl::of(lab, "h1")?;
    let call = Instant::now();
    let endpoint = ctl.run(&line)?;
    let returned = Instant::now();
    let replied = first_reply(&inside, witness.address()?, LIMIT)?;
    let mac = endpoint["mac"].as_str().with_context(|| format!("no MAC in {endpoint}"))?;
    let known = rows.when(Change::Came, mac, call, LIMIT)?;

    lab.ctl("h1", &format!("network disconnect {NETWORK} {name}"))?.ok()?;
    container.remove()?;
    Ok([returned, replied, known].map(|at| 1000.0 * at.saturating_duration_since(call).as_secs_f64()))
}

/// Free addresses of a block that is not h1's, from the end, where nothing was given out yet.
fn lent_addresses(lab: &Lab) -> anyhow::Result<impl Iterator<Item = Ipv4Addr>> {
    let leases = lab.rows("h1", &format!("lease ls {NETWORK}"))?;
    let address = |lease: &Value, key: &str| lease[key].as_str()?.parse::<Ipv4Addr>().ok();
    let foreign = leases.iter().filter(|lease| lease["kind"] == "block" && lease["holder"] != "h1");
    let range = foreign.filter_map(|lease| Some((address(lease, "first")?, address(lease, "last")?))).next_back();
    let (first, last) = range.with_context(|| format!("h1 holds all blocks: {leases:?}"))?;
    // The last of all may be the subnet's broadcast address.
    Ok((first.to_bits()..last.to_bits()).rev().map(Ipv4Addr::from_bits))
}
