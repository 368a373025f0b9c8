//! What the suite needs of a kernel besides [`Kernel`]: a world around it, and hands to break it with.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use overlay::datapath::attention::Look;
use overlay::datapath::desired::Desired;
use overlay::datapath::fake::Fault;
use overlay::datapath::foreign_chains::{Calls, ChainName, Policy};
use overlay::datapath::kernel_api::{Cause, Kernel};
use overlay::datapath::observed::Observed;
use overlay::datapath::plan::{Knowledge, Step, plan};
use overlay::datapath::report::Report;
use overlay::datapath::round::round;
use overlay::model::addr::IfName;
use overlay::model::id::Vni;
use overlay::model::intent::NetnsRef;

/// A kernel with a world around it.
pub trait Bench: Sized {
    /// The kernel.
    type Kernel: Kernel;

    fn kernel(&mut self) -> &mut Self::Kernel;
    /// Another agent's kernel, over the same state.
    fn restart(&mut self) -> anyhow::Result<()>;
    /// A fresh container's namespace.
    fn open_container(&mut self, name: &str) -> anyhow::Result<NetnsRef>;
    /// The container ends.
    fn close_container(&mut self, netns: &NetnsRef) -> anyhow::Result<()>;
    fn interfaces(&mut self, netns: &NetnsRef) -> anyhow::Result<BTreeSet<IfName>>;
    fn add_foreign_interface(&mut self, netns: &NetnsRef, ifname: &IfName) -> anyhow::Result<()>;
    /// Somebody makes a VXLAN device in the host's namespace.
    fn take_vni(&mut self, vni: Vni, port: u16) -> anyhow::Result<()>;
    /// Somebody binds a UDP port in the host's namespace.
    fn take_udp_port(&mut self, port: u16) -> anyhow::Result<()>;
    /// Somebody makes a chain, and a rule of their own in it; and one that calls another chain, if it does.
    fn add_chain(&mut self, name: &ChainName, policy: Policy, calls: Calls) -> anyhow::Result<()>;
    /// Somebody makes a link, and the default route by it.
    fn add_way_out(&mut self, ifname: &IfName) -> anyhow::Result<()>;
    fn inject(&mut self, fault: &Fault) -> anyhow::Result<()>;
    /// All that there is in the host and in these containers, whoever's it is, in no special form: to be compared.
    fn inventory(&mut self, containers: &[&NetnsRef]) -> anyhow::Result<String>;
}

/// One round.
pub async fn go(bench: &mut impl Bench, desired: &Desired) -> anyhow::Result<Report> {
    let (_, report) = round(bench.kernel(), &Look::Everything, desired, Knowledge::Whole)
        .await
        .context("the kernel can't be looked at")?;
    Ok(report)
}

/// One round in which nothing fails, after which nothing is left to do.
pub async fn settle(bench: &mut impl Bench, desired: &Desired) -> anyhow::Result<Observed> {
    let report = go(bench, desired).await?;
    ensure!(report.failed.is_empty(), "failed: {:?}", report.failed);
    ensure!(report.skipped.is_empty(), "skipped: {:?}", report.skipped);
    let observed = look(bench).await?;
    let left = plan(&observed, desired, Knowledge::Whole);
    ensure!(left.is_empty(), "left to do: {left:?}\nobserved: {observed:?}");
    Ok(observed)
}

pub async fn look(bench: &mut impl Bench) -> anyhow::Result<Observed> {
    bench.kernel().observe(&Look::Everything).await.context("the kernel can't be looked at")
}

/// One round in which exactly one step fails, for this cause. The step, and what the failure says.
pub async fn refused(bench: &mut impl Bench, desired: &Desired, cause: Cause) -> anyhow::Result<(Step, String)> {
    let mut report = go(bench, desired).await?;
    let (step, error) = report.failed.pop().context("nothing was refused")?;
    ensure!(error.cause == cause, "refused for another cause: {error:?}");
    ensure!(report.failed.is_empty(), "more was refused: {:?}", report.failed);
    Ok((step, format!("{:#}", anyhow::Error::new(error))))
}
