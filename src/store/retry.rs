//! Trying again: exponential back-off with full jitter, bounded in number and in time.

use super::address::Address;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(20);

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail again.
    No,
    /// As often as retries are allowed.
    Counted,
    /// Until the line works again, or no new attempt begins.
    Patiently,
}

/// How often and how long to try again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Attempts after the first.
    pub(super) retries: u32,
    /// Upper end of the first pause; each later one is twice as long.
    pub(super) first: Duration,
    /// No new attempt begins after this.
    pub(super) total: Duration,
    /// While the line is broken attempts are not counted.
    pub(super) patient: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: 8, first: Duration::from_millis(250), total: Duration::from_secs(300), patient: true }
    }
}

impl Retry {
    /// As the URL has it.
    pub(super) fn of(address: &Address) -> Self {
        let retries = address.number("retries");
        Self { retries: retries.unwrap_or(8), patient: retries.is_none(), ..Self::default() }
    }

    /// The same with few retries, for what has never worked so far.
    pub(super) fn brief(self) -> Self {
        Self { retries: self.retries.min(3), patient: false, ..self }
    }

    /// Calls `attempt` until it succeeds, fails in a way that `again` says is no reason to try again, enough was tried, or
    /// `pause` says that nobody waits any more.
    pub(super) async fn run<T, E>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
        again: impl Fn(&E) -> Again,
        mut pause: impl AsyncFnMut(Duration) -> bool,
    ) -> Result<T, E> {
        let began = Instant::now();
        let mut number = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let enough = match again(&error) {
                Again::No => true,
                Again::Counted => number >= self.retries,
                Again::Patiently => number >= self.retries && !self.patient,
            };
            if enough || began.elapsed() > self.total || !pause(self.pause(number)).await {
                return Err(error);
            }
            number += 1;
        }
    }

    /// The pause before attempt `number` + 1: anything up to its upper end, so that clients do not come back together.
    pub(super) fn pause(&self, number: u32) -> Duration {
        let most = self.first.saturating_mul(1 << number.min(16)).min(LONGEST);
        let mut random = [0; 4];
        // Without randomness the pause is the longest one, which is right as well.
        let share = getrandom::fill(&mut random).map_or(1.0, |()| f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX));
        most.mul_f64(share)
    }
}

/// The runtime on which all remote stores work; nothing outside of `store` sees it.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // Two threads keep a fast line full: what costs time, hashing and sealing, happens elsewhere.
        let builder = builder.worker_threads(2).thread_name("store").enable_all();
        builder.build().expect("a process that cannot start two threads cannot back up either")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(retries: u32) -> Retry {
        Retry { retries, first: Duration::from_nanos(1), total: Duration::from_secs(60), patient: true }
    }

    async fn waits(_: Duration) -> bool {
        true
    }

    #[test]
    fn a_line_that_is_broken_is_waited_for_until_nobody_wants_it_any_more() {
        let mut calls = 0;
        let broken = async || -> Result<(), i32> {
            calls += 1;
            Err(calls)
        };
        let mut pauses = 0;
        let until_bored = async |_| {
            pauses += 1;
            pauses < 50
        };
        assert_eq!(runtime().block_on(quick(5).run(broken, |_| Again::Patiently, until_bored)), Err(50));
        let mut calls = 0;
        let broken = async || -> Result<(), i32> {
            calls += 1;
            Err(calls)
        };
        let impatient = Retry { patient: false, ..quick(5) };
        assert_eq!(runtime().block_on(impatient.run(broken, |_| Again::Patiently, waits)), Err(6));
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let mut calls = 0;
        let mut fails_twice = async || {
            calls += 1;
            if calls < 3 { Err(calls) } else { Ok(calls) }
        };
        assert_eq!(runtime().block_on(quick(5).run(&mut fails_twice, |_| Again::Counted, waits)), Ok(3));
        let mut calls = 0;
        let always = async || -> Result<(), i32> {
            calls += 1;
            Err(calls)
        };
        assert_eq!(runtime().block_on(quick(5).run(always, |_| Again::Counted, waits)), Err(6));
        let mut calls = 0;
        let forbidden = async || -> Result<(), i32> {
            calls += 1;
            Err(calls)
        };
        assert_eq!(runtime().block_on(quick(5).run(forbidden, |_| Again::No, waits)), Err(1));
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let retry = Retry::default();
        for number in 0..40 {
            let most = Duration::from_millis(250).saturating_mul(1 << number.min(16)).min(LONGEST);
            assert!((0..20).all(|_| retry.pause(number) <= most));
        }
    }
}
