//! What one change elsewhere costs an observer in pure work: cluster, desired state, names and plan, in microseconds of wall
//! time (medians), for clusters of several sizes.
//!
//! ```text
//! cargo run --profile lab -p overlay-dns --example change_cost
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay::cluster::{Derivation, derive};
use overlay::datapath::attention::Look;
use overlay::datapath::desired::{Desired, HostConfig, KeptDesired, desire};
use overlay::datapath::fake::FakeKernel;
use overlay::datapath::observed::Observed;
use overlay::datapath::plan::{Knowledge, plan};
use overlay::datapath::round::round;
use overlay::model::addr::Mac;
use overlay::model::endpoint::{Assigned, Endpoint};
use overlay::model::host::{HostInfo, Liveness, Phase};
use overlay::model::id::{EndpointId, HostId, NetworkId, Vni};
use overlay::model::intent::{Attachment, Intents, NetnsRef};
use overlay::model::lease::Version;
use overlay::model::member::Stamp;
use overlay::model::network::{Network, Range, Settings};
use overlay::model::record::{Incarnation, NetworkMembership, Record, Records};
use overlay_dns::zone::Zone;

/// Endpoints of each of the other hosts.
const PER_HOST: u32 = 100;
/// Changes that are measured, each of one endpoint.
const CHANGES: usize = 21;
/// The observer.
const ME: u32 = 0;

fn host_id(number: u32) -> HostId {
    HostId::from_bytes(u128::from(number).to_be_bytes())
}

fn network(number: u32) -> Network {
    let id = NetworkId::from_bytes((u128::from(number) << 96 | 0xa0).to_be_bytes());
    Network {
        id,
        name: format!("net{number}").parse().expect("a label"),
        ranges: vec![Range::new("10.0.0.0/15".parse().expect("a subnet"), None).expect("a range")],
        created: 1,
        creator: host_id(ME),
        since: 0,
        settings: Settings::default(),
    }
}

/// Identifiers are spread as random ones are.
fn endpoint(number: u32, network: &Network) -> Endpoint {
    let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0100 + number));
    let id = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Endpoint {
        id: EndpointId::from_bytes(id.to_be_bytes()),
        network: network.id,
        name: format!("web-{number}").parse().expect("a label"),
        aliases: BTreeSet::new(),
        addresses: vec![Assigned { address, lease: Version { epoch: 1, count: 0 } }],
        mac: Mac::of_address(address),
        created: u64::from(number),
    }
}

fn record(number: u32, networks: &[Network], endpoints: impl IntoIterator<Item = Endpoint>) -> Record {
    let vtep = IpAddr::V4(Ipv4Addr::from(0xc0a8_0000 + number));
    let member = |n: &Network| (n.id, NetworkMembership { network: n.clone(), vni: Some(Vni::proposal(n.id)) }.into());
    Record {
        host: Some(HostInfo {
            name: format!("host{number}").parse().expect("a label"),
            vtep,
            vxlan_port: 4789,
            peer: (vtep, 7946).into(),
            underlay_mtu: 1500,
            routed: std::collections::BTreeSet::new(),
            stamp: Stamp::default(),
            phase: Phase::Established,
            founder: Some(host_id(ME)),
        }),
        networks: networks.iter().map(member).collect(),
        endpoints: endpoints.into_iter().map(|e| (e.id, Arc::new(e))).collect(),
        ..Record::default()
    }
}

fn life(record: Record) -> Vec<Incarnation> {
    vec![Incarnation { generation: 1, complete: true, liveness: Liveness::Live, record: record.into() }]
}

/// A cluster as one host sees it that has an endpoint in some of the networks.
struct World {
    records: Records,
    intents: Arc<Intents>,
    host: HostConfig,
    /// The host whose record changes: what it says, and the endpoint that comes and goes.
    other: (HostId, Record, Endpoint),
    kernel: FakeKernel,
}

impl World {
    fn new(endpoints: u32, networks: u32, here: u32) -> Self {
        let networks: Vec<Network> = (0..networks).map(network).collect();
        let of = |number: u32| &networks[number as usize % networks.len()];
        let mut kernel = FakeKernel::new();
        let mut intents = Intents::default();
        for (number, network) in (0..here).map(|n| (endpoints + 1 + n, of(n))) {
            let netns = NetnsRef { path: format!("/run/netns/{number}").into(), cookie: number.into() };
            kernel.open_container(netns.clone());
            let seat = intents.seat(network.id).expect("a few networks");
            let endpoint = endpoint(number, network);
            intents.seats.insert(network.id, seat);
            let ifname = "eth0".parse().expect("an interface name");
            let attachment = Attachment { endpoint, netns, ifname, metric: 0, published: BTreeMap::new() };
            intents.attachments.insert(attachment.endpoint.id, Arc::new(attachment));
        }
        intents.networks = networks.iter().map(|network| (network.id, network.clone())).collect();
        let own = intents.attachments.values().map(|attachment| attachment.endpoint.clone());
        let mut records = Records::from([(host_id(ME), life(record(ME, &networks, own)))]);
        for number in 1..=endpoints / PER_HOST {
            let all = (0..PER_HOST).map(|n| (number - 1) * PER_HOST + n);
            let said = record(number, &networks, all.map(|n| endpoint(n, of(n))));
            records.insert(host_id(number), life(said));
        }
        let other = host_id(5);
        let said = Record::clone(&records[&other][0].record);
        let come = endpoint(endpoints + here + 1, of(0));
        let host = HostConfig { me: host_id(ME), vtep: [192, 168, 0, 0].into(), vxlan_port: 4789, underlay_mtu: 1500 };
        Self { records, intents: Arc::new(intents), host, other: (other, said, come), kernel }
    }

