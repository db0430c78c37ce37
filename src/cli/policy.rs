//! `lifeboat key policy`: what a store must be told about a role.

use super::globals::Context;
use super::roles::{PolicyArguments, RoleName};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// What everybody may ask of an SFTP server: to read, to make folders, and to write files that are not there yet. A file
/// comes into being under another name and is linked to its own; it can be written to only while it is first open.
const SSH_CREATE: &str = "open,close,read,write,stat,lstat,fstat,opendir,readdir,mkdir,realpath,hardlink,fsync,statvfs,limits";
/// What readers may ask.
const SSH_READ: &str = "open,close,read,stat,lstat,fstat,opendir,readdir,realpath,statvfs,limits";

pub(super) fn run(context: &Context, arguments: &PolicyArguments) -> Result<u8> {
    let (text, kind) = if arguments.ssh { (ssh(arguments)?, "ssh") } else { (pretty(&s3(arguments)), "s3") };
    if context.globals.json {
        println!("{}", json!({"kind": kind, "policy": text}));
    } else {
        println!("{text}");
    }
    Ok(0)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn s3(arguments: &PolicyArguments) -> Value {
    let bucket = format!("arn:aws:s3:::{}", arguments.bucket);
    let prefix = match arguments.prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let below = |folder: &str| format!("{bucket}/{prefix}{folder}");
    let objects = |folders: &[&str]| -> Value { folders.iter().map(|folder| below(folder)).collect() };
    let principal = match arguments.principal.as_slice() {
        [one] => json!({"AWS": one}),
        all => json!({"AWS": all}),
    };
    let role = match arguments.role {
        RoleName::Writer => "Writer",
        RoleName::Maintainer => "Maintainer",
        RoleName::Reader => "Reader",
    };
    // A bucket has one policy, so the statements of several roles are joined: no two may have one name.
    let statement = |name: &str, effect: &str, actions: &[&str], resource: Value| json!({"Sid": format!("{role}{name}"), "Effect": effect, "Principal": principal, "Action": actions, "Resource": resource});
    let everything = objects(&["*"]);
    let list = statement("List", "Allow", &["s3:ListBucket", "s3:GetBucketLocation"], json!(bucket));
    let read = statement("Read", "Allow", &["s3:GetObject"], everything.clone());
    let mut statements = vec![list, read];
    let (written, deleted): (&[&str], &[&str]) = match arguments.role {
        RoleName::Writer => (&["packs/*", "contents/*", "index/*", "log/*", "parity/*", "copies/log/*"], &[]),
        RoleName::Maintainer => (
            &["packs/*", "contents/*", "index/*", "log/*", "gc/*", "parity/*", "copies/log/*", "copies/gc/*"],
            &["packs/*", "contents/*", "index/*", "parity/*"],
        ),
        RoleName::Reader => (&["log/*", "copies/log/*"], &[]),
    };
    // An upload in parts carries the condition only with the request that completes it.
    let mut create = statement("Create", "Allow", &["s3:PutObject"], objects(written));
    create["Condition"] = json!({"Null": {"s3:if-none-match": "false"}});
    let mut parts = statement("CreateInParts", "Allow", &["s3:PutObject", "s3:AbortMultipartUpload"], objects(written));
    parts["Condition"] = json!({"Bool": {"s3:ObjectCreationOperation": "false"}});
    let mut overwrite = statement("NeverOverwrite", "Deny", &["s3:PutObject"], everything.clone());
    overwrite["Condition"] = json!({"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}});
    statements.extend([create, parts, overwrite]);
    let deletions = ["s3:DeleteObject", "s3:DeleteObjectVersion"];
    if deleted.is_empty() {
        let mut refused = deletions.to_vec();
        refused.extend(["s3:PutObjectLegalHold", "s3:BypassGovernanceRetention"]);
        refused.extend(arguments.lock_days.is_none().then_some("s3:PutObjectRetention"));
        statements.push(statement("NeverDelete", "Deny", &refused, everything.clone()));
    } else {
        let versions = if arguments.lock_days.is_some() { 2 } else { 1 };
        statements.push(statement("Delete", "Allow", &deletions[..versions], objects(deleted)));
    }
    if let Some(days) = arguments.lock_days {
        // Only a maintainer lengthens the locks of what others put; nobody locks for longer than that.
        let locked = if deleted.is_empty() { objects(written) } else { everything.clone() };
        let mut lock = statement("Lock", "Allow", &["s3:PutObjectRetention"], locked);
        lock["Condition"] = json!({"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": days.to_string()}});
        let versions = ["s3:GetObjectRetention", "s3:GetObjectVersion"];
        statements.extend([lock, statement("SeeLocks", "Allow", &versions, everything)]);
        statements.push(statement("ListVersions", "Allow", &["s3:ListBucketVersions"], json!(bucket)));
    }
    if let Some(owner) = &arguments.owner {
        let mut owns = statement("OfOwner", "Allow", &["s3:*"], objects(&["*"]));
        owns["Principal"] = json!({"AWS": owner});
        statements.push(owns);
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn ssh(arguments: &PolicyArguments) -> Result<String> {
    // The server cuts the command at its spaces and knows no quotes.
    let is_plain =
        |text: &&str| text.starts_with('/') && !text.contains(['"', '\'', '\\', '%']) && !text.contains(char::is_whitespace);
    let directory = arguments.directory.to_str().filter(is_plain).ok_or_else(|| {
        Error::usage("write a line of authorized_keys: the directory is relative, or has spaces or quotes in it")
            .with_hint("the server cannot be told such names; use another directory, or a link to it")
    })?;
    let key = arguments.public_key.trim();
    if key.contains('\n') {
        return Err(Error::usage("write a line of authorized_keys: the public key is more than one line"));
    }
    let options = match arguments.role {
        RoleName::Writer => format!("-p {SSH_CREATE} "),
        RoleName::Reader => format!("-R -p {SSH_READ} "),
        RoleName::Maintainer => "-P setstat,fsetstat,lsetstat,symlink,rename,posix-rename ".to_owned(),
    };
    Ok(format!("restrict,command=\"internal-sftp {options}-d {directory}\" {key}"))
}
