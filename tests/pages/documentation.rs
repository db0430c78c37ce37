//! Every command in README.md and docs/ is run in a scratch home, and what cannot be run here says why.

use crate::blocks::{Part, commands, exchanges, parts};
use crate::shell::Shell;
use crate::support::home::Home;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A public key that the pages may name a recipient.
const SSH_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm ann";
/// An age recipient; its identity was thrown away.
const AGE_KEY: &str = "age1a6fcdajwp6hurv8zeaptl56wf96s2fx9vxskkgc4sf75mpqvsurqzjp5em";

/// Examples of the help that cannot be run in the scene, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("lifeboat key revoke 3fa8c2d1", "a client's id, which only the page has"),
    ("lifeboat repair --from", "a mirror that is as new as the repository, which the other examples have changed"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and what lies in docs/, but for the reference of commands, whose examples are run by themselves.
fn pages() -> Vec<PathBuf> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("reference/commands.md") {
                found.push(path);
            }
        }
    }
    let mut found = vec![root().join("README.md")];
    collect(&root().join("docs"), &mut found);
    found.sort();
    found
}

/// Ann's home, in which the pages take place; with a history of backups, if the page does not begin with the first one.
fn scene(history: bool) -> Shell {
    let home = Home::new();
    let here = home.dir.path().display().to_string();
    let inner = here.trim_start_matches('/').to_owned();
    let mut shell = Shell::start(home);
    shell.program("pg_dump", "echo 'select 1;'");
    shell.ok("mkdir -p Documents etc/nginx mnt/backup tmp .ssh linux/kernel && echo one > notes.txt");
    shell.ok("echo two > Documents/report.odt && echo three > Documents/letter.txt && echo four > etc/nginx/nginx.conf && head -c 12000000 /dev/zero > linux/large.c");
    shell.ok(&format!("echo '{SSH_KEY}' > .ssh/id_ed25519.pub"));
    if history {
        shell.ok("lifeboat backup \"$HOME\" -q && lifeboat backup \"$HOME/etc\" -q && lifeboat backup \"$HOME/Documents\" -q");
        shell.ok(
            "lifeboat backup \"$HOME/etc\" --host mail --tag release -q && lifeboat backup \"$HOME/Documents\" --host mail -q",
        );
        shell.ok("echo more >> notes.txt && lifeboat backup \"$HOME\" -q");
        shell.ok(&format!(
            "lifeboat key enrol -q --role writer --recipient {AGE_KEY} --name web1 && echo {AGE_KEY} > restore.pub"
        ));
        shell.ok("cp .config/lifeboat/identity.txt . && cp -a .local/share/lifeboat/repository mnt/backup/");
        shell.ok("mkdir srv && cp -a .local/share/lifeboat/repository srv/");
        let list = shell.home.json(&["snapshots", "--json"]);
        let id = |number: usize| list[number]["id"].as_str().unwrap()[..8].to_owned();
        shell.ok(&format!("export SNAPSHOT={} FIRST={}", id(1), id(0)));
        let (first, second) = (id(0), id(1));
        shell.means("3fa8c2d1:etc", &format!("{first}:{inner}/etc"));
        shell.means("3fa8c2d1", &first);
        shell.means("77b0e5aa", &second);
    }
    for (word, stands_for) in [
        ("/home/ann", here.clone()),
        ("home/ann", inner.clone()),
        ("/mnt/", format!("{here}/mnt/")),
        ("/srv/", format!("{here}/srv/")),
        ("/var/", format!("{here}/var/")),
        ("/tmp/", format!("{here}/tmp/")),
        (" /restored", format!(" {here}/restored")),
        (" /etc", format!(" {here}/etc")),
        ("latest:etc", format!("latest:{inner}/etc")),
        ("age1…", AGE_KEY.to_owned()),
    ] {
        shell.means(word, &stands_for);
    }
    shell
}

/// Runs what the page says; what went wrong.
fn walk_through(path: &Path, shell: &mut Shell) -> Vec<String> {
    let name = path.strip_prefix(root()).unwrap().display().to_string();
    let mut wrong = Vec::new();
    for part in parts(&std::fs::read_to_string(path).unwrap()) {
        let Part::Fence { first, language, lines, not_run: None, .. } = part else { continue };
        match language.as_str() {
            "sh" => {
                for exchange in commands(&lines) {
                    let (answer, code) = shell.run(&exchange.command);
                    if code != 0 {
                        wrong.push(format!(
                            "{name}:{}: exit code {code}\n$ {}\n{answer}",
                            first + 1 + exchange.at,
                            exchange.command
                        ));
                    }
                }
            }
            "console" => {
                for exchange in exchanges(&lines) {
                    let (answer, code) = shell.run(&exchange.command);
                    let (now, written) = (shell.plain.shape(&answer), shell.plain.shape(&exchange.answer.join("\n")));
                    // A session may be cut short to its commands.
                    if code != 0 || (now.trim_end() != written.trim_end() && !exchange.answer.is_empty()) {
                        let place = format!("{name}:{}: exit code {code}", first + 1 + exchange.at);
                        wrong.push(format!("{place}\n$ {}\nit says:\n{now}\nthe page says:\n{written}", exchange.command));
                    }
                }
            }
            "toml" => {
                std::fs::write(shell.home.path("checked.toml"), lines.join("\n")).unwrap();
                let (answer, code) = shell.run("lifeboat --config checked.toml version");
                if code != 0 {
                    wrong.push(format!("{name}:{first}: {answer}"));
                }
            }
            _ => {}
        }
    }
    wrong
}

