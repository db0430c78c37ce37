//! Secrets cannot be printed: this file does not compile if one of them gets `Debug` or `Display`.

use std::fmt::{Debug, Display};

struct Printable;

trait Unprintable<A> {
    fn holds() {}
}

impl<T> Unprintable<()> for T {}
impl<T: Debug> Unprintable<Printable> for T {}

trait Undisplayable<A> {
    fn holds() {}
}

impl<T> Undisplayable<()> for T {}
impl<T: Display> Undisplayable<Printable> for T {}

macro_rules! unprintable {
    ($($secret:ty),+) => {
        $(
            // Ambiguous, and so an error, if the type can be printed.
            <$secret as Unprintable<_>>::holds();
            <$secret as Undisplayable<_>>::holds();
        )+
    };
}

#[test]
fn no_secret_can_be_printed() {
    unprintable!(
        lifeboat::format::key::Bundle,
        lifeboat::format::key::Generation,
        lifeboat::crypto::derive::Secret,
        lifeboat::crypto::derive::NameKeys,
        lifeboat::crypto::derive::PageKey,
        lifeboat::crypto::derive::CommittedKey,
        lifeboat::crypto::sign::ClientKey,
        lifeboat::crypto::wrap::Credential
    );
}
