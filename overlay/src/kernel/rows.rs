//! Writing forwarding entries and neighbours by the thousand.

use std::pin::pin;

use futures::{StreamExt, stream};
use rtnetlink::Handle;
use tokio::time::timeout;

use super::error::OrDoing;
use super::netns_sockets::Segment;
use super::time_limit::{TIMEOUT, no_answer, within};
use super::{fdb, neigh};
use crate::datapath::kernel_api::{Cause, StepError};
use crate::datapath::names::{BRIDGE, TUNNEL};
use crate::datapath::plan::{RowStep, discovery};

/// Requests under way at once: enough to keep the kernel busy, few enough for the socket's buffer.
const AT_ONCE: usize = 128;

/// The devices that the rows of a segment are on, if they are there.
struct Devices {
    bridge: Option<u32>,
    tunnel: Option<u32>,
}

/// Writes rows of one segment, many at once. The results are in the order of the rows.
pub(super) async fn write(segment: &Segment, rows: &[RowStep]) -> Vec<Result<(), StepError>> {
    match within(|| format!("look for {BRIDGE} and {TUNNEL}"), find(segment)).await {
        Ok(devices) => {
            let route = &segment.sockets.route;
            let writes: Vec<_> = rows.iter().map(|row| write_one(route, &devices, row)).collect();
            let mut writing = pin!(stream::iter(writes).buffered(AT_ONCE));
            let mut results = Vec::with_capacity(rows.len());
            // As long as rows are written, there is no hurry: there may be very many.
            while let Ok(Some(result)) = timeout(TIMEOUT, writing.next()).await {
                results.push(result);
            }
            results.extend(rows.iter().skip(results.len()).map(|row| Err(no_answer(row.to_string()))));
            results
        }
        Err(StepError { doing, cause, .. }) => rows.iter().map(|_| Err(StepError::new(doing.clone(), cause))).collect(),
    }
}

async fn find(Segment { sockets, objects, .. }: &Segment) -> Result<Devices, StepError> {
    let doing = || format!("look for {BRIDGE} and {TUNNEL}");
    objects.catch_up().or_doing(doing)?;
    objects.refresh(&sockets.route).await.or_doing(doing)?;
    let mirror = objects.get();
    let index = |name| mirror.named(name).map(|link| link.index);
    Ok(Devices { bridge: index(BRIDGE), tunnel: index(TUNNEL) })
}

async fn write_one(route: &Handle, devices: &Devices, row: &RowStep) -> Result<(), StepError> {
    match row {
        RowStep::PutRemote(mac, remote) => {
            let doing = || format!("point {mac} at the VTEP {}", remote.vtep);
            let tunnel = devices.tunnel.ok_or_else(|| gone(doing()))?;
            fdb::put_remote(route, tunnel, *mac, *remote).await.or_doing(doing)
        }
        // Rows go with their device.
        RowStep::DeleteRemote(mac) => match devices.tunnel {
            Some(tunnel) => fdb::delete_remote(route, tunnel, *mac).await.or_doing(|| format!("withdraw {mac}")),
            None => Ok(()),
        },
        RowStep::PutNeighbour(address, mac) => {
            let doing = || format!("answer {} for {address}", discovery(*address));
            let bridge = devices.bridge.ok_or_else(|| gone(doing()))?;
            neigh::put(route, bridge, *address, *mac).await.or_doing(doing)
        }
        RowStep::DeleteNeighbour(address) => match devices.bridge {
            Some(bridge) => {
                let doing = || format!("answer {} for {address} no more", discovery(*address));
                neigh::delete(route, bridge, *address).await.or_doing(doing)
            }
            None => Ok(()),
        },
    }
}

fn gone(doing: String) -> StepError {
    StepError::new(doing, Cause::Gone)
}
