//! Commands around the program: `cache`, `completions`, `man`, `version`.

use super::arguments::CacheVerb;
use super::globals::Context;
use super::text;
use crate::error::{Error, Result};
use crate::store::Location;
use std::io::Write;
use std::path::Path;

pub(super) fn cache(context: &Context, verb: &CacheVerb) -> Result<u8> {
    let repository = context.open()?;
    let path = repository.cache_path();
    match verb {
        CacheVerb::Info => {
            let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if context.globals.json {
                let path = path.display().to_string();
                let (chunks, parts) = (repository.chunk_count()?, repository.kept_bytes());
                println!("{}", serde_json::json!({"path": path, "bytes": size, "chunks": chunks, "parts_bytes": parts}));
            } else {
                context.show(&format!("{}  {}", path.display(), text::size(size)));
                context.show(&text::number(repository.chunk_count()?, "chunk", "chunks"));
                if repository.kept_bytes() > 0 {
                    context.show(&format!("{} of directories and the index", text::size(repository.kept_bytes())));
                }
            }
        }
        CacheVerb::Clear => {
            repository.remove_kept_parts()?;
            repository.clear_cache()?;
            context.say("the cache is gone; the next command rebuilds it");
        }
        CacheVerb::Rebuild => {
            repository.remove_kept_parts()?;
            repository.clear_cache()?;
            drop(repository);
            let repository = context.open()?;
            context.say(&format!("rebuilt: {}", text::number(repository.chunk_count()?, "chunk", "chunks")));
        }
    }
    Ok(0)
}

pub(super) fn completions(shell: clap_complete::Shell, command: &mut clap::Command) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "lifeboat", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| Error::io("write", "the completions to standard output", error))?;
    Ok(0)
}

pub(super) fn man(dir: Option<&Path>, command: &clap::Command) -> Result<u8> {
    if let Some(dir) = dir {
        let failed = |error| Error::io("write the manual to", dir.display(), error);
        std::fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(command.clone(), dir).map_err(failed)?;
        return Ok(0);
    }
    let mut page = Vec::new();
    let failed = |error| Error::io("write", "the manual page to standard output", error);
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    std::io::stdout().write_all(&page).map_err(failed)?;
    Ok(0)
}

pub(super) fn version(context: &Context) -> Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    if context.globals.json {
        let stores = [&["directory"], Location::SCHEMES].concat();
        println!("{}", serde_json::json!({"version": version, "format": 1, "stores": stores}));
    } else {
        println!("lifeboat {version}, repository format 1");
    }
    Ok(0)
}
