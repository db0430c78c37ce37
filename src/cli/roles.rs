//! `lifeboat key enrol`, `revoke`, and `rotate`: who takes part.

use super::globals::Context;
use super::{cost, text};
use crate::error::Result;
use crate::format::key::Role;
use crate::id::ClientId;
use crate::ops::cost::Estimate;
use crate::repo::{
    ATTESTED, Access, ClientInfo, EVERYBODY, Enrolment, NewSlot, Repository, RotateOptions, RotateReport, SlotFate,
};
use std::path::PathBuf;

/// Roles that clients can have.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum RoleName {
    /// Backs up; reads nothing back, not even its own, and deletes nothing
    Writer,
    /// Lists, forgets, prunes, and checks; reads no file
    Maintainer,
    /// Restores, and vouches for what it has read
    Reader,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Writer => Self::Writer,
            RoleName::Maintainer => Self::Maintainer,
            RoleName::Reader => Self::Reader,
        }
    }
}

/// What can be written after `lifeboat key enrol`.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("slot").args(["recipient", "passphrase", "new_passphrase_file"]).required(true),
    after_help = "The machine makes its own identity, with `age-keygen` or `ssh-keygen`, and only its public half comes here.\n\n\
    Examples:\n  lifeboat key enrol --role writer --recipient age1… --name laptop\n  \
    lifeboat key enrol --role reader --recipient \"$(cat restore.pub)\" --name drill\n  \
    lifeboat key enrol --role writer --recipient age1… --name web2 --trust web1"
)]
pub(super) struct EnrolArguments {
    /// What it may do
    #[arg(long)]
    role: RoleName,
    /// Seal its keys to this recipient: age1…, that of an age plugin too, or an SSH public key
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Option<String>,
    /// Seal its keys with a passphrase, which is asked for
    #[arg(long)]
    passphrase: bool,
    /// Seal its keys with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// What to call it
    #[arg(long, default_value = "")]
    name: String,
    /// On whose word it takes content as stored, besides its own: a client, by name or id; `attested` for everybody, once a
    /// reader has checked it; `all` for everybody as it is; `none`, which makes it read fewer logs, too
    #[arg(long, value_name = "CLIENT", default_value = "attested")]
    trust: Vec<String>,
}

/// What can be written after `lifeboat key revoke`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lifeboat key revoke laptop\n  lifeboat key revoke 3fa8c2d1 --last 41")]
pub(super) struct RevokeArguments {
    /// The client's name, or the beginning of its id
    client: String,
    /// Its last record that counts, if it was broken into before now; the newest one by default
    #[arg(long, value_name = "SEQ")]
    last: Option<u64>,
}

/// What can be written after `lifeboat key rotate`.
#[derive(clap::Args)]
#[command(
    after_help = "What was stored before stays readable for those who had the old keys: a leaked key cannot be called back.\n\
    Slots with passphrases are renewed if their passphrase is given."
)]
pub(super) struct RotateArguments {
    /// Passphrase of a slot, in the first line of this file; may be given several times
    #[arg(long, value_name = "FILE")]
    slot_passphrase_file: Vec<PathBuf>,
    /// Run the age plugins that recipients in the log name, to seal new slots to them
    #[arg(long)]
    run_plugins: bool,
    /// Say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl RotateArguments {
    /// True if nothing is changed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// What can be written after `lifeboat key policy`.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("store").args(["s3", "ssh"]).required(true),
    after_help = "Examples:\n  lifeboat key policy --role writer --s3 --bucket backups --prefix home\n  \
    lifeboat key policy --role writer --ssh --directory /srv/backup"
)]
pub(super) struct PolicyArguments {
    /// For whom
    #[arg(long)]
    pub(super) role: RoleName,
    /// A bucket policy for S3
    #[arg(long)]
    pub(super) s3: bool,
    /// A line of authorized_keys for OpenSSH
    #[arg(long)]
    pub(super) ssh: bool,
    /// Name of the bucket
    #[arg(long, value_name = "NAME", default_value = "BUCKET")]
    pub(super) bucket: String,
    /// What the names of all objects begin with
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub(super) prefix: String,
    /// Let it lock what it puts for so many days, as lock-days in the URL asks for
    #[arg(long, value_name = "N", conflicts_with = "ssh", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) lock_days: Option<u32>,
    /// Who it is for, as the service names them; may be given several times
    #[arg(long, value_name = "ARN", default_value = "arn:aws:iam::ACCOUNT:user/USER")]
    pub(super) principal: Vec<String>,
    /// The user who owns the bucket, where objects belong to whoever puts them, as on Ceph: it may do everything with all of them
    #[arg(long, value_name = "ARN", conflicts_with = "ssh")]
    pub(super) owner: Option<String>,
    /// Directory of the repository on the server
    #[arg(long, value_name = "DIR", default_value = "/path/to/repository")]
    pub(super) directory: PathBuf,
    /// The SSH public key with which the machine logs in
    #[arg(long, value_name = "KEY", default_value = "ssh-ed25519 PUBLIC-KEY")]
    pub(super) public_key: String,
}

