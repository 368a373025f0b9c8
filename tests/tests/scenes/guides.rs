//! What the container networking guides teach on one host, here on one and across two.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use overlay_tests::eventually::eventually;
use overlay_tests::lab::{Container, Host, Lab, Place, WORLD, mapped, underlay};

use super::support::complaint::complains;
use super::support::service::{doorman, is_refused, visit};
use super::support::{HALF_A_SECOND, SECOND};

pub fn a_command_runs_in_the_host_in_nothing_or_in_another_container() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    let near = lab.reachable("h1", "web", "near", "--ip 10.20.0.9")?;
    let shown = lab.ctl("h1", "run --network host -- ip -br address")?.ok()?;
    ensure!(shown.contains(&underlay("h1")?.to_string()), "the host's own interfaces: {shown}");
    let shown = lab.ctl("h1", "run --network none -- ip -br address")?.ok()?;
    ensure!(shown.contains("lo") && shown.lines().count() == 1, "nothing but the loopback interface: {shown}");
    let shown = lab.ctl("h1", "run --network container:near -- ip -br address")?.ok()?;
    ensure!(shown.contains("10.20.0.9/24"), "the other's interfaces: {shown}");
    ensure!(lab.ctl("h1", "run --network container:near -- ping -n -c 1 -W 1 far")?.code == 0, "and its names");
    // Nothing of it goes with the command.
    near.ping(far.address()?, SECOND)?;

    let sleeper = lab.start_ctl("h1", "run --network none -- sleep 60", "sleeper")?;
    let told = eventually(5 * SECOND, "it to say how to connect it", || {
        let said = sleeper.printed()?;
        let pid = said.split("--pid ").nth(1).and_then(|rest| rest.split(' ').next()).context(said.clone())?;
        Ok(pid.parse::<u32>()?)
    })?;
    lab.ctl("h1", &format!("network connect web --pid {told} --name late --ip 10.20.0.10"))?.ok()?;
    eventually(5 * SECOND, "it to be reached", || far.ping("10.20.0.10", SECOND))?;

    for (line, words) in [
        ("run --network container:nobody -- true", &["`nobody`", "endpoint ls"][..]),
        ("run --network container:far -- true", &["`far`", "host `h2`"]),
        ("run --network container: -- true", &["container:NAME"]),
        ("run --network bridge:x -- true", &["`bridge:`", "container:NAME"]),
        ("run --network host --name me -- true", &["--name", "leave it out"]),
        ("run --network none --ip 10.20.0.7 -- true", &["--ip", "leave it out"]),
        ("run --network web -- true", &["`web`", "--name"]),
    ] {
        let done = lab.ctl("h1", line)?;
        complains(&done, words)?;
    }
    Ok(())
}

pub fn a_bridge_network_is_on_its_host_and_nowhere_else() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.ctl("h1", "network create here --driver bridge --subnet 10.50.0.0/24 --label tier=local")?.ok()?;
    let (one, two) = (lab.connect("h1", "here", "one", "")?, lab.connect("h1", "here", "two", "")?);
    eventually(SECOND, "the other one to answer", || one.ping(two.address()?, SECOND))?;
    one.ping(WORLD, SECOND)?;
    ensure!(one.dig("two")?.addresses() == [two.address()?], "its name");
    let links = lab.in_segment("h1", "here", "ip -br link")?;
    ensure!(links.contains("br0") && !links.contains("vx0"), "{links}");
    let (link, underlay) = (one.sh("ip -o link show eth0")?, &lab.json("h1", "status")?["underlay_mtu"]);
    ensure!(link.contains(&format!("mtu {underlay} ")), "nothing is added to a packet: {underlay}, {link}");
    let inspected = lab.json("h1", "network inspect here")?;
    for (pointer, value) in [("/0/Driver", "bridge"), ("/0/Scope", "local"), ("/0/Labels/tier", "local")] {
        ensure!(inspected.pointer(pointer).and_then(|v| v.as_str()) == Some(value), "{pointer}: {inspected:#}");
    }
    // The other host may have one of the same name, and nothing passes between the two.
    let unknown = lab.ctl("h2", "network inspect here")?;
    ensure!(unknown.code != 0 && unknown.stderr.contains("no network `here`"), "{unknown:?}");
    lab.ctl("h2", "network create here --driver bridge --subnet 10.50.0.0/24")?.ok()?;
    let far = lab.connect("h2", "here", "far", "--ip 10.50.0.77")?;
    far.ping(WORLD, SECOND)?;
    ensure!(one.ping("10.50.0.77", HALF_A_SECOND).is_err(), "a packet crossed");
    ensure!(lab.json("h1", "network inspect here")?[0]["Containers"].as_object().is_some_and(|c| c.len() == 2), "two");
    lab.kernels_are_as_they_should_be()
}

