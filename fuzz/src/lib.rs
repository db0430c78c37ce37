//! The fuzz targets: one for every decoder, which must never fail but with an error, and must take only bytes that it
//! would have written itself; and one for lists of operations, compared with a plain model.

mod decoders;
mod operations;

/// A name and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; `seeds` has a folder for each.
pub const TARGETS: &[Target] = &[
    ("age_slot", decoders::age_slot),
    ("bundle", decoders::bundle),
    ("cbor", decoders::cbor),
    ("envelope", decoders::envelope),
    ("footer", decoders::footer),
    ("index", decoders::index),
    ("list", decoders::list),
    ("node", decoders::node),
    ("operations", operations::run),
    ("pack_head", decoders::pack_head),
    ("page", decoders::page),
    ("parity", decoders::parity),
    ("prune", decoders::prune),
    ("record", decoders::record),
    ("repository_format", decoders::repository_format),
    ("snapshot", decoders::snapshot),
    ("toc", decoders::toc),
];
