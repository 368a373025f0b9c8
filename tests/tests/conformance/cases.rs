//! What holds for every kernel.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use overlay::datapath::attention::{Look, Part};
use overlay::datapath::desired::{Desired, Prefixed};
use overlay::datapath::fake::Fault;
use overlay::datapath::firewall::Element;
use overlay::datapath::foreign_chains::{Calls, ChainName, Policy, Protocols};
use overlay::datapath::kernel_api::{Cause, Kernel};
use overlay::datapath::plan::{Knowledge, RowStep, SegmentStep, Step, plan};
use overlay::datapath::round::round;
use overlay::model::addr::IfName;

use crate::bench::{Bench, go, look, refused, settle};
use crate::world::{
    PORT, add_remote, address, alike, endpoint, host, host_with, mac, network, port, segment, tunnel_of, unlike, vni,
};

/// Two networks, two endpoints, and others elsewhere.
fn busy_host<B: Bench>(bench: &mut B) -> anyhow::Result<Desired> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let mut desired = host_with(&[(1, &web)]);
    let mut second = segment(2, &[(2, &db)]);
    let first = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the first network")?);
    add_remote(first, 21, alike(first, 2));
    add_remote(first, 22, unlike(3));
    add_remote(&mut second, 23, unlike(3));
    desired.segments.insert(network(2), second.into());
    Ok(desired)
}

pub async fn a_round_makes_what_is_desired_and_the_next_has_nothing_to_do<B: Bench>(
    mut bench: B,
) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let observed = settle(&mut bench, &desired).await?;
    ensure!(observed.forwarding == desired.forwarding, "forwarding: {:?}", observed.forwarding);
    for (id, want) in &desired.segments {
        let have = observed.segments.get(id).context("a segment is missing")?;
        ensure!(*have.remotes == want.remotes && have.half_remotes.is_empty(), "remotes: {have:?}");
        ensure!(*have.neighbours == want.neighbours, "neighbours: {have:?}");
        ensure!(have.ports.len() == want.ports.len(), "ports: {have:?}");
    }
    let report = go(&mut bench, &desired).await?;
    ensure!(report.done.is_empty(), "the second round did {:?}", report.done);
    Ok(())
}

pub async fn whatever_is_broken_by_hand_is_repaired_by_one_round<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let whole = settle(&mut bench, &desired).await?;
    let (n, web) = (network(1), port_name(&desired, 1)?);
    let faults = [
        Fault::ForwardingOff,
        Fault::DeleteHostTable,
        Fault::DeleteTable(n),
        Fault::AddRule(n),
        Fault::BridgeDown(n),
        Fault::DeleteAddress(n, [10, 9, 0, 254].into()),
        Fault::DeleteTunnel(n),
        Fault::LetFlood(n),
        Fault::DeleteUplink(n),
        Fault::AddAddress(n),
        Fault::Alter(n),
        Fault::DeleteDefaultRoute(n),
        Fault::DeletePort(n, web.clone()),
        Fault::DetachPort(n, web.clone()),
        Fault::NarrowPort(n, web.clone()),
        Fault::Unmark(n, web),
        Fault::DeleteRemote(n, mac(21)),
        Fault::DeleteBridgeRow(n, mac(21)),
        Fault::DeleteTunnelRow(n, mac(22)),
        Fault::LetAge(n, mac(22)),
        Fault::DeleteNeighbour(n, address(21)),
        Fault::DeleteBridge(n),
        Fault::DeleteNamespace(n),
    ];
    for fault in faults {
        bench.inject(&fault).with_context(|| format!("{fault:?}"))?;
        let broken = look(&mut bench).await.with_context(|| format!("after {fault:?}"))?;
        ensure!(broken != whole, "{fault:?} is not seen");
        let repaired = settle(&mut bench, &desired).await.with_context(|| format!("after {fault:?}"))?;
        ensure!(repaired == whole, "{fault:?} left something else: {repaired:?}");
    }
    Ok(())
}

