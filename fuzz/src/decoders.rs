//! Decoders of everything that is read from a store.

use lifeboat::crypto::wrap::{Credential, credential_of, recipient_kinds, unwrap};
use lifeboat::format::cbor::Decoder;
use lifeboat::format::envelope::{ObjectKind, pad_body, unpad_body};
use lifeboat::format::gc::PruneObject;
use lifeboat::format::index::IndexObject;
use lifeboat::format::key::Bundle;
use lifeboat::format::log::Record;
use lifeboat::format::parity::ParityHead;
use lifeboat::format::pack::{Footer, Toc, decode_head, encode_head};
use lifeboat::format::repository::RepositoryFormat;
use lifeboat::format::snapshot::Snapshot;
use lifeboat::format::tree::{ListPage, Page, decode_node, decode_page, encode_inner, encode_leaf, encode_node};
use std::sync::LazyLock;

/// Fails if `again`, which decodes and encodes, takes bytes and gives others back.
fn comes_back(bytes: &[u8], again: impl FnOnce(&[u8]) -> lifeboat::error::Result<Vec<u8>>) {
    if let Ok(back) = again(bytes) {
        assert_eq!(back, bytes, "what was decoded does not encode back to the same bytes");
    }
}

/// A key for these tests alone: the seeds are sealed to it.
const IDENTITY: &str = "AGE-SECRET-KEY-1CUQXJ0G0N85WERDLLFWYJR89ZM7S7F83LX6LMMJVM2XH2VZQ3MHS2TDKCJ";

static CREDENTIAL: LazyLock<Credential> = LazyLock::new(|| credential_of(IDENTITY).expect("a valid identity"));

pub(crate) fn age_slot(data: &[u8]) {
    let _ = recipient_kinds(data);
    let _ = unwrap(data, &CREDENTIAL);
    let _ = Credential::from_identity_file(data);
}

pub(crate) fn bundle(data: &[u8]) {
    comes_back(data, |bytes| Ok(Bundle::decode(bytes)?.encode().to_vec()));
}

pub(crate) fn cbor(data: &[u8]) {
    comes_back(data, |bytes| {
        let mut decoder = Decoder::new(bytes, "a value");
        let value = decoder.any()?;
        decoder.end()?;
        Ok(value.to_vec())
    });
}

pub(crate) fn envelope(data: &[u8]) {
    comes_back(data, |bytes| Ok(pad_body(unpad_body(bytes)?)));
}

pub(crate) fn footer(data: &[u8]) {
    comes_back(data, |bytes| Ok(Footer::decode(bytes)?.encode().to_vec()));
}

pub(crate) fn index(data: &[u8]) {
    comes_back(data, |bytes| Ok(IndexObject::decode(bytes)?.encode()));
}

pub(crate) fn list(data: &[u8]) {
    comes_back(data, |bytes| {
        let mut out = Vec::new();
        ListPage::decode(bytes)?.encode(&mut out);
        Ok(out)
    });
}

pub(crate) fn node(data: &[u8]) {
    comes_back(data, |bytes| {
        let (node, length) = decode_node(bytes)?;
        let mut out = Vec::new();
        encode_node(&node, &mut out);
        out.extend_from_slice(&bytes[length..]);
        Ok(out)
    });
}

pub(crate) fn pack_head(data: &[u8]) {
    comes_back(data, |bytes| {
        let (header, seals) = decode_head(bytes)?;
        let mut out = encode_head(&header, &seals);
        out.extend_from_slice(&bytes[out.len()..]);
        Ok(out)
    });
}

pub(crate) fn page(data: &[u8]) {
    comes_back(data, |bytes| {
        let mut out = Vec::new();
        match decode_page(bytes)? {
            Page::Leaf(nodes) => {
                let mut joined = Vec::new();
                nodes.iter().for_each(|node| encode_node(node, &mut joined));
                encode_leaf(&joined, nodes.len(), &mut out);
            }
            Page::Inner { depth, pages } => encode_inner(depth, &pages, &mut out),
        }
        Ok(out)
    });
}

pub(crate) fn parity(data: &[u8]) {
    // What stands before the hashes is read first, and says how much is read then.
    if let Ok(length) = ParityHead::length(data) {
        assert!(length <= 64 + 1281 * 32, "a head is short");
    }
    let _ = ParityHead::share(data);
    comes_back(data, |bytes| Ok(ParityHead::decode(bytes)?.encode()));
}

pub(crate) fn prune(data: &[u8]) {
    comes_back(data, |bytes| Ok(PruneObject::decode(ObjectKind::Condemn, bytes)?.encode()));
}

pub(crate) fn record(data: &[u8]) {
    comes_back(data, |bytes| Ok(Record::decode(bytes)?.encode()));
}

pub(crate) fn repository_format(data: &[u8]) {
    comes_back(data, |bytes| {
        let format = RepositoryFormat::decode(bytes)?;
        // Features that only writers must know are not kept; such a repository is never written.
        Ok(if format.read_only { bytes.to_vec() } else { format.encode() })
    });
}

pub(crate) fn snapshot(data: &[u8]) {
    comes_back(data, |bytes| Ok(Snapshot::decode(bytes)?.encode()));
}

pub(crate) fn toc(data: &[u8]) {
    comes_back(data, |bytes| Ok(Toc::decode(bytes, 3)?.encode()));
}