pub(super) fn enrol(context: &Context, repository: &Repository, access: &Access, arguments: &EnrolArguments) -> Result<()> {
    let slot = match &arguments.recipient {
        Some(recipient) => NewSlot::Recipient(recipient.clone()),
        None => NewSlot::Passphrase(context.new_passphrase(arguments.new_passphrase_file.as_deref())?),
    };
    let role = Role::from(arguments.role);
    let enrolment = Enrolment { role, slot, name: arguments.name.clone(), trust: arguments.trust.clone() };
    let enrolled = repository.enrol(access, &enrolment)?;
    if context.globals.json {
        println!("{}", serde_json::json!({"client": enrolled.client.to_string(), "slot": enrolled.slot.to_string()}));
        return Ok(());
    }
    context.say(&format!("enrolled client {} as {}", enrolled.client.short(), role.name()));
    context.say(&format!("there: lifeboat --repo … --fingerprint {} --identity FILE …", repository.fingerprint()));
    let place = context.location()?.0.to_string();
    let kind = match place.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3" | "b2") => Some("--s3"),
        Some("sftp") => Some("--ssh"),
        _ => None,
    };
    context.say(&match kind {
        Some(kind) => {
            format!("the store's own credential should allow no more: `lifeboat key policy --role {} {kind}`", role.name())
        }
        None => "the store's own credential should allow no more: docs/reference/keys.md says how, store by store".to_owned(),
    });
    Ok(())
}

pub(super) fn revoke(context: &Context, repository: &Repository, arguments: &RevokeArguments) -> Result<()> {
    let client = repository.revoke(&arguments.client, arguments.last)?;
    if context.globals.json {
        println!("{}", serde_json::json!({"client": client.to_string()}));
        return Ok(());
    }
    context.say(&format!("revoked client {}; its slot is gone, and what it writes from now on counts no more", client.short()));
    context.say("take its credential for the store away as well; if its keys leaked, `lifeboat key rotate`");
    Ok(())
}

pub(super) fn rotate(context: &Context, repository: &Repository, access: &Access, arguments: &RotateArguments) -> Result<()> {
    let passphrases = arguments.slot_passphrase_file.iter().map(|path| context.new_passphrase(Some(path)));
    let passphrases = passphrases.collect::<Result<Vec<_>>>()?;
    let options = RotateOptions { passphrases, run_plugins: arguments.run_plugins, dry_run: arguments.dry_run };
    let report = repository.rotate(access, &options)?;
    let (place, _) = context.location()?;
    let estimate = (arguments.dry_run && place.is_billed()).then(|| Estimate::of_rotation(&report));
    if context.globals.json {
        let mut json = rotate_json(&report, arguments.dry_run);
        if let Some(estimate) = &estimate {
            json["cost"] = cost::json(context, estimate);
        }
        println!("{json}");
        return Ok(());
    }
    for slot in &report.slots {
        let fate = match &slot.fate {
            SlotFate::Renewed(_) if arguments.dry_run => "would be renewed".to_owned(),
            SlotFate::Renewed(new) => format!("renewed as {}", new.short()),
            SlotFate::Removed => "removed: its client was revoked".into(),
            SlotFate::Kept(why) => format!("kept without the new keys: {why}"),
        };
        context.say(&format!("slot {}  {}  {fate}", slot.id.short(), text::printable(slot.name.as_bytes())));
    }
    if arguments.dry_run {
        context.say("nothing was changed: this was a dry run");
        estimate.iter().for_each(|estimate| cost::say(context, "cost", estimate));
        return Ok(());
    }
    context.say(&format!("keys are of generation {} from now on; older objects stay as they are", report.generation));
    if report.slots.iter().any(|slot| matches!(slot.fate, SlotFate::Kept(_))) {
        context
            .say("whoever opens with a slot that was kept can go on when it is renewed: enrol it again, or `lifeboat key add`");
    }
    Ok(())
}

