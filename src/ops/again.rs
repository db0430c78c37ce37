//! What an operation hands out may be handed out once only, also when the operation has to begin again.

use std::io::Write;

/// How much was handed out, and how much of it the present attempt has yet to come by.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    count: u64,
    ahead: u64,
}

impl HandedOut {
    /// The work begins; the same comes in the same order as before.
    pub(super) fn begin(&mut self) {
        self.ahead = self.count;
    }

    /// How much was handed out.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// True if the next one was not handed out before.
    pub(super) fn is_new(&mut self) -> bool {
        let new = self.ahead == 0;
        if new {
            self.count += 1
        } else {
            self.ahead -= 1
        }
        new
    }
}

/// Hands bytes on, but for those that it has handed on before.
pub(super) struct Once<'a> {
    out: &'a mut dyn Write,
    handed: HandedOut,
}

impl<'a> Once<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, handed: HandedOut::default() }
    }

    /// The work begins.
    pub(super) fn begin(&mut self) {
        self.handed.begin();
    }
}

impl Write for Once<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let old = usize::try_from(self.handed.ahead).unwrap_or(usize::MAX).min(bytes.len());
        if old > 0 {
            self.handed.ahead -= old as u64;
            return Ok(old);
        }
        let written = self.out.write(bytes)?;
        self.handed.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_is_not_written_again() {
        let mut out = Vec::new();
        let mut once = Once::new(&mut out);
        once.begin();
        once.write_all(b"abc").unwrap();
        once.begin();
        once.write_all(b"ab").unwrap();
        once.write_all(b"cde").unwrap();
        assert_eq!(out, b"abcde");
    }

    #[test]
    fn what_was_given_before_is_not_new() {
        let mut handed = HandedOut::default();
        assert!(handed.is_new() && handed.is_new());
        handed.begin();
        assert!(!handed.is_new() && !handed.is_new() && handed.is_new());
        assert_eq!(handed.count(), 3);
    }
}