pub fn an_internal_network_has_no_way_out() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.ctl("h1", "network create closed --internal --subnet 10.51.0.0/24")?.ok()?;
    eventually(5 * SECOND, "h2 to know it", || lab.json("h2", "network inspect closed"))?;
    let near = lab.reachable("h1", "closed", "near", "")?;
    let far = lab.reachable("h2", "closed", "far", "")?;
    near.ping(far.address()?, SECOND)?;
    ensure!(near.dig("far")?.addresses() == [far.address()?], "names of the network itself");
    let world = near.dig("example.com")?;
    ensure!(world.status == "NXDOMAIN", "a name of the world: {world:?}");
    for to in [IpAddr::from(WORLD), underlay("h1")?.into(), underlay("h2")?.into()] {
        ensure!(near.ping(to, HALF_A_SECOND).is_err(), "{to} is reached");
    }
    let done = lab.ctl("h1", "endpoint publish closed near -p 8088:80")?;
    ensure!(done.code != 0 && done.stderr.contains("internal"), "{done:?}");
    lab.kernels_are_as_they_should_be()
}

pub fn a_network_without_masquerade_is_routed() -> anyhow::Result<()> {
    let lab = Lab::with_agents(1)?;
    lab.ctl("h1", "network create open --no-masquerade --subnet 10.52.0.0/24")?.ok()?;
    let web = lab.connect("h1", "open", "web", "-p 8088:80")?;
    let _door = doorman(&web, 80)?;
    let internet = lab.internet();
    // Nobody out there knows the way yet.
    ensure!(web.ping(WORLD, HALF_A_SECOND).is_err(), "somebody has masqueraded");
    let learnt = internet.sh(&format!("ip route add 10.52.0.0/24 via {}", underlay("h1")?));
    learnt.context("the world learns the way")?;
    web.ping(WORLD, SECOND)?;
    // A published port is; all else is not.
    let (name, _) = visit(&lab, &internet.place(), "tcp", format!("{}:8088", underlay("h1")?), "")?;
    ensure!(name == "web", "{name} answers");
    // From the host, from a neighbour, and from itself; and an address with such a port on the way is not taken for the port.
    let near = lab.connect("h1", "open", "near", "")?;
    for place in [&lab.host("h1")?.place(), near.place(), web.place()] {
        let (name, _) = visit(&lab, place, "tcp", format!("{}:8088", underlay("h1")?), "")?;
        ensure!(name == "web", "{name} answers");
    }
    is_refused(&lab, &lab.host("h1")?.place(), "tcp", &format!("{}:8088", near.address()?))?;
    is_refused(&lab, &internet.place(), "tcp", &format!("{}:80", web.address()?))?;
    let routes = lab.host("h1")?.sh("ip route show 10.52.0.0/24")?;
    ensure!(routes.contains("dev ovu"), "{routes}");
    lab.host("h1")?.sh("ip route del 10.52.0.0/24")?;
    eventually(2 * SECOND, "the route to be there again", || {
        let routes = lab.host("h1")?.sh("ip route show 10.52.0.0/24")?;
        ensure!(routes.contains("dev ovu"), "{routes}");
        Ok(())
    })?;
    lab.kernels_are_as_they_should_be()
}

