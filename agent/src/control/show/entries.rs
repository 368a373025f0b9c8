//! What is shown of leases and of forwarding entries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use overlay::cluster::{Located, NetworkView};
use overlay::datapath::desired::port_ifname;
use overlay::datapath::observed::ObservedSegment;
use overlay::ledger::Account;
use overlay::model::id::HostId;
use overlay::model::lease::{AddressLease, Holder};
use overlay::model::network::BlockId;
use overlay_proto::v1 as pb;

use super::Shown;

impl Shown<'_> {
    /// Blocks of one holder and epoch that stand together are one row, and each delegated address is one.
    pub(in crate::control) fn leases(&self, account: &Account) -> Vec<pb::LeaseRow> {
        let mut rows: Vec<(IpAddr, pb::LeaseRow)> = Vec::new();
        let holders: BTreeSet<HostId> = account.blocks.values().map(|lease| lease.holder).collect();
        for holder in holders {
            for run in account.runs(holder) {
                let last = BlockId { index: run.start.index + (run.len - 1), ..run.start };
                let ends = account.network.block_subnet(run.start).zip(account.network.block_subnet(last));
                let Some((first, last)) = ends else { continue };
                let count = |(block, epoch)| account.count_free_in(block, epoch);
                let free = || run.blocks().map(count).fold(0, u128::saturating_add);
                rows.push((
                    first.network(),
                    pb::LeaseRow {
                        first: first.network().to_string(),
                        last: last.last().to_string(),
                        kind: "block".to_owned(),
                        holder: self.host_name(holder),
                        holder_state: self.host_state(holder),
                        epoch: run.epoch,
                        count: 0,
                        blocks: run.len.into(),
                        free: if holder == self.me { i64::try_from(free()).unwrap_or(i64::MAX) } else { -1 },
                    },
                ));
            }
        }
        // Leases of addresses from an earlier epoch of their block are void.
        let counts = |(address, lease): &(&IpAddr, &AddressLease)| {
            account.block_lease(**address).is_none_or(|block| lease.version.epoch >= block.epoch)
        };
        let lent = account.addresses.iter().filter(counts);
        rows.extend(lent.filter_map(|(address, lease)| self.delegated(*address, lease)));
        rows.sort_by_key(|(first, row)| (*first, row.kind == "address"));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn delegated(&self, address: IpAddr, lease: &AddressLease) -> Option<(IpAddr, pb::LeaseRow)> {
        let Holder::Host(holder) = lease.holder else { return None };
        let row = pb::LeaseRow {
            first: address.to_string(),
            last: address.to_string(),
            kind: "address".to_owned(),
            holder: self.host_name(holder),
            holder_state: self.host_state(holder),
            epoch: lease.version.epoch,
            count: lease.version.count,
            blocks: 0,
            free: -1,
        };
        Some((address, row))
    }

    pub(in crate::control) fn fdb(&self, view: &NetworkView, segment: Option<&ObservedSegment>) -> Vec<pb::FdbRow> {
        let mut rows: Vec<pb::FdbRow> = view.endpoints.values().map(|l| self.fdb_row(view, l, segment)).collect();
        let wanted: BTreeMap<_, _> = view.endpoints.values().map(|l| (l.endpoint.mac, l.host)).collect();
        let stale = segment.into_iter().flat_map(|s| s.remotes.iter()).filter(|(mac, _)| !wanted.contains_key(mac));
        rows.extend(stale.map(|(mac, remote)| pb::FdbRow {
            mac: mac.to_string(),
            vtep: remote.vtep.to_string(),
            vni: remote.vni.get(),
            kernel: "stale".to_owned(),
            ..pb::FdbRow::default()
        }));
        rows.sort_by(|a, b| (&a.addresses, &a.mac).cmp(&(&b.addresses, &b.mac)));
        rows
    }

    fn fdb_row(&self, view: &NetworkView, located: &Located, segment: Option<&ObservedSegment>) -> pb::FdbRow {
        let endpoint = &located.endpoint;
        let host = self.cluster.hosts.get(&located.host);
        let here = located.host == self.me;
        let kernel = match segment {
            None => "no segment here",
            Some(s) if here => match s.ports.get(&port_ifname(endpoint.id)) {
                Some(port) if port.connected == Some(endpoint.mac) => "yes",
                Some(_) | None => "no port",
            },
            Some(s) => {
                let fdb = s.remotes.get(&endpoint.mac).is_some_and(|r| host.is_some_and(|h| r.vtep == h.info.vtep));
                let neighbours = located.addresses().all(|a| s.neighbours.get(&a) == Some(&endpoint.mac));
                match (fdb, neighbours) {
                    (true, true) => "yes",
                    (true, false) => "no neighbour",
                    (false, _) => "no fdb",
                }
            }
        };
        pb::FdbRow {
            mac: endpoint.mac.to_string(),
            addresses: located.addresses().map(|a| a.to_string()).collect(),
            name: endpoint.name.to_string(),
            host: self.host_name(located.host),
            vtep: host.filter(|_| !here).map_or_else(String::new, |h| h.info.vtep.to_string()),
            vni: view.vnis.get(&located.host).map_or(0, |vni| vni.get()),
            kernel: kernel.to_owned(),
        }
    }
}
