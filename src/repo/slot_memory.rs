//! Which key slot a machine opened last, and which others there were: outside the cache, and never more than a hint.

use crate::id::SlotId;
use std::io::Write;
use std::path::Path;

/// The slot that opened, then those that were passed over; empty if nothing is remembered.
pub(super) fn load(path: &Path) -> Vec<SlotId> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let slots: Option<Vec<SlotId>> = text.lines().map(|line| SlotId::from_hex(line).ok()).collect();
    slots.unwrap_or_default()
}

/// Remembers the slot that opened and `all` that there are. What cannot be written is not remembered, and costs time only.
pub(super) fn save(path: &Path, opened: &SlotId, all: &[SlotId], before: &[SlotId]) {
    let others = all.iter().filter(|slot| *slot != opened);
    let slots: Vec<SlotId> = std::iter::once(opened).chain(others).copied().collect();
    if slots == before {
        return;
    }
    let Some(folder) = path.parent() else { return };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let text: String = slots.iter().map(|slot| format!("{slot}\n")).collect();
        file.write_all(text.as_bytes())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    let _ = write();
}