pub fn networks_are_found_pruned_and_limited_in_docker_s_words() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    for line in [
        "network create a --subnet 10.60.0.0/24 --label tier=web --label old",
        "network create b --subnet 10.61.0.0/24 --label tier=db --mtu 1300",
        "network create c --subnet 10.62.0.0/24 --ip-range 10.62.0.64/26 --gateway 10.62.0.200 --aux-address router=10.62.0.65",
    ] {
        lab.ctl("h1", line)?.ok()?;
    }
    eventually(5 * SECOND, "h2 to know them", || lab.json("h2", "network inspect a b c"))?;
    let ids = lab.ctl("h2", "network ls -q --filter label=tier")?.ok()?;
    ensure!(ids.lines().count() == 2, "{ids}");
    // Addresses come from the range, on any host; others can be asked for, but for those that are something else's.
    let one = lab.connect("h1", "c", "one", "")?;
    let two = lab.connect("h2", "c", "two", "")?;
    for container in [&one, &two] {
        let address = container.address()?;
        ensure!((64..128).contains(&address.octets()[3]), "{address} is not of the range");
        let route = container.sh("ip route show default")?;
        ensure!(route.contains("via 10.62.0.200"), "{route}");
    }
    lab.connect("h2", "c", "three", "--ip 10.62.0.9")?;
    lab.container("h2", "four")?;
    let done = lab.ctl("h2", "network connect c --netns /run/netns/four --name four --ip 10.62.0.65")?;
    ensure!(done.code != 0 && done.stderr.contains("10.62.0.65") && done.stderr.contains("auxiliary"), "{done:?}");
    let narrow = lab.connect("h2", "b", "narrow", "")?;
    ensure!(narrow.sh("ip -o link show eth0")?.contains("mtu 1300 "), "as was asked for");

    let asked = lab.ctl("h2", "network prune --filter driver=vxlan --force")?;
    ensure!(asked.code == 2 && asked.stderr.contains("driver"), "{asked:?}");
    let pruned = lab.ctl("h2", "network prune --force")?.ok()?;
    ensure!(pruned.trim() == "a", "only what nobody is in: {pruned}");
    eventually(5 * SECOND, "h1 to know who is in b", || {
        ensure!(lab.rows("h1", "endpoint ls b")?.len() == 1, "nobody");
        Ok(())
    })?;
    let used = lab.ctl("h1", "network rm b c")?;
    ensure!(
        used.code != 0 && used.stderr.contains("`narrow`") && used.stderr.contains("`one`"),
        "each says by whom: {used:?}"
    );
    Ok(())
}

pub fn tcp_segments_fit_the_network_whatever_an_interface_says() -> anyhow::Result<()> {
    let lab = Lab::with_agents(1)?;
    lab.ctl("h1", "network create narrow --mtu 1300 --subnet 10.63.0.0/24")?.ok()?;
    let app = lab.connect("h1", "narrow", "app", "")?;
    app.sh("ip link set eth0 mtu 1500")?;
    let world = lab.internet();
    let mut server = world.place().tool("doorman world 80", Path::new("/run/lab/doorman.log"))?;
    server.wait_for("ready", 5 * SECOND)?;
    // What either says that it takes, as the other one hears it: 1,300 bytes less the headers of IPv4 and TCP.
    let hears = |place: &Place, port: &str| {
        place.sh("nft add table inet heard")?;
        place.sh("nft add chain inet heard input { type filter hook input priority 0 ; }")?;
        place.sh(&format!(
            "nft add rule inet heard input tcp {port} 80 tcp flags syn tcp option maxseg size 1260 counter"
        ))
    };
    hears(&world.place(), "dport")?;
    hears(app.place(), "sport")?;
    let (name, _) = visit(&lab, app.place(), "tcp", format!("{}:80", IpAddr::from(WORLD)), "")?;
    ensure!(name == "world", "{name} answers");
    for place in [&world.place(), app.place()] {
        let heard = place.sh("nft list table inet heard")?;
        ensure!(heard.contains("packets 1 "), "it did not hear of 1260 bytes: {heard}");
    }
    Ok(())
}

