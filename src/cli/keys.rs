//! `lifeboat init` and `lifeboat key`.

use super::arguments::{InitArguments, KeyVerb};
use super::globals::{Context, make_identity, read_limited};
use super::text;
use crate::error::{Error, Result};
use crate::id::SlotId;
use crate::ops::init::{InitOptions, InitReport, init as make};
use crate::repo::{Access, NewSlot, Repository, SlotInfo};
use crate::store::Location;
use std::path::Path;

pub(super) fn init(context: &Context, arguments: &InitArguments) -> Result<u8> {
    let (location, _) = context.location()?;
    let (identity, _) = context.identity_path()?;
    let options = InitOptions { chunk_average: u32::try_from(arguments.chunk_size).unwrap_or(u32::MAX), level: arguments.level };
    let slot = match (&arguments.recipient, arguments.passphrase) {
        (Some(recipient), _) => NewSlot::Recipient(recipient.clone()),
        (None, true) => NewSlot::Passphrase(context.new_passphrase(None)?),
        (None, false) if identity.exists() => NewSlot::Recipient(recipient_of(&identity)?),
        (None, false) => {
            // An identity that nothing is sealed to would only lie about.
            options.check()?;
            location.verify_vacant()?;
            NewSlot::Recipient(make_identity(&identity)?)
        }
    };
    let report = make(&location, &slot, &options, &context.open_options()?)?;
    if context.globals.json {
        println!(
            "{}",
            serde_json::json!({
                "repository": report.repository.to_string(),
                "fingerprint": report.fingerprint.to_string(),
                "location": location.to_string(),
                "several_at_once": location.promises().is_none_or(|promises| promises.many_writers()),
            })
        );
    } else if !context.globals.quiet {
        explain(&location, &slot, &identity, &report);
    }
    Ok(0)
}

/// The recipient of the identity in a file; an SSH key names its public half by its `.pub` file.
pub(super) fn recipient_of(path: &Path) -> Result<String> {
    let text = read_limited(path).map_err(|error| error.while_doing("take the recipient of the identity"))?;
    if text.starts_with(b"-----BEGIN") {
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let line = std::fs::read_to_string(&public);
        let line = line.map_err(|error| Error::io("read the public key", Path::new(&public).display(), error))?;
        return Ok(line.trim().to_owned());
    }
    let recipients = crate::repo::recipients_of(&text)?;
    recipients.into_iter().next().ok_or_else(|| Error::usage("read the identity: there is none"))
}

/// Says, once, what was made and what to keep.
pub(super) fn explain(location: &Location, slot: &NewSlot, identity: &Path, report: &InitReport) {
    println!("made the repository {location}");
    println!("fingerprint         {}", report.fingerprint);
    match slot {
        NewSlot::Passphrase(_) => println!("key                 your passphrase"),
        NewSlot::Recipient(recipient) => {
            match recipient_of(identity).is_ok_and(|own| own == *recipient) {
                true => println!("key                 {}", identity.display()),
                false => println!("key                 the secret half of what it is sealed to"),
            }
            println!("sealed to           {recipient}");
        }
    }
    println!();
    if let Some(promises) = location.promises().filter(|promises| !promises.lacks().is_empty()) {
        println!("This store does not keep all that a repository may rely on:");
        promises.lacks().iter().for_each(|lack| println!("  {lack}"));
        if !promises.many_writers() {
            println!(
                "So use it from one machine at a time, and never prune while something else runs: see docs/reference/stores.md."
            );
        }
        println!();
    }
    println!("Without the key nobody can read the backups, neither can you. Keep a copy of it, with the fingerprint,");
    // What opens with a passphrase has no identity to print.
    let option = if matches!(slot, NewSlot::Passphrase(_)) { "--new-identity" } else { "--with-identity" };
    println!("away from this machine: `lifeboat kit {option}` makes a page to print, `lifeboat key add` a second way in.");
    println!();
}

