//! How times grow with what is there already: endpoints in a network, networks on a host, endpoints on other hosts.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use overlay_tests::eventually::{eventually, pass};
use overlay_tests::lab::Lab;

use crate::ctl::Ctl;
use crate::figure::{Figure, Unit};
use crate::idle::{SETTLED, processor_time};

/// The network whose endpoints become many.
const CROWD: &str = "crowd";
const ENDPOINTS: usize = 1000;
/// The networks that the agent of h3 observes. Of h1 and h2 each has so many endpoints, half of them in either network.
const OBSERVED: [&str; 2] = ["left", "right"];
const NETWORKS: usize = 100;
/// How many containers are taken out of a network at once.
const AT_ONCE: usize = 100;
const TIMES: usize = 20;
/// A network is filled by so many threads at once.
const CALLERS: usize = 8;
/// After a change, until all has come to rest.
const REST: Duration = Duration::from_millis(600);
const LIMIT: Duration = Duration::from_secs(60);

pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut figures = with_endpoints()?;
    figures.extend(with_endpoints_elsewhere()?);
    figures.extend(with_networks()?);
    Ok(figures)
}

/// All of the endpoints are in one network: first one on each host, then many on h1.
fn with_endpoints() -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::with_agents(3)?;
    lab.network(CROWD, "10.43.0.0/16")?;
    for host in ["h1", "h2", "h3"] {
        lab.reachable(host, CROWD, &format!("first-{host}"), "")?;
    }
    let guests = Guests::of(&lab, "h1", CROWD)?;
    let mut figures = vec![connects(&lab, &guests, "an endpoint on each host")?, disconnects(&lab, &guests)?];
    guests.fill(&lab, 0..ENDPOINTS - 1)?;
    wait_until_known(&lab, CROWD, ENDPOINTS + 2)?;
    figures.push(connects(&lab, &guests, &format!("{ENDPOINTS} endpoints on this host"))?);
    Ok(figures)
}

/// Two networks that h3 is in with one endpoint each, and h1 and h2 with many.
fn with_endpoints_elsewhere() -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::with_agents(3)?;
    for (network, subnet) in OBSERVED.iter().zip(["10.45.0.0/16", "10.46.0.0/16"]) {
        lab.network(network, subnet)?;
        lab.reachable("h3", network, &format!("observer-{network}"), "")?;
    }
    let guests = Guests::of(&lab, "h2", OBSERVED[0])?;
    let mut figures = vec![processor(&lab, &guests, "no endpoints elsewhere")?];
    for network in OBSERVED {
        for host in ["h1", "h2"] {
            Guests::of(&lab, host, network)?.fill(&lab, 0..ENDPOINTS / 2)?;
        }
        wait_until_known(&lab, network, ENDPOINTS + 1)?;
    }
    figures.push(processor(&lab, &guests, &format!("{} endpoints elsewhere in two networks", 2 * ENDPOINTS))?);
    Ok(figures)
}

/// Many networks, with an endpoint on each of two hosts.
fn with_networks() -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::with_agents(3)?;
    for number in 0..NETWORKS {
        let network = format!("n{number}");
        lab.network(&network, &format!("10.44.{number}.0/24"))?;
        for host in ["h1", "h2"] {
            Guests::of(&lab, host, &network)?.fill(&lab, 0..1)?;
        }
    }
    pass(SETTLED);
    let guests = Guests::of(&lab, "h1", "n0")?;
    Ok(vec![connects(&lab, &guests, &format!("{NETWORKS} networks on this host and another one"))?])
}

/// Until h3 knows of that many endpoints; and then some more, for what that brings about.
fn wait_until_known(lab: &Lab, network: &str, count: usize) -> anyhow::Result<()> {
    eventually(LIMIT, "all endpoints to be known", || {
        let known = lab.rows("h3", &format!("endpoint ls {network}"))?.len();
        anyhow::ensure!(known == count, "{known} of {count}");
        Ok(())
    })?;
    pass(SETTLED);
    Ok(())
}

/// From the call of `network connect` to its return, one at a time.
fn connects(lab: &Lab, guests: &Guests, beside: &str) -> anyhow::Result<Figure> {
    let mut figure = Figure::new(format!("`network connect`, {beside}: call to return"), Unit::Milliseconds);
    for number in 0..TIMES {
        let name = guests.container(lab, &format!("guest-{number}"))?;
        pass(REST);
        let call = Instant::now();
        guests.connect(&name)?;
        figure.values.push(1000.0 * call.elapsed().as_secs_f64());
        guests.disconnect(&name)?;
        guests.remove(lab, &name)?;
    }
    eprintln!("  {}: {:.1?} ms", figure.title, figure.values);
    Ok(figure)
}