pub async fn a_look_at_a_part_shows_just_that_part<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let whole = settle(&mut bench, &desired).await?;
    for id in [network(1), network(2)] {
        let seen = bench.kernel().observe(&Part::Segment(id).into()).await?;
        ensure!(seen.segments.get(&id) == whole.segments.get(&id) && seen.segments.len() == 1, "{seen:?}");
        ensure!(seen.firewall.is_none() && seen.forwarding.is_empty(), "the host is in it: {seen:?}");
    }
    let seen = bench.kernel().observe(&Part::Host.into()).await?;
    ensure!(seen.firewall == whole.firewall && seen.forwarding == whole.forwarding, "{seen:?}");
    ensure!(seen.others == whole.others && seen.underlay_mtu == whole.underlay_mtu, "{seen:?}");
    ensure!(seen.segments.is_empty(), "a segment is in it: {seen:?}");
    let absent = bench.kernel().observe(&Part::Segment(network(9)).into()).await?;
    ensure!(absent.segments.is_empty(), "{absent:?}");
    Ok(())
}

pub async fn a_round_of_a_part_repairs_it_and_leaves_the_others<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let whole = settle(&mut bench, &desired).await?;
    let (one, other) = (network(1), network(2));
    for fault in [Fault::DeleteBridge, Fault::DeleteNamespace, Fault::DeleteTunnel] {
        bench.inject(&fault(one))?;
        bench.inject(&fault(other))?;
        let part = Look::from(Part::Segment(one));
        let (_, report) = round(bench.kernel(), &part, &desired, Knowledge::Whole).await?;
        ensure!(report.settled() && !report.done.is_empty(), "{report:?}");
        ensure!(report.done.iter().all(|step| step.network() == Some(one)), "{report:?}");
        let observed = look(&mut bench).await?;
        ensure!(observed.segments.get(&one) == whole.segments.get(&one), "{observed:?}");
        ensure!(observed.segments.get(&other) != whole.segments.get(&other), "the other was repaired as well");
        ensure!(settle(&mut bench, &desired).await? == whole, "something is left");
    }
    Ok(())
}

fn port_name(desired: &Desired, m: u8) -> anyhow::Result<IfName> {
    let ports = desired.segments.values().flat_map(|segment| &segment.ports);
    ports
        .into_iter()
        .find(|(id, _)| **id == endpoint(m))
        .map(|(_, port)| port.host_ifname.clone())
        .context("no such port")
}

pub async fn a_step_that_finds_its_work_done_succeeds<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let nothing = look(&mut bench).await?;
    let whole = settle(&mut bench, &desired).await?;
    let steps = plan(&nothing, &desired, Knowledge::Whole);
    for step in &steps {
        for result in bench.kernel().apply(std::slice::from_ref(step)).await {
            result.with_context(|| format!("again: {step:?}"))?;
        }
    }
    ensure!(look(&mut bench).await? == whole, "doing it all again changed something");
    let absent = [
        RowStep::DeleteRemote(mac(99)).into(),
        RowStep::DeleteNeighbour(address(99)).into(),
        SegmentStep::DeletePort("ovp000000000000".parse()?),
    ];
    for step in absent {
        for result in bench.kernel().apply(&[Step::Segment(network(1), step.clone())]).await {
            result.with_context(|| format!("not there: {step:?}"))?;
        }
    }
    for result in bench.kernel().apply(&[Step::Segment(network(9), SegmentStep::Delete)]).await {
        result.context("a segment that is not there")?;
    }
    Ok(())
}

pub async fn another_agent_adopts_what_is_there<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let before = settle(&mut bench, &desired).await?;
    bench.restart()?;
    let after = look(&mut bench).await?;
    ensure!(after == before, "before: {before:?}\nafter: {after:?}");
    let steps = plan(&after, &desired, Knowledge::Partial);
    ensure!(steps.is_empty(), "{steps:?}");
    Ok(())
}

