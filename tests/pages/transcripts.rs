//! Real sessions: what is written in `tests/cli` is what the program says today.

use crate::blocks::{Part, exchanges, parts};
use crate::shell::Shell;
use crate::support::home::Home;
use std::path::Path;

/// The page anew, from what the program says now.
fn replayed(text: &str) -> String {
    let mut shell = Shell::start(Home::new());
    let mut page = Vec::new();
    for part in parts(text) {
        match part {
            Part::Prose { lines, .. } => page.extend(lines),
            Part::Fence { language, lines, .. } => {
                page.push(format!("```{language}"));
                if language != "console" {
                    page.extend(lines);
                    page.push("```".to_owned());
                    continue;
                }
                for exchange in exchanges(&lines) {
                    page.push(format!("$ {}", exchange.command.replace('\n', "\n> ")));
                    let (answer, code) = shell.run(&exchange.command);
                    let answer = shell.plain.of(&answer);
                    page.extend((!answer.is_empty()).then_some(answer));
                    page.extend((code != 0).then(|| format!("[exit code {code}]")));
                }
                page.push("```".to_owned());
            }
        }
    }
    page.join("\n") + "\n"
}

#[test]
fn the_transcripts_are_what_the_program_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let mut pages: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() > 4);
    let mut differ = Vec::new();
    for path in pages {
        let written = std::fs::read_to_string(&path).unwrap();
        let said = replayed(&written);
        if std::env::var_os("LIFEBOAT_UPDATE").is_some() {
            std::fs::write(&path, &said).unwrap();
        } else if written != said {
            let pairs = written.lines().zip(said.lines()).enumerate();
            let first = pairs.clone().find(|(_, (before, now))| before != now).map_or(0, |(number, _)| number);
            let now: Vec<&str> = said.lines().skip(first.saturating_sub(2)).take(12).collect();
            differ.push(format!("{}:{}: now it is\n{}", path.display(), first + 1, now.join("\n")));
        }
    }
    assert!(
        differ.is_empty(),
        "LIFEBOAT_UPDATE=1 cargo test --test pages writes the transcripts anew; look at what changed\n{}",
        differ.join("\n\n")
    );
}