/// What one change on h2 costs the agent of h3, beside what it takes at rest.
fn processor(lab: &Lab, guests: &Guests, beside: &str) -> anyhow::Result<Figure> {
    let mut figure = Figure::new(format!("agent, processor per change on another host, {beside}"), Unit::Milliseconds);
    let agent = lab.agent("h3")?.pid()?;
    let spent = |work: &dyn Fn() -> anyhow::Result<()>| {
        let before = processor_time(agent)?;
        work()?;
        pass(REST);
        anyhow::Ok(1000.0 * processor_time(agent)?.saturating_sub(before).as_secs_f64())
    };
    for number in 0..TIMES {
        let name = guests.container(lab, &format!("change-{number}"))?;
        let rest = spent(&|| Ok(()))?;
        figure.values.push(spent(&|| guests.connect(&name))? - rest);
        guests.disconnect(&name)?;
        guests.remove(lab, &name)?;
        pass(REST);
    }
    eprintln!("  {}: {:.1?} ms", figure.title, figure.values);
    Ok(figure)
}

/// From the first call of `network disconnect` to the last return, of many that are called at once.
fn disconnects(lab: &Lab, guests: &Guests) -> anyhow::Result<Figure> {
    let title = format!("`network disconnect`, {AT_ONCE} at once: first call to last return");
    let mut figure = Figure::new(title, Unit::Milliseconds);
    for round in 0..3 {
        let names = guests.fill(lab, 10_000 + round * AT_ONCE..10_000 + (round + 1) * AT_ONCE)?;
        pass(SETTLED);
        let call = Instant::now();
        let calls: Vec<_> = names.iter().map(|name| guests.start_to_disconnect(name)).collect::<anyhow::Result<_>>()?;
        calls.into_iter().try_for_each(|call| Ctl::finish(call).map(drop))?;
        figure.values.push(1000.0 * call.elapsed().as_secs_f64());
        names.iter().try_for_each(|name| guests.remove(lab, name))?;
    }
    eprintln!("  {}: {:.1?} ms", figure.title, figure.values);
    Ok(figure)
}

/// Containers of one host that are attached to one network.
struct Guests {
    host: String,
    network: String,
    ctl: Ctl,
}

impl Guests {
    fn of(lab: &Lab, host: &str, network: &str) -> anyhow::Result<Self> {
        Ok(Self { host: host.to_owned(), network: network.to_owned(), ctl: Ctl::of(lab, host)? })
    }

    /// Makes one, and gives its name on its host.
    fn container(&self, lab: &Lab, name: &str) -> anyhow::Result<String> {
        let name = format!("{}-{name}", self.network);
        lab.host(&self.host)?.sh(&format!("ip netns add {name}"))?;
        Ok(name)
    }

    /// Ends one that is attached to nothing.
    fn remove(&self, lab: &Lab, name: &str) -> anyhow::Result<()> {
        lab.host(&self.host)?.sh(&format!("ip netns delete {name}")).map(drop)
    }

    fn connect(&self, name: &str) -> anyhow::Result<()> {
        let line = format!("network connect {} --netns /run/netns/{name} --name {name}-{}", self.network, self.host);
        self.ctl.run(&line).map(drop)
    }

    fn start_to_disconnect(&self, name: &str) -> anyhow::Result<std::process::Child> {
        self.ctl.start(&format!("network disconnect {} {name}-{}", self.network, self.host))
    }

    fn disconnect(&self, name: &str) -> anyhow::Result<()> {
        Ctl::finish(self.start_to_disconnect(name)?).map(drop)
    }

    /// Makes and attaches one for each number, several at a time.
    fn fill(&self, lab: &Lab, numbers: Range<usize>) -> anyhow::Result<Vec<String>> {
        let names = numbers.map(|number| self.container(lab, &number.to_string()));
        let names: Vec<String> = names.collect::<anyhow::Result<_>>()?;
        thread::scope(|scope| {
            let share = |caller| names.iter().skip(caller).step_by(CALLERS);
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| scope.spawn(move || share(caller).try_for_each(|name| self.connect(name))))
                .collect();
            callers.into_iter().try_for_each(|caller| caller.join().map_err(|_| anyhow!("a thread died"))?)
        })?;
        Ok(names)
    }
}
