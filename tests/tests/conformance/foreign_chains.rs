//! What programs of others make of their chains, and of our rules in them: `iptables` in both kinds, and who owns a table.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use overlay::datapath::foreign_chains::{BlockingChain, blocking_chains};
use overlay_tests::eventually::eventually;

use crate::bench::{Bench, go, look, settle};
use crate::real::{self, RealBench, sh};
use crate::world::{VTEP, host, host_with};

/// The cases.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("real::what_iptables_has_saved_and_restored_is_known", || real::run(iptables_reads_and_restores)),
        Trial::test("real::what_only_its_owner_may_change_is_told", || real::run(owned_tables_are_told)),
        Trial::test("real::legacy_rules_are_told", || real::run(legacy_rules_are_told)),
        Trial::test("real::an_address_like_our_names_does_not_let_us_pass", || real::run(address_like_our_names)),
        Trial::test("real::only_docker_s_own_chain_takes_our_rules", || real::run(chains_like_dockers)),
        Trial::test("real::outwards_only_the_ways_to_other_hosts_are_open", || real::run(bridges_stay_shut)),
    ]
}

async fn iptables_reads_and_restores(mut bench: RealBench) -> anyhow::Result<()> {
    bench.add_way_out(&"wan0".parse()?)?;
    for program in ["iptables", "ip6tables"] {
        sh(&format!("{program} -P FORWARD DROP && {program} -A FORWARD -p tcp --dport 22 -j ACCEPT"))?;
    }
    settle(&mut bench, &host()).await?;
    let before = rules()?;
    let whole = settle(&mut bench, &host_with(&[])).await?;
    let read = sh("iptables -S FORWARD")?;
    for rule in [
        "-A FORWARD -o ovu+ -m comment --comment \"overlayd:in\" -j ACCEPT",
        "-A FORWARD -i ovu+ -o wan0 -m comment --comment \"overlayd:out:wan0\" -j ACCEPT",
    ] {
        ensure!(read.lines().any(|line| line == rule), "{rule} is not in {read}");
    }
    sh("iptables -nvL && ip6tables -nvL")?;
    // A copy of them has the comment elsewhere.
    for program in ["iptables", "ip6tables"] {
        sh(&format!("{program}-save > /run/lab/{program} && {program}-restore < /run/lab/{program}"))?;
    }
    let report = go(&mut bench, &host_with(&[])).await?;
    ensure!(report.done.is_empty(), "it is not known: {:?}", report.done);
    ensure!(look(&mut bench).await? == whole, "something is different");
    // One that is there twice goes once, as often as it takes.
    sh("iptables -I FORWARD -o ovu+ -m comment --comment overlayd:in -j ACCEPT")?;
    ensure!(settle(&mut bench, &host_with(&[])).await? == whole, "it is there twice");
    settle(&mut bench, &host()).await?;
    ensure!(rules()? == before, "before:\n{before}\nafter:\n{}", rules()?);
    Ok(())
}

/// All rules of `iptables` less what they have counted.
fn rules() -> anyhow::Result<String> {
    sh("iptables -S; ip6tables -S")
}

async fn owned_tables_are_told(mut bench: RealBench) -> anyhow::Result<()> {
    let _owner = own("add table inet firewalld { flags owner; }\n\
         add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }\n")?;
    eventually(std::time::Duration::from_secs(5), "the table to be there", || {
        sh("nft list chain inet firewalld filter_FORWARD")
    })?;
    let wish = host_with(&[]);
    let observed = settle(&mut bench, &wish).await?;
    let told: Vec<BlockingChain> = blocking_chains(&observed.others, &wish).into_iter().collect();
    ensure!(matches!(told.as_slice(), [BlockingChain::Owned(chain)] if chain.table == "firewalld"), "{told:?}");
    Ok(())
}

/// An `nft` that stays, and with it what it owns.
fn own(script: &str) -> anyhow::Result<Ended> {
    let mut nft = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    nft.stdin.as_mut().context("its input")?.write_all(script.as_bytes())?;
    Ok(Ended(nft))
}

/// Ends with its guard.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

