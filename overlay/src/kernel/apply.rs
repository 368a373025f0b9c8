//! Executing steps. Every step is done here or by the module of its object; none is answered without being done.

use std::collections::BTreeSet;

use super::error::OrDoing;
use super::netns::blocking;
use super::netns_sockets::{NetnsSockets, Segment};
use super::time_limit::within;
use super::{
    RealKernel, announce, drift, flows, forwarding, link, netns, nft, open_files, port, rows, segment, uplink,
};
use crate::datapath::attention::Part;
use crate::datapath::firewall::Family;
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::names::{TUNNEL, UPLINK};
use crate::datapath::plan::{HostStep, RowStep, SegmentStep, Step};
use crate::model::addr::{IfName, IpVersion};
use crate::model::id::NetworkId;

/// What not every host has that lets containers reach each other by links only.
const NEEDED_BY_FILTER: &str =
    "networks made with --icc=false need a kernel with CONFIG_NF_TABLES_BRIDGE and nftables 1.0.2 or newer";

impl RealKernel {
    /// Removes the links in namespaces that lost their path: their VNIs and names are taken until then.
    pub(super) async fn clear_lost(&mut self) {
        for lost in std::mem::take(&mut self.lost) {
            let doing = || format!("clear the namespace {}", lost.sockets.netns.path().display());
            if within(doing, segment::clear(&lost.sockets)).await.is_err() {
                self.lost.push(lost);
            }
        }
    }

    /// Executes steps that do not depend on each other. Runs of entries, and of ports that go, take one way together.
    pub(super) async fn execute_all(&mut self, steps: &[Step]) -> Vec<Result<(), StepError>> {
        let mut results = Vec::with_capacity(steps.len());
        for run in steps.chunk_by(|earlier, step| step.joins(earlier)) {
            results.extend(self.execute_run(run).await);
        }
        results
    }

    async fn execute_run(&mut self, run: &[Step]) -> Vec<Result<(), StepError>> {
        match run {
            [Step::Segment(id, SegmentStep::Row(_)), ..] => {
                let rows: Vec<RowStep> = run.iter().filter_map(Step::row).collect();
                self.write_rows(*id, &rows).await
            }
            [Step::Segment(id, SegmentStep::DeletePort(_)), _, ..] => {
                let ports: Vec<&IfName> = run.iter().filter_map(Step::leaving_port).collect();
                self.delete_ports(*id, &ports).await
            }
            steps => {
                let mut results = Vec::with_capacity(steps.len());
                for step in steps {
                    let result = within(|| step.to_string(), self.execute(step)).await;
                    self.note_forgotten(step, result.is_ok());
                    results.push(result);
                }
                results
            }
        }
    }

    async fn write_rows(&self, id: NetworkId, rows: &[RowStep]) -> Vec<Result<(), StepError>> {
        match self.open_segment(id) {
            Ok(segment) => rows::write(segment, rows).await,
            Err(_) => rows.iter().map(|_| self.segment(id).map(drop)).collect(),
        }
    }

    /// Removes ports in one request. If that fails each is tried alone, so that each has its own result.
    async fn delete_ports(&self, id: NetworkId, ports: &[&IfName]) -> Vec<Result<(), StepError>> {
        let Ok(segment) = self.open_segment(id) else {
            return ports.iter().map(|_| self.segment(id).map(drop)).collect();
        };
        let doing = || format!("remove {} ports", ports.len());
        if within(doing, port::delete_all(segment, ports)).await.is_ok() {
            return ports.iter().map(|_| Ok(())).collect();
        }
        let route = &segment.sockets.route;
        let mut results = Vec::with_capacity(ports.len());
        for ifname in ports {
            results.push(within(|| format!("remove {ifname}"), port::delete(route, ifname)).await);
        }
        results
    }

