//! The bench of the kernel in memory.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;

use libtest_mimic::Failed;
use overlay::datapath::fake::{FakeKernel, Fault};
use overlay::datapath::foreign_chains::{Calls, ChainName, Policy};
use overlay::model::addr::IfName;
use overlay::model::id::Vni;
use overlay::model::intent::NetnsRef;

use crate::bench::Bench;

/// Runs a case on the kernel in memory.
pub fn run<F>(case: impl FnOnce(FakeBench) -> F) -> Result<(), Failed>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(case(FakeBench::default())).map_err(|error| format!("{error:#}").into())
}

#[derive(Default)]
pub struct FakeBench {
    kernel: FakeKernel,
    cookies: u64,
}

impl Bench for FakeBench {
    type Kernel = FakeKernel;

    fn kernel(&mut self) -> &mut FakeKernel {
        &mut self.kernel
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn open_container(&mut self, name: &str) -> anyhow::Result<NetnsRef> {
        self.cookies += 1;
        let netns = NetnsRef { path: PathBuf::from("/run/netns").join(name), cookie: self.cookies };
        self.kernel.open_container(netns.clone());
        Ok(netns)
    }

    fn close_container(&mut self, netns: &NetnsRef) -> anyhow::Result<()> {
        self.kernel.close_container(netns);
        Ok(())
    }

    fn interfaces(&mut self, netns: &NetnsRef) -> anyhow::Result<BTreeSet<IfName>> {
        Ok(self.kernel.interfaces(netns))
    }

    fn add_foreign_interface(&mut self, netns: &NetnsRef, ifname: &IfName) -> anyhow::Result<()> {
        self.kernel.add_foreign_interface(netns, ifname.clone());
        Ok(())
    }

    fn take_vni(&mut self, vni: Vni, port: u16) -> anyhow::Result<()> {
        self.kernel.take_vni(vni, port);
        Ok(())
    }

    fn take_udp_port(&mut self, port: u16) -> anyhow::Result<()> {
        self.kernel.take_udp_port(port);
        Ok(())
    }

    fn add_chain(&mut self, name: &ChainName, policy: Policy, calls: Calls) -> anyhow::Result<()> {
        self.kernel.add_chain(name.clone(), policy, calls);
        Ok(())
    }

    fn add_way_out(&mut self, ifname: &IfName) -> anyhow::Result<()> {
        self.kernel.add_way_out(ifname.clone());
        Ok(())
    }

    fn inject(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.kernel.inject(fault);
        Ok(())
    }

    fn inventory(&mut self, containers: &[&NetnsRef]) -> anyhow::Result<String> {
        let inside: Vec<_> = containers.iter().map(|netns| self.kernel.interfaces(netns)).collect();
        Ok(format!("{:#?}\n{inside:#?}", self.kernel.state()))
    }
}