pub async fn an_endpoint_goes_and_leaves_nothing<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    let before = look(&mut bench).await?;
    settle(&mut bench, &host_with(&[(1, &web), (2, &db)])).await?;
    let observed = settle(&mut bench, &host_with(&[(1, &web)])).await?;
    ensure!(observed == before, "left: {observed:?}");
    ensure!(bench.interfaces(&db)?.is_empty(), "left in the container: {:?}", bench.interfaces(&db)?);
    ensure!(!bench.interfaces(&web)?.is_empty(), "the other container lost its interface");
    Ok(())
}

pub async fn many_endpoints_go_in_one_round_and_the_others_stay<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let names: Vec<String> = (1..=6).map(|m| format!("c{m}")).collect();
    let mut containers = Vec::new();
    for name in &names {
        containers.push(bench.open_container(name)?);
    }
    let all: Vec<_> = (1..).zip(&containers).collect();
    settle(&mut bench, &host_with(&all[..2])).await?;
    let before = look(&mut bench).await?;
    settle(&mut bench, &host_with(&all)).await?;
    let report = go(&mut bench, &host_with(&all[..2])).await?;
    let leaving = |step: &&Step| matches!(step, Step::Segment(_, SegmentStep::DeletePort(_)));
    ensure!(report.done.iter().filter(leaving).count() == 4 && report.settled(), "{report:?}");
    ensure!(look(&mut bench).await? == before, "something else is left or gone");
    // One of them is gone by hand meanwhile: the others go nonetheless.
    settle(&mut bench, &host_with(&all)).await?;
    let nothing = Fault::DeletePort(network(1), overlay::datapath::desired::port_ifname(endpoint(4)));
    let steps = plan(&look(&mut bench).await?, &host_with(&all[..2]), Knowledge::Whole);
    bench.inject(&nothing)?;
    let ports: Vec<Step> = steps.into_iter().filter(|step| leaving(&step)).collect();
    for result in bench.kernel().apply(&ports).await {
        result.context("one of the ports")?;
    }
    settle(&mut bench, &host_with(&all[..2])).await?;
    Ok(())
}

pub async fn a_segment_goes_and_leaves_nothing<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    settle(&mut bench, &host()).await?;
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let before = bench.inventory(&[&web, &db])?;
    let mut desired = host_with(&[(1, &web), (2, &db)]);
    let first = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    add_remote(first, 21, alike(first, 2));
    settle(&mut bench, &desired).await?;
    settle(&mut bench, &host()).await?;
    let after = bench.inventory(&[&web, &db])?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    // And it can come back at once: its VNI is free.
    settle(&mut bench, &desired).await?;
    Ok(())
}

pub async fn an_interface_that_exists_is_never_touched<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    bench.add_foreign_interface(&web, &"eth0".parse()?)?;
    settle(&mut bench, &host_with(&[])).await?;
    let before = bench.inventory(&[&web])?;
    let (step, says) = refused(&mut bench, &host_with(&[(1, &web)]), Cause::AlreadyExists).await?;
    ensure!(matches!(step, Step::Segment(_, SegmentStep::CreatePort(..))), "{step:?}");
    ensure!(says.contains("eth0"), "does not name the interface: {says}");
    ensure!(bench.inventory(&[&web])? == before, "something was changed");
    Ok(())
}

pub async fn a_namespace_that_is_gone_is_refused<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    bench.close_container(&web)?;
    let report = go(&mut bench, &host_with(&[(1, &web), (2, &db)])).await?;
    ensure!(!report.failed.is_empty(), "nothing was refused");
    for (step, error) in &report.failed {
        ensure!(error.cause == Cause::Gone, "{step:?}: {error:?}");
    }
    ensure!(!bench.interfaces(&db)?.is_empty(), "the other endpoint has to go without its interface");
    let observed = look(&mut bench).await?;
    let ports = &observed.segments.get(&network(1)).context("the network")?.ports;
    ensure!(ports.len() == 1, "left: {ports:?}");
    Ok(())
}

pub async fn a_namespace_that_was_replaced_is_refused<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let mut web = bench.open_container("web")?;
    web.cookie += 1_000_000;
    let report = go(&mut bench, &host_with(&[(1, &web)])).await?;
    ensure!(report.failed.iter().any(|(_, error)| error.cause == Cause::Gone), "not refused: {report:?}");
    web.cookie -= 1_000_000;
    ensure!(bench.interfaces(&web)?.is_empty(), "another one's namespace was touched");
    Ok(())
}

