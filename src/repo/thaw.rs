//! Packs that must be thawed before they can be read: which of them are, asking for it, and waiting until they can.

use super::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress, Stage, stop_if_asked};
use crate::format::log::PackRef;
use crate::store::{AnyStore, Asked, Availability, Key, Tier, archive};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Packs that are wanted, by whether they can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThawPlan {
    /// All that are wanted.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that must be thawed, and their classes of storage.
    pub archived: Vec<(PackRef, String)>,
    /// Those that are being thawed.
    pub thawing: Vec<(PackRef, String)>,
    /// Those that were thawed and can be read.
    pub thawed: Vec<(PackRef, String)>,
    /// When the first of those freezes again, nanoseconds since 1970.
    pub until: Option<i64>,
}

impl ThawPlan {
    /// True if everything can be read.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.archived.is_empty() && self.thawing.is_empty()
    }

    /// Packs and bytes that cannot be read now.
    #[must_use]
    pub fn waiting(&self) -> (u64, u64) {
        let both = self.archived.iter().chain(&self.thawing);
        both.fold((0, 0), |(packs, bytes), (pack, _)| (packs + 1, bytes + pack.size))
    }

    /// Packs and bytes that must be asked for, by class of storage.
    #[must_use]
    pub fn by_class(&self) -> BTreeMap<&str, (u64, u64)> {
        let mut classes = BTreeMap::new();
        for (pack, class) in &self.archived {
            let (packs, bytes): &mut (u64, u64) = classes.entry(class.as_str()).or_default();
            (*packs, *bytes) = (*packs + 1, *bytes + pack.size);
        }
        classes
    }

    /// The class that most of what cannot be read is in.
    #[must_use]
    pub fn class(&self) -> &str {
        self.archived.iter().chain(&self.thawing).next().map_or("", |(_, class)| class)
    }
}

/// Calls `work` for all of `items`, as many at once as the store has requests under way. The first error ends it.
pub(super) fn side_by_side<T: Sync>(
    width: usize,
    items: &[T],
    observer: &dyn Observer,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let one = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = stop_if_asked(observer).and_then(|()| work(item));
            done.inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..width.min(items.len()).max(1)).map(|_| scope.spawn(one)).collect();
        started.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::panicked("ask the store"))))
    })
}

impl Repository {
    /// The class of storage of packs with file contents, if one was named.
    #[must_use]
    pub fn cold_class(&self) -> Option<String> {
        self.store().extras().and_then(|extras| extras.cold_class()).map(Into::into)
    }

    /// True if it has to be looked whether packs can be read: they are put into an archive, or somebody expects that they
    /// were.
    #[must_use]
    pub fn may_be_archived(&self, options: &ThawOptions) -> bool {
        options.tier.is_some() || archive(&**self.store()).is_some()
    }

    /// Fails if the class that the URL names does not thaw as fast as that.
    ///
    /// # Errors
    /// `Usage`.
    pub fn verify_tier(&self, doing: &str, options: &ThawOptions) -> Result<()> {
        let is_slow = self.cold_class().as_deref() == Some("DEEP_ARCHIVE");
        if is_slow && options.tier == Some(Tier::Expedited) { Err(too_fast(doing)) } else { Ok(()) }
    }

    /// Sees to it that `packs` can be read, as far as `options` permit; `doing` says for what. `None` if the store has no
    /// archive.
    ///
    /// # Errors
    /// `Archived` if they cannot be read yet: then nothing was done but to ask for them. The same call goes on later.
    pub fn make_readable(
        &self,
        packs: &[PackRef],
        wishes: (&str, &ThawOptions),
        observer: &dyn Observer,
    ) -> Result<Option<ThawReport>> {
        make_readable(self.store(), packs, wishes, observer)
    }
}