fn has_commands(path: &Path) -> bool {
    let runs =
        |part: &Part| matches!(part, Part::Fence { language, .. } if ["sh", "console", "toml"].contains(&language.as_str()));
    parts(&std::fs::read_to_string(path).unwrap()).iter().any(runs)
}

#[test]
fn every_command_of_the_documentation_runs() {
    let mut wrong = Vec::new();
    for path in pages().into_iter().filter(|path| has_commands(path)) {
        let begins = path.ends_with("README.md") || path.ends_with("getting-started.md");
        wrong.extend(walk_through(&path, &mut scene(!begins)));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
}

#[test]
fn commands_stand_in_fences_that_are_run() {
    let is_command = |line: &str| {
        let line = line.trim_start().trim_start_matches("$ ");
        ["lifeboat ", "cargo ", "./test", "age ", "sudo "].iter().any(|program| line.starts_with(program))
    };
    let mut wrong = Vec::new();
    for path in pages() {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        for part in parts(&std::fs::read_to_string(&path).unwrap()) {
            let (first, lines, outside) = match part {
                Part::Prose { first, lines } => (first, lines, true),
                Part::Fence { language, not_run: None, .. } if ["sh", "console"].contains(&language.as_str()) => continue,
                Part::Fence { not_run: Some(reason), .. } if reason.len() > 10 => continue,
                Part::Fence { first, lines, .. } => (first + 1, lines, false),
            };
            for (at, line) in
                lines.iter().enumerate().filter(|(_, line)| is_command(line) && (!outside || line.starts_with("    ")))
            {
                wrong.push(format!("{name}:{}: {line}", first + at));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "commands belong into ```sh or ```console fences, which are run; above one that cannot be: <!-- not run: REASON -->\n{}",
        wrong.join("\n")
    );
}

/// The examples at the end of each `--help`.
fn examples() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/reference/commands.md")).unwrap();
    let mut found = Vec::new();
    let mut within = false;
    for line in text.lines() {
        within = line.starts_with("Example") || (within && line.starts_with("  "));
        found.extend(line.strip_prefix("  ").filter(|_| within && line.contains("lifeboat ")).map(str::to_owned));
    }
    found
}

#[test]
fn every_example_of_the_help_runs() {
    let mut examples = examples();
    examples.retain(|example| !NOT_RUN.iter().any(|(begin, _)| example.starts_with(begin)));
    assert!(examples.len() > 10, "{examples:?}");
    let mut wrong = Vec::new();
    let mut with_history = scene(true);
    with_history.ok("mkdir -p tmp/etc && for place in offsite/repository one two; do lifeboat init -q --repo mnt/$place; done");
    with_history.ok("lifeboat mirror -q --to mnt/second/repository");
    // What makes a repository has a home of its own, and what takes something out of one comes last.
    let (makes, other): (Vec<_>, Vec<_>) = examples.into_iter().partition(|example| example.starts_with("lifeboat init"));
    let (takes, looks): (Vec<_>, Vec<_>) = other.into_iter().partition(|example| example.starts_with("lifeboat forget"));
    for example in makes.into_iter().chain(looks).chain(takes) {
        let (answer, code) = if example.starts_with("lifeboat init") {
            let mut fresh = scene(false);
            fresh.ok("export LIFEBOAT_PASSPHRASE='correct horse'");
            fresh.run(&example)
        } else {
            let answer = with_history.run(&example);
            // The next one finds things as this one found them.
            with_history.ok("lifeboat unhold \"$FIRST\" >log 2>&1 || true");
            if example.contains("lifeboat backup") {
                with_history.ok("lifeboat backup \"$HOME\" -q");
            }
            answer
        };
        if code != 0 {
            wrong.push(format!("exit code {code}\n$ {example}\n{answer}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
}

/// The words between backticks that begin with the program's name.
fn mentions(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("lifeboat ") && !code.contains('\n')).collect()
}

#[test]
fn every_command_and_option_that_is_mentioned_exists() {
    let home = Home::new();
    let mut helps: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    let mut help = |verbs: &[&str]| {
        let key: Vec<String> = verbs.iter().map(ToString::to_string).collect();
        let asked = || {
            let output = home.run(&[verbs, &["--help"]].concat());
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        };
        helps.entry(key).or_insert_with(asked).clone()
    };
    let mut wrong = Vec::new();
    // The page on the format quotes bytes.
    for path in pages().into_iter().filter(|path| !path.ends_with("docs/format.md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let prose: String = parts(&text)
            .into_iter()
            .filter_map(|part| if let Part::Prose { lines, .. } = part { Some(lines.join("\n") + "\n\n") } else { None })
            .collect();
        for mention in prose.split("\n\n").flat_map(mentions) {
            let words: Vec<&str> = mention.split_whitespace().skip(1).take_while(|word| *word != "--").collect();
            let verbs: Vec<&str> = words
                .iter()
                .copied()
                .skip_while(|word| word.starts_with('-'))
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'))
                .collect();
            let known = (1..=verbs.len()).rev().find_map(|count| help(&verbs[..count]));
            let options = words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
            match known.or_else(|| verbs.is_empty().then(|| help(&[])).flatten()) {
                None => wrong.push(format!("{}: `{mention}`: there is no such command", path.display())),
                Some(help) => wrong.extend(
                    options
                        .filter(|option| !help.contains(option))
                        .map(|option| format!("{}: `{mention}`: no {option}", path.display())),
                ),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