pub async fn a_container_that_ended_takes_its_port_along<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    bench.close_container(&web)?;
    let observed = look(&mut bench).await?;
    let ports = &observed.segments.get(&network(1)).context("the network")?.ports;
    ensure!(ports.is_empty(), "left: {ports:?}");
    settle(&mut bench, &host_with(&[])).await?;
    Ok(())
}

pub async fn a_vni_that_is_taken_is_refused<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let desired = host_with(&[(1, &web)]);
    bench.take_vni(vni(101), PORT)?;
    let (step, says) = refused(&mut bench, &desired, Cause::AlreadyExists).await?;
    ensure!(matches!(step, Step::Segment(_, SegmentStep::CreateTunnel(_))), "{step:?}");
    ensure!(says.contains("101") && says.contains(&PORT.to_string()), "does not name VNI and port: {says}");
    Ok(())
}

pub async fn a_vni_of_another_network_of_ours_is_refused<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    let mut second = segment(2, &[]);
    tunnel_of(&mut second).vni = vni(101);
    desired.segments.insert(network(2), second.into());
    let (step, _) = refused(&mut bench, &desired, Cause::AlreadyExists).await?;
    ensure!(step.network() == Some(network(2)), "{step:?}");
    Ok(())
}

pub async fn a_udp_port_that_is_taken_is_refused<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    bench.take_udp_port(PORT)?;
    let (step, _) = refused(&mut bench, &host_with(&[]), Cause::AlreadyExists).await?;
    ensure!(matches!(step, Step::Segment(_, SegmentStep::ConnectTunnel { .. })), "{step:?}");
    Ok(())
}

pub async fn a_changed_wish_is_fulfilled<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[(1, &web)]);
    settle(&mut bench, &desired).await?;
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    segment.bridge.mtu = 1300;
    tunnel_of(segment).mtu = 1300;
    segment.ports.values_mut().for_each(|port| port.mtu = 1300);
    segment.bridge.addresses[0] = Prefixed { address: [10, 9, 0, 1].into(), len: 24 };
    let observed = settle(&mut bench, &desired).await.context("MTU and gateway")?;
    let mtus: Vec<u32> = observed.segments.values().flat_map(|s| s.ports.values()).map(|port| port.mtu).collect();
    ensure!(mtus == [1300], "the port has not followed: {mtus:?}");
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    tunnel_of(segment).vni = vni(4242);
    add_remote(segment, 21, alike(segment, 2));
    settle(&mut bench, &desired).await.context("VNI")?;
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    let uplink = segment.uplink.as_mut().context("the uplink")?;
    uplink.transits[0] =
        overlay::datapath::desired::Transit { host: [169, 254, 200, 0].into(), segment: [169, 254, 200, 1].into() };
    segment.firewall.chains.pop();
    settle(&mut bench, &desired).await.context("uplink and rules")?;
    Ok(())
}

pub async fn rules_for_the_bridge_come_change_and_go<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    settle(&mut bench, &desired).await?;
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    let filter = segment.filter.as_mut().context("the rules")?;
    filter.sets[0].elements.clear();
    let service = filter.sets[2].elements.first().cloned().context("a service")?;
    filter.sets[1].elements.insert(Element::of(service.key[..2].iter().rev().cloned()));
    let report = go(&mut bench, &desired).await?;
    ensure!(matches!(report.done.as_slice(), [Step::Segment(_, SegmentStep::UpdateFilter(_))]), "{report:?}");
    settle(&mut bench, &desired).await.context("other elements")?;
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    segment.filter.as_mut().context("the rules")?.chains[1].rules.pop();
    let report = go(&mut bench, &desired).await?;
    ensure!(matches!(report.done.as_slice(), [Step::Segment(_, SegmentStep::ReplaceFilter(_))]), "{report:?}");
    settle(&mut bench, &desired).await.context("other rules")?;
    Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?).filter = None;
    let observed = settle(&mut bench, &desired).await.context("none")?;
    ensure!(observed.segments.values().all(|segment| segment.filter.is_none()), "it is there: {observed:?}");
    Ok(())
}