/// Finds out which of `packs` can be read; `None` if the store knows of no archive at all.
pub(super) fn plan(
    store: &AnyStore,
    packs: &[PackRef],
    progress: &Progress,
    observer: &dyn Observer,
) -> Result<Option<ThawPlan>> {
    let Some(extras) = store.extras() else { return Ok(None) };
    progress.files_total.store(packs.len() as u64, Ordering::Relaxed);
    let bytes = packs.iter().map(|pack| pack.size).sum();
    let plan = Mutex::new(ThawPlan { packs: packs.len() as u64, bytes, ..ThawPlan::default() });
    side_by_side(store.width(), packs, observer, |pack| {
        let state = extras.state(&Key::pack(&pack.id))?;
        progress.add_file(pack.size);
        // One that is gone is found damaged by whoever reads it.
        let Some(state) = state else { return Ok(()) };
        let mut plan = plan.lock().expect("no code panics while it holds this lock");
        match state.availability {
            Availability::Ready => {}
            Availability::Archived => plan.archived.push((*pack, state.class)),
            Availability::Thawing => plan.thawing.push((*pack, state.class)),
            Availability::Thawed(until) => {
                plan.thawed.push((*pack, state.class));
                plan.until = Some(plan.until.map_or(until, |first| first.min(until)));
            }
        }
        Ok(())
    })?;
    let mut plan = plan.into_inner().expect("no code panics while it holds this lock");
    plan.archived.sort_unstable();
    plan.thawing.sort_unstable();
    plan.thawed.sort_unstable();
    Ok(Some(plan))
}