pub fn a_container_is_in_several_networks() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.ctl("h1", "network create front --subnet 10.80.0.0/24")?.ok()?;
    lab.ctl("h1", "network create back --subnet 10.81.0.0/24")?.ok()?;
    lab.ctl("h1", "network create vault --subnet 10.82.0.0/24 --internal")?.ok()?;
    eventually(5 * SECOND, "h2 to know them", || lab.json("h2", "network inspect front back vault"))?;
    let app = lab.connect("h1", "vault", "app", "")?;
    let join = |network: &str, more: &str| {
        let line = format!("network connect {network} --netns {} --name app {more}", app.netns().display());
        lab.json("h1", &line)
    };
    let goes_by = |gateway: &str| {
        let route = app.sh(&format!("ip route get {}", IpAddr::from(WORLD)))?;
        ensure!(route.contains(&format!("via {gateway} ")), "{route}");
        app.ping(WORLD, SECOND)
    };
    let no_way = app.ping(WORLD, HALF_A_SECOND);
    ensure!(no_way.is_err(), "there is no way out of the vault");

    // Each interface has the next name; the way out is that of the highest priority, or of the first.
    ensure!(join("back", "")?["ifname"] == "eth1", "the second interface");
    goes_by("10.81.0.1")?;
    join("front", "--gw-priority 5")?;
    goes_by("10.80.0.1")?;
    lab.ctl("h1", "network disconnect front app")?.ok()?;
    goes_by("10.81.0.1")?;
    join("front", "")?;
    goes_by("10.81.0.1")?;

    // It knows the names in all of its networks, and others do not.
    let [web, db, gold] = [("front", "web", "--alias pool"), ("back", "db", "--alias pool"), ("vault", "gold", "")]
        .map(|(network, name, more)| lab.connect("h2", network, name, more));
    let (web, db, gold) = (web?, db?, gold?);
    for (name, container) in [("web", &web), ("db", &db), ("gold", &gold), ("web.front", &web), ("gold.vault", &gold)] {
        eventually(2 * SECOND, "its name to be known", || {
            let reply = app.dig(name)?;
            ensure!(reply.addresses() == [container.address()?], "{name}: {reply:?}");
            Ok(())
        })?;
        eventually(5 * SECOND, "it to be reached", || app.ping(name, SECOND))?;
    }
    for (asker, name) in [(&web, "db"), (&web, "gold.vault"), (&db, "web"), (&gold, "web")] {
        let reply = asker.dig(name)?;
        // What is no name of its own networks may be one of the world, where the lab has no nameserver.
        let status = if name.contains('.') { "SERVFAIL" } else { "NXDOMAIN" };
        ensure!(reply.addresses().is_empty() && reply.status == status, "{} knows {name}: {reply:?}", asker.name());
    }
    ensure!(gold.dig("example.com")?.status == "NXDOMAIN", "a name of the world in the vault");
    // A name in two networks means the one that it asks in; both have their own.
    let twin = lab.connect("h1", "back", "web", "")?;
    for (name, container) in [("web.front", &web), ("web.back", &twin)] {
        eventually(2 * SECOND, "both to be known", || {
            let reply = app.dig(name)?;
            ensure!(reply.addresses() == [container.address()?], "{name}: {reply:?}");
            Ok(())
        })?;
    }
    let asked = |server: &str| app.sh(&format!("dig +short @{server} web"));
    ensure!(asked("10.80.0.1")?.trim() == web.address()?.to_string(), "asked in front");
    ensure!(asked("10.81.0.1")?.trim() == twin.address()?.to_string(), "asked in back");
    ensure!(web.ping(db.address()?, HALF_A_SECOND).is_err(), "a container in both is no way from one to the other");

    // An alias that several share is all of them, in any order.
    let more = lab.connect("h2", "front", "more", "--alias pool")?;
    let mut first = BTreeSet::new();
    eventually(10 * SECOND, "each to come first at some time", || {
        let addresses = app.sh("dig +short @10.80.0.1 pool")?;
        let shown: Vec<&str> = addresses.lines().collect();
        ensure!(shown.len() == 2, "{addresses}");
        first.insert(shown[0].to_owned());
        ensure!(first == [web.address()?.to_string(), more.address()?.to_string()].into(), "{first:?}");
        Ok(())
    })?;
    for network in ["front", "back", "vault"] {
        lab.ctl("h1", &format!("network disconnect {network} app"))?.ok()?;
    }
    let left = app.sh("ip -br link")?;
    ensure!(left.lines().count() == 1 && app.sh("ip route")?.is_empty(), "something is left: {left}");
    lab.kernels_are_as_they_should_be()
}

