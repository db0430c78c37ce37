//! `mirror`: a second copy of a repository, object by object.

use crate::error::Result;
use crate::event::{Event, Observer, Progress, Stage};
use crate::repo;
pub use crate::repo::{MirrorOptions, MirrorReport};
use crate::store::Location;
use std::sync::Arc;

/// Brings the repository at `target` up to the one at `source`; makes it if there is none. No key is needed, and nothing
/// is overwritten or deleted.
///
/// # Errors
/// `NoRepository` if there is none at `source`; `Refused` if something else is at `target`, or what is there went another
/// way; what the stores return.
pub fn mirror(source: &Location, target: &Location, options: MirrorOptions, observer: &dyn Observer) -> Result<MirrorReport> {
    let progress = Arc::new(Progress::default());
    observer.observe(Event::Started(Stage::Copying, &progress));
    let report = repo::mirror(source, target, options, &progress, observer);
    observer.observe(Event::Finished(Stage::Copying));
    report
}