    /// One endpoint comes, or it goes again.
    fn change(&mut self, comes: bool) {
        let (id, said, endpoint) = &self.other;
        let mut said = said.clone();
        if comes {
            said.endpoints.insert(endpoint.id, Arc::new(endpoint.clone()));
        }
        self.records.insert(*id, life(said));
    }

    /// Brings the kernel to what is desired.
    fn settle(&mut self, desired: &Desired) -> Observed {
        drop(block_on(round(&mut self.kernel, &Look::Everything, desired, Knowledge::Whole)));
        self.kernel.state().clone()
    }
}

/// The fake kernel never waits.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

/// The times of the parts of one change.
#[derive(Debug, Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn take<T>(&mut self, part: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.0.entry(part).or_default().push(start.elapsed());
        done
    }

    fn print(mut self, title: &str) {
        let mut sum = 0;
        let mut line = String::new();
        for (part, times) in &mut self.0 {
            times.sort();
            let median = times[times.len() / 2].as_micros();
            sum += median;
            line += &format!("  {part} {median:>6}");
        }
        println!("{title}{line}  sum {sum:>6}");
    }
}

fn from_nothing(world: &mut World, title: &str) {
    let mut times = Times::default();
    let founder = Some(host_id(ME));
    let mut last = None;
    for number in 0..CHANGES {
        let before = desire(&derive(&world.records, founder), &world.intents, &world.host);
        let observed = world.settle(&before);
        world.change(number % 2 == 0);
        let cluster = times.take("derive", || derive(&world.records, founder));
        let desired = times.take("desire", || desire(&cluster, &world.intents, &world.host));
        let steps = times.take("plan", || plan(&observed, &desired, Knowledge::Whole));
        assert!(!steps.is_empty(), "one endpoint has changed");
        let zone = times.take("zone", || Zone::build(&cluster, &world.intents));
        times.take("drop", || last.replace((cluster, desired, zone)));
    }
    times.print(&format!("{title}, from nothing:"));
}

fn step_by_step(world: &mut World, title: &str) {
    let mut times = Times::default();
    let founder = Some(host_id(ME));
    let (mut derivation, mut kept) = (Derivation::default(), KeptDesired::default());
    let mut zone = Zone::build(derivation.derive(&world.records, founder), &world.intents);
    for number in 0..CHANGES {
        let before = Arc::clone(kept.desire(derivation.derive(&world.records, founder), &world.intents, &world.host));
        let observed = world.settle(&before);
        world.change(number % 2 == 0);
        let cluster = Arc::clone(times.take("derive", || derivation.derive(&world.records, founder)));
        let desired = Arc::clone(times.take("desire", || kept.desire(&cluster, &world.intents, &world.host)));
        let steps = times.take("plan", || plan(&observed, &desired, Knowledge::Whole));
        assert!(!steps.is_empty(), "one endpoint has changed");
        let followed = times.take("zone", || zone.follow(&cluster, &world.intents));
        zone = followed.expect("the network has an endpoint here");
        times.take("drop", || drop(before));
    }
    times.print(&format!("{title}, step by step:"));
}

/// What a change costs in a network that this host is not in.
fn elsewhere(world: &mut World, title: &str) {
    let mut times = Times::default();
    world.intents = Arc::new(Intents { networks: world.intents.networks.clone(), ..Intents::default() });
    let founder = Some(host_id(ME));
    let (mut derivation, mut kept) = (Derivation::default(), KeptDesired::default());
    let zone = Zone::build(derivation.derive(&world.records, founder), &world.intents);
    let nothing = Arc::clone(kept.desire(derivation.derive(&world.records, founder), &world.intents, &world.host));
    for number in 0..CHANGES {
        world.change(number % 2 == 0);
        let cluster = Arc::clone(times.take("derive", || derivation.derive(&world.records, founder)));
        let desired = times.take("desire", || kept.desire(&cluster, &world.intents, &world.host));
        assert!(Arc::ptr_eq(desired, &nothing), "nothing is to be planned");
        let followed = times.take("zone", || zone.follow(&cluster, &world.intents));
        assert!(followed.is_none(), "no name is to be told here");
    }
    times.print(&format!("{title}, none here:   "));
}

fn main() {
    println!("microseconds, medians of {CHANGES} changes of one endpoint each");
    for endpoints in [2_000, 10_000] {
        for networks in [1, 20, 200] {
            for here in BTreeSet::from([1, networks]) {
                let title = format!("{endpoints:>6} endpoints in {networks:>3} networks, {here:>3} of them here");
                from_nothing(&mut World::new(endpoints, networks, here), &title);
                step_by_step(&mut World::new(endpoints, networks, here), &title);
                if here == 1 {
                    elsewhere(&mut World::new(endpoints, networks, here), &title);
                }
            }
        }
    }
}