pub fn what_is_in_the_kernel_is_shown() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.83.0.0/24")?;
    let near = lab.reachable("h1", "web", "near", "-p 8088:80")?;
    let far = lab.reachable("h2", "web", "far", "")?;
    lab.wait_until_reachable("web", &near)?;
    near.ping(far.address()?, SECOND)?;
    let shown = lab.json("h1", "endpoint inspect web/near")?;
    let (inner, outer) = (&shown["container_end"], &shown["host_end"]);
    let link = near.sh("ip -o link show eth0")?;
    ensure!(link.starts_with(&format!("{}: eth0@if{}:", inner["index"], outer["index"])), "{link}: {shown:#}");
    ensure!(outer["index"] == inner["peer_index"] && outer["peer_index"] == inner["index"], "{shown:#}");
    ensure!(outer["controller"] == "br0" && outer["received_packets"].as_u64() > Some(0), "{shown:#}");
    let has = |key: &str, text: &str| {
        shown[key].as_array().is_some_and(|all| all.iter().any(|one| one.to_string().contains(text)))
    };
    ensure!(has("leases", "h1") && has("rules", &format!("8088 : {} . 80", near.address()?)), "{shown:#}");
    let elsewhere = lab.ctl("h1", "endpoint inspect far")?;
    ensure!(elsewhere.code == 1 && elsewhere.stderr.contains("host `h2`"), "{elsewhere:?}");

    let kernel = lab.json("h1", "network inspect --kernel web")?;
    let row = |table: &str, key: &str, value: &str| {
        let rows = kernel[0][table].as_array().context("no list")?;
        rows.iter().find(|row| row[key] == value).cloned().with_context(|| format!("no {value} in {table}: {kernel:#}"))
    };
    ensure!(row("interfaces", "name", "br0")?["kind"] == "bridge", "{kernel:#}");
    ensure!(row("interfaces", "name", "vx0")?["controller"] == "br0", "{kernel:#}");
    let mac = lab.rows("h1", "endpoint ls web")?.iter().find(|row| row["name"] == "far").context("far")?["mac"].clone();
    let mac = mac.as_str().context("no MAC")?;
    ensure!(row("neighbours", "mac", mac)?["address"] == far.address()?.to_string(), "{kernel:#}");
    let entries = kernel[0]["entries"].as_array().context("no list")?;
    let tables: BTreeSet<_> = entries.iter().filter(|e| e["mac"] == mac).filter_map(|e| e["table"].as_str()).collect();
    ensure!(tables == ["bridge", "tunnel"].into(), "{kernel:#}");
    ensure!(kernel[0]["rules"].as_str().is_some_and(|rules| rules.contains("counter packets")), "{kernel:#}");
    let table = lab.ctl("h1", "network inspect --kernel web")?.ok()?;
    ensure!(["namespace /run/", "br0", mac, "table inet overlay"].iter().all(|word| table.contains(word)), "{table}");
    lab.ctl("h1", "network create empty --subnet 10.84.0.0/24")?.ok()?;
    let nothing = lab.ctl("h1", "network inspect --kernel empty")?;
    ensure!(nothing.code == 1 && nothing.stderr.contains("no endpoint in network `empty`"), "{nothing:?}");
    Ok(())
}

fn carries(container: &Container, mtu: u32) -> anyhow::Result<()> {
    let link = container.sh("ip -o link show eth0")?;
    ensure!(link.contains(&format!("mtu {mtu} ")), "{} on {}: {link}", container.name(), container.host());
    Ok(())
}

