//! What a thread still does when it panics, so that nobody waits for ever for what it was to do.

/// Calls what it holds if it is dropped because its thread panics.
pub(super) struct OnPanic<F: Fn()>(pub(super) F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}