pub async fn a_port_follows_the_mtu_and_is_not_made_anew<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut desired = host_with(&[(1, &web)]);
    settle(&mut bench, &desired).await?;
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    segment.ports.values_mut().for_each(|port| port.mtu = 1400);
    let report = go(&mut bench, &desired).await?;
    ensure!(matches!(report.done.as_slice(), [Step::Segment(_, SegmentStep::UpdatePort(_))]), "{report:?}");
    settle(&mut bench, &desired).await?;
    Ok(())
}

pub async fn a_port_whose_container_is_gone_does_not_follow<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let mut web = bench.open_container("web")?;
    let before = settle(&mut bench, &host_with(&[(1, &web)])).await?;
    // Another namespace stands at its path.
    web.cookie += 1_000_000;
    let mut desired = host_with(&[(1, &web)]);
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    segment.ports.values_mut().for_each(|port| port.mtu = 1400);
    let (step, _) = refused(&mut bench, &desired, Cause::Gone).await?;
    ensure!(matches!(step, Step::Segment(_, SegmentStep::UpdatePort(_))), "{step:?}");
    ensure!(look(&mut bench).await? == before, "something was changed");
    Ok(())
}

pub async fn a_mac_moves_between_hosts_and_home_again<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    let mut elsewhere = host_with(&[]);
    let segment = Arc::make_mut(elsewhere.segments.get_mut(&network(1)).context("the network")?);
    add_remote(segment, 1, alike(segment, 2));
    settle(&mut bench, &elsewhere).await.context("on the second host")?;
    let segment = Arc::make_mut(elsewhere.segments.get_mut(&network(1)).context("the network")?);
    add_remote(segment, 1, unlike(3));
    let report = go(&mut bench, &elsewhere).await?;
    ensure!(
        matches!(report.done.as_slice(), [Step::Segment(_, SegmentStep::Row(RowStep::PutRemote(..)))]),
        "{:?}",
        report.done
    );
    settle(&mut bench, &elsewhere).await.context("on the third")?;
    settle(&mut bench, &host_with(&[(1, &web)])).await.context("here")?;
    settle(&mut bench, &elsewhere).await.context("and away again")?;
    ensure!(bench.interfaces(&web)?.is_empty(), "it is still here, too");
    Ok(())
}

pub async fn two_thousand_remotes_come_and_go<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    let segment = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    let empty = segment.clone();
    for n in 0..2000_u16 {
        let [high, low] = n.to_be_bytes();
        let ip = [10, 8, high, low].into();
        let mac = overlay::model::addr::Mac::of_address(ip);
        let remote = if n % 3 == 0 { unlike(3) } else { alike(segment, 2) };
        segment.remotes.insert(mac, remote);
        segment.neighbours.insert(ip, mac);
    }
    let observed = settle(&mut bench, &desired).await?;
    ensure!(observed.segments.get(&network(1)).is_some_and(|s| s.remotes.len() == 2000), "some are missing");
    desired.segments.insert(network(1), empty.into());
    settle(&mut bench, &desired).await?;
    Ok(())
}

pub async fn what_is_not_known_yet_is_not_taken_away<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let desired = busy_host(&mut bench)?;
    let before = settle(&mut bench, &desired).await?;
    let mut ignorant = desired.clone();
    for segment in ignorant.segments.values_mut().map(Arc::make_mut) {
        segment.remotes.clear();
        segment.neighbours.clear();
        let sets = segment.filter.iter_mut().flat_map(|filter| &mut filter.sets);
        sets.filter(|set| !["own", "own6", "told6"].contains(&set.name())).for_each(|set| set.elements.clear());
    }
    let (_, report) = round(bench.kernel(), &Look::Everything, &ignorant, Knowledge::Partial).await?;
    ensure!(report.done.is_empty(), "{:?}", report.done);
    ensure!(look(&mut bench).await? == before, "something was taken away");
    settle(&mut bench, &ignorant).await?;
    Ok(())
}

