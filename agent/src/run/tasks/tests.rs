use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const LIMIT: Duration = Duration::from_secs(1);

async fn failure(mut tasks: Tasks) -> String {
    let failure = timeout(LIMIT * 20, tasks.first_failure()).await;
    failure.expect("a task has ended").to_string()
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_is_named() {
    let mut tasks = Tasks::default();
    tasks.spawn("the clock", std::future::pending());
    tasks.spawn("the bell", std::future::ready(()));
    let said = failure(tasks).await;
    assert!(said.contains("the bell") && !said.contains("the clock"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn of_tasks_that_end_together_the_cause_is_named() {
    let mut tasks = Tasks::default();
    let (writer, channel) = watch::channel(0);
    tasks.spawn("the writer", async move {
        tokio::time::sleep(LIMIT).await;
        drop(writer);
        tokio::task::yield_now().await;
    });
    for _ in 0..8 {
        tasks.watch("a reader", channel.clone());
    }
    assert!(failure(tasks).await.contains("the writer"));
    let mut tasks = Tasks::default();
    let (writer, channel) = watch::channel(0);
    tasks.watch("the reader", channel);
    tasks.spawn("the writer", async move {
        let _writer = writer;
        panic!("it is broken");
    });
    let said = failure(tasks).await;
    assert!(said.contains("the writer") && said.contains("it is broken"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_named_with_its_task_also_if_that_was_started_elsewhere() {
    let spawned = |tasks: &mut Tasks| tasks.spawn("the bell", async { panic!("it is {}", "cracked") });
    let adopted = |tasks: &mut Tasks| tasks.adopt("the bell", tokio::spawn(async { panic!("it is cracked") }));
    for start in [&spawned as &dyn Fn(&mut Tasks), &adopted] {
        let mut tasks = Tasks::default();
        tasks.spawn("the clock", std::future::pending());
        start(&mut tasks);
        let said = failure(tasks).await;
        assert!(said.contains("the bell") && said.contains("it is cracked"), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_ends_is_noticed_by_its_channel() {
    let (sender, channel) = watch::channel(0);
    let mut tasks = Tasks::default();
    tasks.watch("the thread", channel);
    sender.send_replace(1);
    assert!(timeout(LIMIT, tasks.first_failure()).await.is_err(), "a change is no end");
    drop(sender);
    let said = failure(tasks).await;
    assert!(said.contains("the thread"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn work_that_is_done_is_no_failure_but_its_panic_is() {
    let mut tasks = Tasks::default();
    tasks.spawn_until_done("the errand", std::future::ready(()));
    assert!(timeout(LIMIT, tasks.first_failure()).await.is_err(), "it has done its work");
    tasks.spawn_until_done("the errand", async { panic!("it went wrong") });
    let said = failure(tasks).await;
    assert!(said.contains("the errand") && said.contains("it went wrong"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_services_finish_and_aborts_the_rest() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (finished, aborted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Tasks::default();
    let dropped = Dropped(Arc::clone(&aborted));
    tasks.spawn("the clock", async move {
        let _dropped = dropped;
        std::future::pending::<()>().await;
    });
    let done = Arc::clone(&finished);
    tasks.serve("the service", |stop| async move {
        stop.cancelled().await;
        tokio::time::sleep(LIMIT / 2).await;
        done.store(true, Ordering::Relaxed);
        Ok(())
    });
    tasks.serve("a service that hangs", |_| std::future::pending());
    let start = tokio::time::Instant::now();
    tasks.stop(LIMIT).await;
    assert!(finished.load(Ordering::Relaxed), "it had time for that");
    assert!(aborted.load(Ordering::Relaxed), "aborted, and gone when the stop is done");
    assert!(start.elapsed() <= 2 * LIMIT);
}
