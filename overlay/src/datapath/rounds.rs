//! One round after the other: what is remembered from one to the next, so that a round looks only at what may have changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::datapath::announcer::Announcer;
use crate::datapath::attention::{Confirmed, Look, News};
use crate::datapath::contested::{Contest, Repairs};
use crate::datapath::desired::{Desired, HostConfig, KeptDesired};
use crate::datapath::kernel_api::{Kernel, StepError};
use crate::datapath::observed::Observed;
use crate::datapath::plan::Knowledge;
use crate::datapath::report::Report;
use crate::datapath::round::round;
use crate::model::intent::Intents;

/// Everything is looked at after this long in any case.
pub const AUDIT: Duration = Duration::from_secs(30);

/// What the rounds of one reconciler remember. No observation is among it.
#[derive(Debug, Default)]
pub struct Rounds {
    /// What was last desired, and what it was made of.
    kept: KeptDesired,
    confirmed: Confirmed,
    /// The news that the last round knew of.
    heard: News,
    /// What the last round was to make: whatever is done for the same again is a repair.
    last: Option<Arc<Desired>>,
    announcer: Announcer,
    repairs: Repairs,
}

/// A round that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// What should be in the kernel.
    pub desired: Arc<Desired>,
    /// How much this host knows of the others.
    pub knowledge: Knowledge,
    /// The parts that are looked at.
    pub look: Look,
}

impl Rounds {
    /// The next round. `news` were noted before anything is looked at: what changes from here on is reason for another round.
    pub fn next(
        &mut self,
        (cluster, intents): (&Arc<Cluster>, &Arc<Intents>),
        host: &HostConfig,
        knowledge: Knowledge,
        news: News,
    ) -> Due {
        let desired = Arc::clone(self.kept.desire(cluster, intents, host));
        let look = self.confirmed.look(&desired, knowledge, news.since(&self.heard));
        self.heard = news;
        Due { desired, knowledge, look }
    }

    /// Looks, and does what is to be done. After a failure the next round looks at everything.
    ///
    /// # Errors
    /// Only when the kernel can't even be looked at.
    pub async fn carry_out(
        &mut self,
        kernel: &mut impl Kernel,
        due: &Due,
        now: Instant,
    ) -> Result<(Observed, Report), StepError> {
        let Due { desired, knowledge, look } = due;
        let mut outcome = if look.is_empty() {
            Ok((Observed::default(), Report::default()))
        } else {
            round(kernel, look, desired, *knowledge).await
        };
        if let Ok((observed, report)) = &mut outcome {
            if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, desired)) {
                self.repairs.note(&report.done, now);
            }
            self.last = Some(Arc::clone(desired));
            self.announce(kernel, desired, observed, report).await;
        }
        match &outcome {
            Ok((_, report)) if report.settled() => self.confirmed.set(Arc::clone(desired), *knowledge),
            Ok(_) | Err(_) => self.confirmed.forget(),
        }
        outcome
    }

    /// Tells containers of what has another MAC now; what could not be told is tried again in the next round.
    async fn announce(
        &mut self,
        kernel: &mut impl Kernel,
        desired: &Desired,
        observed: &Observed,
        report: &mut Report,
    ) {
        self.announcer.note(observed, &report.done);
        let steps = self.announcer.due(desired);
        if !steps.is_empty() {
            let results = kernel.apply(&steps).await;
            let before = report.done.len();
            report.note(steps, results);
            self.announcer.note(observed, &report.done[before..]);
        }
    }

    /// An audit is due: the next round looks at everything.
    pub fn audit(&mut self) {
        self.confirmed.forget();
    }

    /// What another program undoes again and again, as of now.
    pub fn contested(&mut self, now: Instant) -> BTreeSet<Contest> {
        self.repairs.contested(now)
    }

    /// Has the kernel told of something since the last round looked?
    pub fn has_news(&self, news: &News) -> bool {
        self.heard != *news
    }
}

#[cfg(test)]
mod tests;
