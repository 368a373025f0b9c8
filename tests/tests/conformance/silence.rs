//! What becomes of a round when somebody does not answer.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use overlay::datapath::attention::Look;
use overlay::datapath::kernel_api::{Cause, Kernel, StepError};
use overlay::datapath::plan::{HostStep, RowStep, SegmentStep, Step};
use overlay_tests::eventually::eventually;
use tokio::time;

use crate::bench::{Bench, settle};
use crate::real::{self, RealBench, sh};
use crate::world::{add_remote, alike, host, host_with, network};

/// Within this time a program that was killed is gone.
const SOON: Duration = Duration::from_secs(5);

/// Longer than a look, a step and some rows may take together; the clock leaps over it.
const LONG: Duration = Duration::from_secs(120);

/// The cases.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("real::sockets_that_broke_are_opened_anew", || real::run(sockets_that_broke_are_opened_anew)),
        Trial::test("real::what_is_not_answered_is_given_up", || real::run(what_is_not_answered_is_given_up)),
        Trial::test("real::an_nft_that_hangs_is_killed", || real::run(an_nft_that_hangs_is_killed)),
    ]
}

async fn sockets_that_broke_are_opened_anew(mut bench: RealBench) -> anyhow::Result<()> {
    let web = bench.open_container("web")?;
    settle(&mut bench, &host_with(&[])).await?;
    drop(bench.restart_unserved()?);
    ensure!(bench.kernel().observe(&Look::Everything).await.is_err(), "they did not break");
    // Both in the host's namespace and in the segments.
    settle(&mut bench, &host_with(&[(1, &web)])).await?;
    Ok(())
}

async fn what_is_not_answered_is_given_up(mut bench: RealBench) -> anyhow::Result<()> {
    let mut desired = host_with(&[]);
    let first = Arc::make_mut(desired.segments.get_mut(&network(1)).context("the network")?);
    add_remote(first, 21, alike(first, 2));
    add_remote(first, 22, alike(first, 2));
    settle(&mut bench, &desired).await?;
    let unserved = bench.restart_unserved()?;
    let rows = desired.segments[&network(1)].remotes.iter().map(|(mac, to)| RowStep::PutRemote(*mac, *to).into());
    let rows: Vec<Step> = rows.map(|step| Step::Segment(network(1), step)).collect();
    let device = Step::Segment(network(1), SegmentStep::ConnectTunnel { mtu: 1300 });
    time::pause();
    let given_up = time::timeout(LONG, async {
        let seen = bench.kernel().observe(&Look::Everything).await;
        let made = bench.kernel().apply(&[device]).await;
        (seen, made, bench.kernel().apply(&rows).await)
    });
    let given_up = given_up.await;
    time::resume();
    drop(unserved);
    let (seen, made, written) = given_up.context("it is still waited for")?;
    ensure!(is_busy(&seen), "{seen:?}");
    ensure!(made.iter().all(is_busy), "{made:?}");
    ensure!(written.len() == 2 && written.iter().all(is_busy), "{written:?}");
    settle(&mut bench, &desired).await.context("the next round")?;
    Ok(())
}

fn is_busy<T>(result: &Result<T, StepError>) -> bool {
    matches!(result, Err(error) if error.cause == Cause::Busy)
}

async fn an_nft_that_hangs_is_killed(mut bench: RealBench) -> anyhow::Result<()> {
    let hung = hang_nft(bench.run_dir())?;
    let step = Step::Host(HostStep::ReplaceFirewall(host().firewall));
    let running = async {
        let find =
            move || eventually(SOON, "nft is started", || Ok(fs::read_to_string(&hung)?.trim().parse::<u32>()?));
        let pid = tokio::task::spawn_blocking(find).await?;
        // From here on the clock leaps to whatever is waited for.
        time::pause();
        pid
    };
    let steps = [step];
    let (mut results, pid) = tokio::join!(bench.kernel().apply(&steps), running);
    time::resume();
    ensure!(results.iter().all(is_busy), "{results:?}");
    let error = results.pop().and_then(Result::err).context("one result")?;
    let said = format!("{:#}", anyhow::Error::new(error));
    ensure!(said.contains("`nft` did not end"), "{said}");
    let stat = format!("/proc/{}/stat", pid?);
    eventually(SOON, "it is killed", || {
        // Whoever is only waited for has no more to run.
        let stat = fs::read_to_string(&stat).unwrap_or_default();
        ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        Ok(())
    })?;
    sh("umount \"$(command -v nft)\"")?;
    settle(&mut bench, &host_with(&[])).await.context("the next round")?;
    Ok(())
}

/// Puts something in the place of `nft`, for this thread and those that it starts, that never ends. Where its process
/// id will be.
fn hang_nft(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let (program, pid) = (dir.join("nft"), dir.join("nft.pid"));
    fs::write(&program, format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", pid.display()))?;
    sh(&format!("chmod +x {0} && mount --bind {0} \"$(command -v nft)\"", program.display()))?;
    Ok(pid)
}