pub fn the_mtu_follows_the_underlay_of_every_host() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24 --subnet fd00:20::/64")?;
    let (near, far) = (lab.reachable("h1", "web", "near", "")?, lab.reachable("h2", "web", "far", "")?);
    for (underlay, mtu) in [(1400, 1350), (1500, 1450)] {
        lab.host("h2")?.ip(&format!("link set eth0 mtu {underlay}"))?;
        for container in [&near, &far] {
            eventually(5 * SECOND, &format!("{} to follow", container.name()), || carries(container, mtu))?;
            eventually(5 * SECOND, "the bridge to follow", || {
                let bridge = lab.in_segment(container.host(), "web", "ip -o link show br0")?;
                ensure!(bridge.contains(&format!("mtu {mtu} ")), "{bridge}");
                Ok(())
            })?;
        }
        ensure!(lab.json("h2", "status")?["underlay_mtu"] == underlay, "h2 says otherwise");
        // What fits crosses whole, and what does not is not sent.
        near.sh(&format!("ping -n -M do -s {} -c 1 -W 1 {}", mtu - 28, far.address()?))?;
        ensure!(
            near.try_sh(&format!("ping -n -M do -s {} -c 1 -W 1 {}", mtu - 27, far.address()?))?.code != 0,
            "it went"
        );
        near.ping(far.address6()?, SECOND)?;
    }
    lab.kernels_are_as_they_should_be()
}

pub fn the_guides_own_clients_are_served() -> anyhow::Result<()> {
    let lab = Lab::with_agents(2)?;
    lab.network("web", "10.20.0.0/24 --subnet fd00:20::/64")?;
    let site = Host::directory("h1").join("site");
    std::fs::create_dir_all(&site)?;
    std::fs::write(site.join("index.html"), "it works\n")?;
    let line = format!("run --network web --name web -p 8088:80 -- busybox httpd -f -p 80 -h {}", site.display());
    let _web = lab.start_ctl("h1", &line, "web")?;
    let _redis = lab.start_ctl(
        "h2",
        "run --network web --name cache -p 6400:6379 -- redis-server --protected-mode no",
        "cache",
    )?;
    let (near, far) = (lab.reachable("h1", "web", "near", "")?, lab.reachable("h2", "web", "far", "")?);
    let (h1, h2) = (underlay("h1")?, underlay("h2")?);
    let curl = |place: &Place, to: &str| -> anyhow::Result<()> {
        let page = place.sh(&format!("curl --silent --show-error --max-time 2 http://{to}/"))?;
        ensure!(page == "it works\n", "{to} says {page}");
        Ok(())
    };
    for container in [&near, &far] {
        // By name, which means both versions, and by the published port.
        eventually(10 * SECOND, "the page", || curl(container.place(), "web"))?;
        for to in ["web.web".to_owned(), format!("{h1}:8088"), format!("[{}]:8088", mapped(h1))] {
            curl(container.place(), &to).with_context(|| format!("from {}", container.name()))?;
        }
        container.sh("nc -z -w 2 web 80")?;
        ensure!(container.try_sh("nc -z -w 1 web 81")?.code != 0, "nobody listens there");
        container.sh("ping -c 1 -W 1 web")?;
        let pong = eventually(10 * SECOND, "Redis", || container.sh("redis-cli -h cache ping"))?;
        ensure!(pong.trim() == "PONG", "{pong}");
        let answer = container.sh("dig +short cache")?;
        ensure!(!answer.trim().is_empty(), "no address of cache");
    }
    for place in [lab.internet().place(), lab.host("h1")?.place(), lab.host("h2")?.place()] {
        curl(&place, &format!("{h1}:8088"))?;
        curl(&place, &format!("[{}]:8088", mapped(h1)))?;
        let pong = place.sh(&format!("redis-cli -h {h2} -p 6400 ping"))?;
        ensure!(pong.trim() == "PONG", "{pong}");
        ensure!(place.try_sh(&format!("nc -z -w 1 {h1} 80"))?.code != 0, "port 80 of the host is nobody's");
    }
    curl(&lab.host("h1")?.place(), "127.0.0.1:8088")
}