async fn legacy_rules_are_told(mut bench: RealBench) -> anyhow::Result<()> {
    let wish = host_with(&[]);
    let observed = settle(&mut bench, &wish).await?;
    ensure!(blocking_chains(&observed.others, &wish).is_empty(), "{:?}", observed.others);
    if sh("iptables-legacy -P FORWARD DROP").is_err() {
        println!("left out: this kernel has no iptables of the old kind");
        return Ok(());
    }
    let observed = settle(&mut bench, &wish).await?;
    ensure!(blocking_chains(&observed.others, &wish) == [BlockingChain::Legacy].into(), "{:?}", observed.others);
    Ok(())
}

/// The bytes of 111.118.117 are those of `ovu`.
async fn address_like_our_names(mut bench: RealBench) -> anyhow::Result<()> {
    let wish = host_with(&[]);
    sh("nft add table inet mine")?;
    sh("nft 'add chain inet mine passing { type filter hook forward priority 0; policy drop; }'")?;
    for rule in [
        "ip saddr 111.118.117.0/24 accept",
        "iifname eth0 ip daddr 111.118.117.9 accept",
        "tcp dport 1 accept comment \\\"not for ovu0123456789ab\\\"",
    ] {
        sh(&format!("nft add rule inet mine passing {rule}"))?;
        let observed = settle(&mut bench, &wish).await?;
        let told: Vec<BlockingChain> = blocking_chains(&observed.others, &wish).into_iter().collect();
        ensure!(matches!(told.as_slice(), [BlockingChain::Policy(chain)] if chain.table == "mine"), "{rule}: {told:?}");
    }
    sh("nft add rule inet mine passing 'iifname \"ovu*\" accept'")?;
    let observed = settle(&mut bench, &wish).await?;
    ensure!(blocking_chains(&observed.others, &wish).is_empty(), "{:?}", observed.others);
    Ok(())
}

async fn chains_like_dockers(mut bench: RealBench) -> anyhow::Result<()> {
    bench.add_way_out(&"wan0".parse()?)?;
    let wish = host_with(&[]);
    sh("iptables -P FORWARD DROP && iptables -N DOCKER-USER-LOG && iptables -A FORWARD -j DOCKER-USER-LOG")?;
    sh("iptables -A FORWARD -p tcp --dport 1 -m comment --comment 'as in DOCKER-USER' -j ACCEPT")?;
    sh("nft add rule ip filter FORWARD tcp dport 2 accept comment DOCKER-USER")?;
    settle(&mut bench, &wish).await?;
    let has_ours = |chain: &str| anyhow::Ok(sh(&format!("nft list chain ip filter {chain}"))?.contains("overlayd:in"));
    ensure!(has_ours("FORWARD")?, "nothing calls Docker's chain, and this one drops");
    // Docker starts. Its chain may also be entered for good.
    for call in ["-j", "-g"] {
        sh(&format!("iptables -N DOCKER-USER && iptables -I FORWARD {call} DOCKER-USER"))?;
        settle(&mut bench, &wish).await?;
        ensure!(has_ours("DOCKER-USER")? && !has_ours("FORWARD")?, "{call}");
        sh(&format!("iptables -D FORWARD {call} DOCKER-USER && iptables -F DOCKER-USER && iptables -X DOCKER-USER"))?;
    }
    settle(&mut bench, &wish).await?;
    ensure!(has_ours("FORWARD")?, "Docker's chain is gone");
    Ok(())
}

async fn bridges_stay_shut(mut bench: RealBench) -> anyhow::Result<()> {
    bench.add_way_out(&"wan0".parse()?)?;
    sh("ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up")?;
    sh(&format!("ip link add lan0 type bridge && ip addr add {VTEP}/24 dev lan0 && ip link set lan0 up"))?;
    sh("iptables -P FORWARD DROP")?;
    let observed = settle(&mut bench, &host_with(&[])).await?;
    ensure!(!observed.others.egress.contains(&"docker0".parse()?), "{observed:?}");
    let read = sh("iptables -S FORWARD")?;
    ensure!(read.contains("-o wan0") && read.contains("-o lan0") && !read.contains("docker0"), "{read}");
    // The way out changes.
    sh("ip route del default && ip link del lan0")?;
    settle(&mut bench, &host_with(&[])).await?;
    let read = sh("iptables -S FORWARD")?;
    ensure!(!read.contains("wan0") && !read.contains("lan0") && read.contains("overlayd:in"), "{read}");
    Ok(())
}
