//! Lifeboat: encrypted, deduplicated backups, and recovery from them.

pub mod error;
pub mod id;

pub mod event;

pub mod crypto;

pub mod format;

pub mod store;

pub mod repo;

pub mod source;

pub mod ops;

pub mod plan;

pub mod service;

pub mod cli;