/// Asks for all archived packs of the plan; returns how many requests were new.
fn ask(store: &AnyStore, plan: &ThawPlan, (tier, days): (Tier, u32), observer: &dyn Observer) -> Result<u64> {
    let Some(extras) = store.extras() else { return Ok(0) };
    let new = AtomicUsize::new(0);
    side_by_side(store.width(), &plan.archived, observer, |(pack, _)| {
        if extras.thaw(&Key::pack(&pack.id), tier, days)? == Asked::New {
            new.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(new.into_inner() as u64)
}

/// First pause between two looks at what is being thawed, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Days for which what was thawed can be read, unless told otherwise.
pub const THAW_DAYS: u32 = 7;

/// What to do with packs that must be thawed first.
#[derive(Debug, Clone, Copy)]
pub struct ThawOptions {
    /// Ask for them, as fast as this; without it, archived packs are a reason to stop.
    pub tier: Option<Tier>,
    /// For so many days they stay readable.
    pub days: u32,
    /// Wait until all can be read, instead of ending with how to go on.
    pub wait: bool,
    /// Only find out.
    pub dry_run: bool,
}

impl ThawOptions {
    /// Nothing is asked for: what is archived is a reason to stop.
    pub const NONE: Self = Self { tier: None, days: THAW_DAYS, wait: false, dry_run: false };
}

impl Default for ThawOptions {
    fn default() -> Self {
        Self::NONE
    }
}

/// What was found, and what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThawReport {
    /// What was found at first.
    pub plan: ThawPlan,
    /// New requests.
    pub asked: u64,
}

/// Sees to it that `packs` can be read, as far as `options` permit; `doing` says for what. `None` if the store has no archive.
///
/// # Errors
/// `Archived` if they cannot be read yet: then nothing was done but to ask for them. The same call goes on later.
pub(super) fn make_readable(
    store: &AnyStore,
    packs: &[PackRef],
    (doing, options): (&str, &ThawOptions),
    observer: &dyn Observer,
) -> Result<Option<ThawReport>> {
    let Some(plan) = look(store, packs, observer)? else { return Ok(None) };
    let mut report = ThawReport { plan, asked: 0 };
    if report.plan.is_ready() || options.dry_run {
        return Ok(Some(report));
    }
    let Some(tier) = options.tier else { return Err(not_yet(doing, &report.plan)) };
    if tier == Tier::Expedited && report.plan.by_class().contains_key("DEEP_ARCHIVE") {
        return Err(too_fast(doing));
    }
    report.asked = ask(store, &report.plan, (tier, options.days), observer)?;
    let (left, bytes) = report.plan.waiting();
    let remark = format!("asked for {} archived packs ({bytes} bytes), {left} are not readable yet", report.asked);
    observer.observe(Event::Note(&remark));
    // Some servers thaw at once.
    let now = look(store, packs, observer)?.unwrap_or_default();
    if now.is_ready() {
        return Ok(Some(report));
    }
    if !options.wait {
        return Err(asked_for(doing, &now, tier));
    }
    wait(store, packs, now, observer)?;
    Ok(Some(report))
}

fn too_fast(doing: &str) -> Error {
    Error::usage(format!("{doing}: nothing is thawed within minutes from DEEP_ARCHIVE"))
        .with_hint("take --thaw standard (within 12 hours), or bulk (within 48 hours)")
}

fn look(store: &AnyStore, packs: &[PackRef], observer: &dyn Observer) -> Result<Option<ThawPlan>> {
    let progress = Arc::new(Progress::default());
    observer.observe(Event::Started(Stage::Scanning, &progress));
    let planned = plan(store, packs, &progress, observer);
    observer.observe(Event::Finished(Stage::Scanning));
    planned
}

/// Looks again and again until everything can be read.
fn wait(store: &AnyStore, packs: &[PackRef], mut now: ThawPlan, observer: &dyn Observer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    progress.files_total.store(now.waiting().0, Ordering::Relaxed);
    progress.bytes_total.store(now.waiting().1, Ordering::Relaxed);
    observer.observe(Event::Started(Stage::Thawing, &progress));
    let (total, bytes) = now.waiting();
    let (mut pause, longest) = PAUSE;
    let mut result = Ok(());
    while result.is_ok() && !now.is_ready() {
        result = doze(pause, observer).and_then(|()| {
            // Only those that were not readable the last time are looked at.
            let left: Vec<PackRef> = now.archived.iter().chain(&now.thawing).map(|(pack, _)| *pack).collect();
            let silent = Progress::default();
            now = plan(store, &left, &silent, observer)?.unwrap_or_default();
            progress.files.store(total - now.waiting().0.min(total), Ordering::Relaxed);
            progress.bytes.store(bytes - now.waiting().1.min(bytes), Ordering::Relaxed);
            Ok(())
        });
        pause = (pause * 2).min(longest);
    }
    observer.observe(Event::Finished(Stage::Thawing));
    result?;
    // What was readable at first may have frozen again while the rest was waited for.
    match plan(store, packs, &Progress::default(), observer)? {
        Some(plan) if !plan.is_ready() => Err(not_yet("go on", &plan)),
        _ => Ok(()),
    }
}

/// Sleeps, and wakes up when somebody asks to stop.
fn doze(pause: Duration, observer: &dyn Observer) -> Result<()> {
    const STEP: Duration = Duration::from_millis(100);
    let mut left = pause;
    while !left.is_zero() {
        stop_if_asked(observer)?;
        let step = left.min(STEP);
        std::thread::sleep(step);
        left -= step;
    }
    stop_if_asked(observer)
}

/// About how long thawing takes, in words.
#[must_use]
pub fn thaw_time(class: &str, tier: Tier) -> &'static str {
    match (class, tier) {
        ("DEEP_ARCHIVE", Tier::Bulk) => "within 48 hours",
        ("DEEP_ARCHIVE", _) => "within 12 hours",
        (_, Tier::Bulk) => "within 5 to 12 hours",
        (_, Tier::Standard) => "within 3 to 5 hours",
        (_, Tier::Expedited) => "within 1 to 5 minutes",
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_485_760 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        10_485_760..10_737_418_240 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}

fn not_yet(doing: &str, plan: &ThawPlan) -> Error {
    let ((packs, bytes), class) = (plan.waiting(), plan.class());
    let all = plan.packs;
    if plan.archived.is_empty() {
        let message = format!("{doing}: {packs} of the {all} packs needed ({}) are still being thawed", size(bytes));
        return Error::new(ErrorKind::Archived, message)
            .with_hint("run the same command again later, or with `--thaw bulk --wait` to wait; nothing was changed");
    }
    let message = format!("{doing}: {packs} of the {all} packs needed ({}) are archived ({class})", size(bytes));
    let hint = format!(
        "the same command with `--thaw bulk` asks for them ({}), with `--thaw bulk --dry-run` says what that costs; nothing was changed",
        thaw_time(class, Tier::Bulk)
    );
    Error::new(ErrorKind::Archived, message).with_hint(hint)
}

fn asked_for(doing: &str, plan: &ThawPlan, tier: Tier) -> Error {
    let ((packs, bytes), class) = (plan.waiting(), plan.class());
    let message = format!("{doing}: {packs} packs ({}) are being thawed, {}", size(bytes), thaw_time(class, tier));
    Error::new(ErrorKind::Archived, message)
        .with_hint("run the same command again then: it goes on by itself once they can be read; `--wait` waits for that")
}