fn rotate_json(report: &RotateReport, dry_run: bool) -> serde_json::Value {
    let slots: Vec<_> = (report.slots.iter())
        .map(|slot| {
            let (fate, detail) = match &slot.fate {
                SlotFate::Renewed(new) => ("renewed", (!dry_run).then(|| new.to_string())),
                SlotFate::Removed => ("removed", None),
                SlotFate::Kept(why) => ("kept", Some((*why).to_owned())),
            };
            serde_json::json!({"id": slot.id.to_string(), "name": slot.name, "fate": fate, "detail": detail})
        })
        .collect();
    serde_json::json!({"generation": report.generation, "slots": slots, "dry_run": dry_run})
}

/// Orders kinds of recipients from the weakest on, by what it takes to open them some day: RSA and elliptic curves fall to
/// a quantum computer, a passphrase stands if it is a good one.
pub(super) fn strength(kinds: &[String]) -> u8 {
    let rank = |kind: &String| match kind.as_str() {
        "ssh-rsa" => 0,
        "ssh-ed25519" => 1,
        "X25519" => 2,
        "scrypt" => 4,
        _ => 3,
    };
    kinds.iter().map(rank).min().unwrap_or(u8::MAX)
}

/// Says which identities are used from several machines at once.
pub(super) fn tell_of_clones(context: &Context, repository: &Repository) -> Result<()> {
    for (member, machines) in repository.cloned()? {
        let name = if member.name.is_empty() { member.id.short() } else { text::printable(member.name.as_bytes()) };
        context.say(&format!(
            "client {name} is used from {machines} machines at once: nothing is lost by it, but give each its own identity \
             with `lifeboat key enrol`"
        ));
    }
    Ok(())
}

fn state(client: &ClientInfo) -> String {
    let mut state = Vec::new();
    if let Some(last) = client.member.last {
        state.push(format!("revoked after record {last}"));
    }
    if client.machines > 1 {
        state.push(format!("used from {} machines at once", client.machines));
    }
    if client.void > 0 {
        state.push(text::number(client.void, "record is void", "records are void"));
    }
    state.join(", ")
}

pub(super) fn client_table(clients: &[ClientInfo]) -> String {
    let mut table = text::table(vec!["", "client", "role", "name", "last record", "recipient", "state"]);
    for client in clients {
        let last = client.last_record.map(|(seq, time)| format!("{seq}, {}", text::time(time))).unwrap_or_default();
        table.add_row([
            if client.current { "*".to_owned() } else { String::new() },
            client.member.id.short(),
            client.member.role.name().to_owned(),
            text::printable(client.member.name.as_bytes()),
            last,
            client.kinds.join(","),
            state(client),
        ]);
    }
    text::fitted(table)
}

pub(super) fn client_json(client: &ClientInfo) -> serde_json::Value {
    let member = &client.member;
    let word = |id: &ClientId| match *id {
        EVERYBODY => "all".to_owned(),
        ATTESTED => "attested".to_owned(),
        id => id.to_string(),
    };
    let trusted: Vec<_> = member.trusted.iter().map(word).collect();
    serde_json::json!({
        "id": member.id.to_string(), "role": member.role.name(), "name": member.name, "trusted": trusted,
        "revoked_after": member.last, "last_record": client.last_record.map(|(seq, _)| seq),
        "last_time": client.last_record.map(|(_, time)| text::json_time(time)), "void_records": client.void,
        "machines": client.machines, "recipient_kinds": client.kinds, "current": client.current,
    })
}