pub(super) fn run(context: &Context, verb: &KeyVerb) -> Result<u8> {
    if let KeyVerb::Policy(arguments) = verb {
        return super::policy::run(context, arguments);
    }
    let (repository, access) = context.open_with_access()?;
    match verb {
        KeyVerb::List => list(context, &repository, &access)?,
        KeyVerb::Enrol(arguments) => super::roles::enrol(context, &repository, &access, arguments)?,
        KeyVerb::Revoke(arguments) => super::roles::revoke(context, &repository, arguments)?,
        KeyVerb::Rotate(arguments) => super::roles::rotate(context, &repository, &access, arguments)?,
        KeyVerb::Policy(_) => {}
        KeyVerb::Add { recipient, new_passphrase_file, label } => {
            let slot = match recipient {
                Some(recipient) => NewSlot::Recipient(recipient.clone()),
                None => NewSlot::Passphrase(context.new_passphrase(new_passphrase_file.as_deref())?),
            };
            let id = repository.add_slot(&access, &slot, label)?;
            if context.globals.json {
                println!("{}", serde_json::json!({"slot": id.to_string()}));
            } else {
                context.say(&format!("added key slot {}", id.short()));
            }
        }
        KeyVerb::Remove { slot, force } => {
            let id = find_slot(&repository.slots(&access)?, slot)?;
            repository.remove_slot(&access, &id, *force)?;
            context.say(&format!("removed key slot {}", id.short()));
        }
    }
    Ok(0)
}

fn list(context: &Context, repository: &Repository, access: &Access) -> Result<()> {
    let (slots, clients) = (repository.slots(access)?, repository.clients()?);
    let weakest = slots.iter().min_by_key(|slot| super::roles::strength(&slot.kinds));
    if context.globals.json {
        let slots: Vec<_> = slots.iter().map(slot_json).collect();
        let clients: Vec<_> = clients.iter().map(super::roles::client_json).collect();
        println!(
            "{}",
            serde_json::json!({"slots": slots, "clients": clients, "fingerprint": repository.fingerprint().to_string()})
        );
        return Ok(());
    }
    if clients.len() > 1 {
        context.show(&super::roles::client_table(&clients));
        context.show("");
    }
    slots.iter().for_each(|slot| context.show(&slot_line(slot)));
    if let Some(slot) = weakest.filter(|_| slots.len() > 1) {
        context.show(&format!("weakest recipient: {} (slot {})", slot.kinds.join(","), slot.id.short()));
    }
    context.show(&format!("fingerprint {}", repository.fingerprint()));
    Ok(())
}

fn find_slot(slots: &[SlotInfo], text: &str) -> Result<SlotId> {
    let hint = "`lifeboat key list` shows them";
    let mut found = slots.iter().filter(|slot| text.len() >= 4 && slot.id.to_string().starts_with(&text.to_ascii_lowercase()));
    match (found.next(), found.next()) {
        (Some(slot), None) => Ok(slot.id),
        (Some(_), Some(_)) => Err(Error::usage(format!("find the key slot {text}: several begin like that")).with_hint(hint)),
        _ => Err(Error::missing(format!("find the key slot {text:?}: none begins like that")).with_hint(hint)),
    }
}

fn slot_line(slot: &SlotInfo) -> String {
    let added = slot.added.map(text::time).unwrap_or_default();
    let mark = if slot.current { "*" } else { " " };
    let label = text::printable(slot.label.as_bytes());
    let recipient = text::printable(slot.recipient.as_bytes());
    format!("{mark} {}  {}  {added}  {label}  {recipient}", slot.id.short(), slot.kinds.join(","))
}

fn slot_json(slot: &SlotInfo) -> serde_json::Value {
    serde_json::json!({
        "id": slot.id.to_string(), "kinds": slot.kinds, "label": slot.label, "recipient": slot.recipient,
        "added": slot.added.map(text::json_time), "current": slot.current,
    })
}