pub async fn two_networks_with_the_same_subnet_stand_side_by_side<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let (web, db) = (bench.open_container("web")?, bench.open_container("db")?);
    let mut desired = host_with(&[(1, &web)]);
    let mut second = segment(2, &[]);
    // The same address, and so the same MAC, in both.
    let mut twin = port(1, &db);
    twin.host_ifname = overlay::datapath::desired::port_ifname(endpoint(2));
    second.ports.insert(endpoint(2), twin);
    desired.segments.insert(network(2), second.into());
    let both = settle(&mut bench, &desired).await?;
    desired.segments.remove(&network(1));
    let one = settle(&mut bench, &desired).await?;
    ensure!(both.segments.get(&network(2)) == one.segments.get(&network(2)), "the one that stays has changed");
    Ok(())
}

pub async fn chains_of_others_let_containers_pass_while_there_is_a_way_out<B: Bench>(
    mut bench: B,
) -> anyhow::Result<()> {
    let chain =
        |family, table: &str, chain: &str| ChainName { family, table: table.to_owned(), chain: chain.to_owned() };
    let chains = [
        (chain(Protocols::Ip, "filter", "DOCKER-USER"), Policy::Return),
        (chain(Protocols::Ip6, "filter", "FORWARD"), Policy::Drop),
        (chain(Protocols::Inet, "firewalld", "filter_FORWARD"), Policy::Accept),
    ];
    let others = [
        (chain(Protocols::Ip, "filter", "FORWARD"), Policy::Drop),
        (chain(Protocols::Inet, "mine", "passing"), Policy::Drop),
    ];
    bench.add_way_out(&"wan0".parse()?)?;
    for (name, policy) in chains.iter().chain(&others) {
        let calls_docker = name.family == Protocols::Ip && *policy == Policy::Drop;
        bench.add_chain(name, *policy, if calls_docker { Calls::DockerUser } else { Calls::Nothing })?;
    }
    settle(&mut bench, &host()).await?;
    let before = bench.inventory(&[])?;
    let whole = settle(&mut bench, &host_with(&[])).await?;
    for (name, policy) in &chains {
        let info = whole.others.chains.get(name).with_context(|| format!("{name} is not seen"))?;
        ensure!(info.ours == ["overlayd:in", "overlayd:out:wan0"] && info.policy == *policy, "{name}: {info:?}");
        bench.inject(&Fault::DeleteAcceptRules(name.clone()))?;
        ensure!(look(&mut bench).await? != whole, "{name}: it is not seen that it is shut");
        let repaired = settle(&mut bench, &host_with(&[])).await?;
        ensure!(repaired == whole, "{name}: {repaired:?}");
    }
    for (name, policy) in &others {
        let info = whole.others.chains.get(name).with_context(|| format!("{name} is not seen"))?;
        ensure!(info.ours.is_empty() && info.policy == *policy, "{name}: {info:?}");
    }
    let mut inside = host_with(&[]);
    Arc::make_mut(inside.segments.get_mut(&network(1)).context("the network")?).uplink = None;
    let observed = settle(&mut bench, &inside).await.context("no way out")?;
    ensure!(observed.others.chains.values().all(|info| info.ours.is_empty()), "{observed:?}");
    settle(&mut bench, &host_with(&[])).await?;
    settle(&mut bench, &host()).await?;
    let after = bench.inventory(&[])?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

pub async fn what_is_foreign_survives<B: Bench>(mut bench: B) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    bench.add_foreign_interface(&web, &"docker0".parse()?)?;
    bench.take_vni(vni(4096), 4789)?;
    settle(&mut bench, &host()).await?;
    let before = bench.inventory(&[&web])?;
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    if !bench.interfaces(&web)?.contains(&"docker0".parse()?) {
        bail!("the container's own interface is gone");
    }
    settle(&mut bench, &host()).await?;
    let after = bench.inventory(&[&web])?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