    async fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Host(step) => self.change_host(step).await,
            Step::Segment(id, step) => self.change_segment(*id, step).await,
        }
    }

    async fn change_host(&mut self, step: &HostStep) -> Result<(), StepError> {
        match step {
            HostStep::EnableForwarding(version) => forwarding::enable(&self.host, *version).await,
            HostStep::ReplaceFirewall(table) => nft::replace(self.host.netns.clone(), table)
                .await
                .or_doing(|| "set the rules of the host in table inet overlay"),
            HostStep::ForgetFlows(flows) => flows::forget(&self.host, flows).await,
            HostStep::SetAcceptRules(chain, rules) => {
                let doing = || format!("set the rules for containers in the chain {chain}");
                let there = self.host.rules.ours(chain).await.or_doing(doing)?;
                nft::set_accept_rules(self.host.netns.clone(), chain, &there, rules).await.or_doing(doing)
            }
        }
    }

    async fn change_segment(&mut self, id: NetworkId, step: &SegmentStep) -> Result<(), StepError> {
        match step {
            SegmentStep::Create(versions) => self.create(id, versions).await,
            SegmentStep::Delete => self.delete(id).await,
            SegmentStep::ReplaceFirewall(table) => {
                let netns = self.segment(id)?.netns.clone();
                let doing = || format!("set the rules of {} in table inet overlay", netns.path().display());
                nft::replace(netns.clone(), table).await.or_doing(doing)
            }
            SegmentStep::ReplaceFilter(table) => {
                let netns = self.segment(id)?.netns.clone();
                let doing = || format!("set the rules of {} in table bridge overlay", netns.path().display());
                let set = nft::replace(netns.clone(), table).await.or_doing(doing);
                set.map_err(|error| error.with_detail(NEEDED_BY_FILTER))
            }
            SegmentStep::UpdateFilter(sets) => {
                let netns = self.segment(id)?.netns.clone();
                let doing = || format!("change the rules of {} in table bridge overlay", netns.path().display());
                nft::update(netns.clone(), Family::Bridge, sets).await.or_doing(doing)
            }
            SegmentStep::DeleteFilter => {
                let netns = self.segment(id)?.netns.clone();
                let doing = || format!("remove table bridge overlay in {}", netns.path().display());
                nft::remove(netns.clone(), Family::Bridge).await.or_doing(doing)
            }
            SegmentStep::ForgetFlows(flows) => flows::forget(self.segment(id)?, flows).await,
            SegmentStep::CreateBridge(bridge) => segment::create_bridge(&self.segment(id)?.route, bridge).await,
            SegmentStep::UpdateBridge(bridge) => segment::update_bridge(&self.segment(id)?.route, bridge).await,
            SegmentStep::CreateTunnel(tunnel) => {
                let others = self.segments.iter().filter(|(other, _)| **other != id).map(|(_, other)| &other.sockets);
                segment::create_tunnel(&self.host, self.segment(id)?, others, tunnel).await
            }
            SegmentStep::ConnectTunnel { mtu } => segment::connect_tunnel(&self.segment(id)?.route, *mtu).await,
            SegmentStep::DeleteTunnel => {
                let doing = || format!("remove the tunnel {TUNNEL}");
                link::delete_named(&self.segment(id)?.route, TUNNEL).await.or_doing(doing)
            }
            SegmentStep::CreateUplink(uplink) => uplink::create(&self.host, self.segment(id)?, uplink).await,
            SegmentStep::UpdateUplink(uplink) => uplink::update(&self.host, self.segment(id)?, uplink).await,
            SegmentStep::Restore(_) => {
                let segment = self.segments.get_mut(&id).ok_or_else(|| segment_is_gone(id))?;
                drift::restore(&self.host, segment).await
            }
            SegmentStep::DeleteUplink => {
                let doing = || format!("remove the uplink {UPLINK}");
                link::delete_named(&self.segment(id)?.route, UPLINK).await.or_doing(doing)
            }
            SegmentStep::CreatePort(endpoint, port) => port::create(self.segment(id)?, *endpoint, port).await,
            SegmentStep::UpdatePort(port) => port::update(&self.segment(id)?.route, port).await,
            SegmentStep::ConnectPort(port) => port::connect(&self.segment(id)?.route, port).await,
            SegmentStep::DeletePort(ifname) => port::delete(&self.segment(id)?.route, ifname).await,
            SegmentStep::Announce(announcement) => announce::tell(self.segment(id)?, announcement).await,
            SegmentStep::Row(row) => {
                let results = rows::write(self.open_segment(id)?, std::slice::from_ref(row)).await;
                results.into_iter().collect()
            }
        }
    }

    async fn create(&mut self, id: NetworkId, versions: &BTreeSet<IpVersion>) -> Result<(), StepError> {
        let path = self.netns_path(id);
        open_files::check_room(|| format!("make the namespace {}", path.display()))?;
        if netns::is_kept(&path) {
            return self.refresh(&Part::Segment(id).into()).await;
        }
        let netns = segment::create(&path, versions).await?;
        let segment = Segment::made(netns, id, &self.changes).await;
        let segment = segment.or_doing(|| format!("look into {}", path.display()))?;
        self.segments.insert(id, segment);
        Ok(())
    }

    async fn delete(&mut self, id: NetworkId) -> Result<(), StepError> {
        if let Some(segment) = self.segments.get(&id) {
            segment::clear(&segment.sockets).await?;
        }
        let path = self.netns_path(id);
        let doing = || format!("remove the namespace {}", path.display());
        let removed = path.clone();
        blocking(move || netns::remove(&removed)).await.or_doing(doing)?;
        self.segments.remove(&id);
        self.changes.forget(id);
        self.settings.watched().keep_only(id, &[]);
        self.unforgotten.remove(&Some(id));
        Ok(())
    }

    fn note_forgotten(&mut self, step: &Step, is_done: bool) {
        let (Step::Host(HostStep::ForgetFlows(flows)) | Step::Segment(_, SegmentStep::ForgetFlows(flows))) = step
        else {
            return;
        };
        let left = self.unforgotten.entry(step.network()).or_default();
        if is_done { left.retain(|flow| !flows.contains(flow)) } else { left.extend(flows) }
    }

    /// The way into a segment that has to be there.
    fn segment(&self, id: NetworkId) -> Result<&NetnsSockets, StepError> {
        self.open_segment(id).map(|segment| &segment.sockets)
    }

    fn open_segment(&self, id: NetworkId) -> Result<&Segment, StepError> {
        self.segments.get(&id).ok_or_else(|| segment_is_gone(id))
    }
}

fn segment_is_gone(id: NetworkId) -> StepError {
    StepError::new(format!("look for the segment {}", id.short()), Cause::Gone)
}
