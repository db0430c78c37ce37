//! The line to a store elsewhere: what is wrong with it at the moment, and whether anybody still waits for it.

use super::fault::{Fault, FaultKind};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Trouble that lasts for less is not worth a word.
const TOLD: Duration = Duration::from_secs(2);
/// Time after which it is told again.
const AGAIN: Duration = Duration::from_secs(60);
/// Time between two looks whether the work is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// What is under way when the work is to stop has so long to end by itself, if the line works.
const GRACE: Duration = Duration::from_secs(5);

/// Shared by all stores of a process and whoever shows what they wait for.
#[derive(Clone)]
pub struct Line {
    stop: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<Trouble>>>,
    tell: Arc<Tell>,
}

/// Is told for how long nothing has come through, and what was met last.
type Tell = dyn Fn(Duration, &str) + Send + Sync;

struct Trouble {
    since: Instant,
    why: String,
    told: Option<Instant>,
}

impl Default for Line {
    fn default() -> Self {
        Self::new(Arc::default(), |_, _| {})
    }
}

// What a server says may be long, and is shown elsewhere.
impl fmt::Debug for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Line").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Line {
    /// A line for which nobody waits any more once `stop` is set. `tell` is called now and then while it is broken: for how
    /// long it has been, and what was met last.
    #[must_use]
    pub fn new(stop: Arc<AtomicBool>, tell: impl Fn(Duration, &str) + Send + Sync + 'static) -> Self {
        Self { stop, trouble: Arc::default(), tell: Arc::new(tell) }
    }

    /// Tells of trouble that lasts.
    fn tell(&self) {
        let mut trouble = self.trouble.lock().expect("no code panics while it holds this lock");
        if let Some(Trouble { since, why, told }) = trouble.as_mut()
            && since.elapsed() >= TOLD
            && told.is_none_or(|told| told.elapsed() >= AGAIN)
        {
            *told = Some(Instant::now());
            (self.tell)(since.elapsed(), why);
        }
    }

    /// Since when nothing has come through, and what was met last; `None` if all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<(Duration, String)> {
        let trouble = self.trouble.lock().expect("no code panics while it holds this lock");
        trouble.as_ref().map(|trouble| (trouble.since.elapsed(), trouble.why.clone()))
    }

    /// Notes that a request failed and will be repeated.
    pub(super) fn fails(&self, why: &Fault) {
        let mut trouble = self.trouble.lock().expect("no code panics while it holds this lock");
        match trouble.as_mut() {
            Some(trouble) => trouble.why = why.to_string(),
            None => *trouble = Some(Trouble { since: Instant::now(), why: why.to_string(), told: None }),
        }
    }

    /// Notes that something came through.
    pub(super) fn works(&self) {
        *self.trouble.lock().expect("no code panics while it holds this lock") = None;
    }

    /// True if nobody waits any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits; false if that was in vain because nobody wants the answer any more.
    pub(super) async fn pause(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        while !self.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.tell();
            tokio::time::sleep(left.min(LOOK)).await;
        }
        false
    }

    /// The answer to a request, unless nobody wants it any more.
    pub(super) async fn unless_stopped<T>(&self, request: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        tokio::select! {
            answer = request => answer,
            () = self.given_up() => {
                let fault = stopped();
                self.fails(&fault);
                Err(fault)
            }
        }
    }

    /// Ends when nobody waits any more.
    async fn given_up(&self) {
        while self.pause(LOOK).await {}
        let until = Instant::now() + GRACE;
        // What does not come through now is not waited for.
        while self.trouble().is_none() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The fault of a request that was given up.
pub(super) fn stopped() -> Fault {
    Fault::new(FaultKind::Stopped, "stopped on request")
        .hint("run the same command again; what was stored already is not stored twice")
}
