//! The recovery kit: what is on the page is enough, and nothing else is used.

mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use support::home::Home;

/// A home with a repository, and another machine that has nothing.
fn machines() -> (Home, Home) {
    (Home::filled(), Home::new())
}

/// Runs the program on the machine with this text typed.
fn typed(machine: &Home, arguments: &[&str], text: &str) -> Output {
    let mut command = machine.bare_command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that ends before it has read everything says so by its exit code.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

fn read(home: &Home, name: &str) -> String {
    std::fs::read_to_string(home.path(name)).unwrap()
}

/// What a phone would read from a square of these modules, true for dark.
fn decoded(rows: &[Vec<bool>]) -> String {
    let size = 4;
    let side = rows.len().max(rows[0].len()) * size;
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| {
        let dark = rows.get(y / size).and_then(|row| row.get(x / size)).copied().unwrap_or(false);
        if dark { 0 } else { 255 }
    });
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "there is one square on the page");
    grids[0].decode().unwrap().1
}

fn square_of_text(page: &str) -> String {
    let is_square = |line: &&str| !line.trim().is_empty() && line.chars().all(|c| " █▀▄".contains(c));
    let mut rows = vec![Vec::new(); 8];
    for line in page.lines().filter(is_square) {
        rows.push(line.chars().map(|c| c == '█' || c == '▀').collect());
        rows.push(line.chars().map(|c| c == '█' || c == '▄').collect());
    }
    decoded(&rows)
}

fn square_of_html(page: &str) -> String {
    let path = page.split("<path d=\"M").nth(1).unwrap().split('"').next().unwrap();
    let mut rows = vec![vec![false; 200]; 200];
    for module in path.split('M') {
        let (x, y) = module.trim_end_matches("h1v1h-1z").split_once(' ').unwrap();
        rows[y.parse::<usize>().unwrap()][x.parse::<usize>().unwrap()] = true;
    }
    decoded(&rows)
}

#[test]
fn the_text_of_the_page_alone_restores_on_another_machine() {
    let (home, other) = machines();
    home.ok(&["kit", "--with-identity", "--output", "kit.txt"]);
    assert_eq!(std::fs::metadata(home.path("kit.txt")).unwrap().permissions().mode() & 0o777, 0o600);
    let page = read(&home, "kit.txt");
    let output = typed(&other, &["kit", "test"], &page);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("the kit works"), "{output:?}");
    assert!(said.contains("documents/note") || said.contains("documents/deep/data"), "{said}");
    assert_eq!(std::fs::read_dir(other.dir.path()).unwrap().count(), 0, "it leaves nothing on the machine");

    // The commands that the page names, as somebody would type them.
    std::fs::write(other.path("kit.txt"), &page).unwrap();
    let commands: Vec<&str> = page.lines().map(str::trim_start).filter(|line| line.starts_with("lifeboat ")).collect();
    assert_eq!(commands.len(), 4, "{page}");
    for command in commands {
        let command = command.replace("/restored", "restored");
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        other.ok(&words);
    }
    assert_eq!(read(&other, "restored/documents/note"), "hello");
    assert_eq!(std::fs::metadata(other.path("identity.txt")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_square_holds_what_the_page_says() {
    let (home, other) = machines();
    home.ok(&["kit", "--with-identity", "--output", "kit.txt"]);
    home.ok(&["kit", "--with-identity", "--output", "kit.html"]);
    let identity = read(&home, ".config/lifeboat/identity.txt");
    let identity = identity.lines().last().unwrap();
    for scanned in [square_of_text(&read(&home, "kit.txt")), square_of_html(&read(&home, "kit.html"))] {
        assert!(scanned.starts_with("lifeboat kit 1\n") && scanned.contains(identity), "{scanned}");
        let report = typed(&other, &["kit", "test", "--json", "--path", "documents/note"], &scanned);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
        assert_eq!((&report["path"], &report["bytes"]), (&"documents/note".into(), &5.into()));
    }
}

#[test]
fn nothing_secret_is_on_a_page_that_was_not_asked_for_it() {
    let (home, other) = machines();
    for format in ["text", "html"] {
        let page = home.ok(&["kit", "--format", format]);
        assert!(!page.contains("SECRET") && !page.contains("SHARE") && page.contains("holds no key"), "{page}");
    }
    let page = home.ok(&["kit"]);
    assert!(!square_of_text(&page).contains("identity"));
    assert_eq!(typed(&other, &["kit", "test"], &page).status.code(), Some(12), "another machine has no key");
    assert!(typed(&home, &["kit", "test"], &page).status.success(), "this one has");
    assert_eq!(typed(&other, &["kit", "join", "--output", "x"], &page).status.code(), Some(2));
    home.ok(&["kit", "--output", "kit.txt"]);
    assert_eq!(home.code(&["kit", "--with-identity", "--output", "kit.txt"]), 1, "nothing is overwritten");
    assert!(!read(&home, "kit.txt").contains("SECRET"));
}

#[test]
fn any_two_of_three_shares_restore_and_one_does_not() {
    let (home, other) = machines();
    let said = home.json(&["kit", "--shares", "2/3", "--output", "share.txt", "--json"]);
    assert_eq!(said["pages"].as_array().unwrap().len(), 3);
    let pages: Vec<String> = (1..=3).map(|number| read(&home, &format!("share-{number}.txt"))).collect();
    for (number, page) in pages.iter().enumerate() {
        assert!(!page.contains("AGE-SECRET-KEY") && !square_of_text(page).contains("AGE-SECRET-KEY"));
        std::fs::write(other.path(&format!("scanned-{number}")), square_of_text(page)).unwrap();
        std::fs::write(other.path(&format!("typed-{number}")), page.to_lowercase()).unwrap();
    }
    for chosen in [["scanned-0", "scanned-1"], ["typed-0", "scanned-2"], ["scanned-2", "typed-1"]] {
        // A place keeps its letters.
        let place = home.repository_dir().display().to_string();
        let output = other.run(&["kit", "test", "--at", &place, chosen[0], chosen[1]]);
        let different = String::from_utf8_lossy(&output.stderr).contains("different repositories");
        assert!(output.status.success() || different, "{chosen:?}: {output:?}");
        assert_eq!(different, place.to_lowercase() != place && chosen.iter().any(|name| name.starts_with("typed")), "{chosen:?}");
    }
    assert_eq!(other.code(&["kit", "test", "scanned-1"]), 2);
    assert_eq!(other.code(&["kit", "test", "scanned-1", "scanned-1"]), 2);
    other.ok(&["kit", "join", "scanned-1", "scanned-2", "--output", "identity.txt"]);
    let place = home.repository_dir().display().to_string();
    other.ok(&["--repo", &place, "--identity", "identity.txt", "restore", "latest", "--to", "out"]);
    assert_eq!(read(&other, "out/documents/note"), "hello");
}

#[test]
fn a_kit_can_have_an_identity_of_its_own_that_is_ended_by_itself() {
    let home = Home::new();
    std::fs::write(home.path("pass"), "correct horse\n").unwrap();
    std::fs::write(home.path("note"), "hello").unwrap();
    let with = ["--passphrase-file", "pass", "--identity", "none"];
    let run = |arguments: &[&str]| home.run(&[&with[..], arguments].concat());
    assert!(run(&["init", "--passphrase"]).status.success() && run(&["backup", "note"]).status.success());
    assert_eq!(run(&["kit", "--with-identity"]).status.code(), Some(2), "there is none");
    assert!(run(&["kit", "--new-identity", "--output", "kit.txt"]).status.success());
    let page = read(&home, "kit.txt");
    let other = Home::new();
    assert!(typed(&other, &["kit", "test"], &page).status.success());
    let slots: serde_json::Value = serde_json::from_slice(&run(&["key", "list", "--json"]).stdout).unwrap();
    let slots = slots.get("slots").unwrap_or(&slots).as_array().unwrap();
    let kit = slots.iter().find(|slot| slot["label"] == "kit").unwrap();
    assert!(run(&["key", "remove", kit["id"].as_str().unwrap()]).status.success());
    assert_eq!(typed(&other, &["kit", "test"], &page).status.code(), Some(12));
}

#[test]
fn a_mistyped_page_and_a_wrong_or_damaged_repository_are_told_apart() {
    let (home, other) = machines();
    let page = square_of_text(&home.ok(&["kit", "--with-identity"]));
    let code = |text: &str| typed(&other, &["kit", "test"], text).status.code().unwrap();
    assert_eq!(code(&page), 0);
    let at = page.find("AGE-SECRET-KEY-1").unwrap() + 20;
    let letter = if &page[at..=at] == "Q" { "P" } else { "Q" };
    assert_eq!(code(&format!("{}{letter}{}", &page[..at], &page[at + 1..])), 2, "a letter");
    assert_eq!(code("nothing"), 2);
    let fingerprint = page.lines().find_map(|line| line.strip_prefix("fingerprint: ")).unwrap().to_owned();
    let wrong = if fingerprint.starts_with('0') { "1" } else { "0" };
    assert_eq!(code(&page.replace(&fingerprint, &format!("{wrong}{}", &fingerprint[1..]))), 12, "a digit");
    assert_eq!(code(&page.replace("/repository\n", "/elsewhere\n")), 10, "a place");
    let packs = home.repository_dir().join("packs");
    for folder in std::fs::read_dir(packs).unwrap() {
        for pack in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            (600..bytes.len() - 200).for_each(|at| bytes[at] ^= 1);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(code(&page), 13, "damage");
}

#[test]
fn an_older_state_than_that_of_the_page_is_noticed_on_a_machine_that_has_nothing() {
    let (home, other) = machines();
    let copy = home.path("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(home.repository_dir()).arg(&copy).status().unwrap();
    assert!(copied.success());
    home.ok(&["backup", "documents"]);
    home.ok(&["kit", "--with-identity", "--output", "kit.txt"]);
    let page = read(&home, "kit.txt");
    let heads: Vec<&str> = page.lines().filter(|line| line.starts_with("head: ")).collect();
    assert!(heads.len() == 1 && heads[0].len() <= 48, "{heads:?}");
    std::fs::write(other.path("kit.txt"), &page).unwrap();
    other.ok(&["kit", "test", "kit.txt"]);
    other.ok(&["kit", "join", "kit.txt", "--output", "identity.txt"]);
    let repository = home.repository_dir();
    let repository = repository.to_str().unwrap().to_owned();
    let restore = ["--repo", &repository, "--identity", "identity.txt", "restore", "latest", "--to"];
    other.ok(&[&restore[..], &["first"]].concat());
    // More was backed up since: that is no older state.
    home.ok(&["backup", "documents"]);
    other.ok(&["kit", "test", "kit.txt"]);
    std::fs::remove_dir_all(home.repository_dir()).unwrap();
    std::fs::rename(copy, home.repository_dir()).unwrap();
    let fresh = Home::new();
    for name in ["kit.txt", "identity.txt"] {
        std::fs::copy(other.path(name), fresh.path(name)).unwrap();
    }
    for arguments in [&["kit", "test", "kit.txt"][..], &[&restore[..], &["second"]].concat()] {
        let output = fresh.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(14), "{said}");
        assert!(said.contains("compare the repository with the kit") && said.contains("is gone"), "{said}");
    }
    assert!(!fresh.path("second").exists());
    fresh.ok(&[&["--accept-rollback"][..], &restore[..], &["second"]].concat());
    // A page without the line, as somebody too lazy to type it has.
    let short: String = page.lines().filter(|line| !line.starts_with("head: ")).map(|line| format!("{line}\n")).collect();
    assert!(typed(&fresh, &["kit", "test"], &short).status.success());
    assert_eq!(typed(&fresh, &["kit", "test"], &page.replace("head: ", "head: x")).status.code(), Some(2));
}

#[test]
fn the_fingerprint_of_the_page_goes_with_the_identity_that_it_gives() {
    let (home, other) = machines();
    home.ok(&["kit", "--with-identity", "--output", "kit.txt"]);
    std::fs::copy(home.path("kit.txt"), other.path("kit.txt")).unwrap();
    other.ok(&["kit", "join", "kit.txt", "--output", "identity.txt"]);
    let recipient = read(&other, "identity.txt");
    assert!(recipient.contains("# fingerprint: ") && recipient.contains("# head: "));
    // Another repository that opens with the same identity: somebody exchanged it.
    let identity = home.path(".config/lifeboat/identity.txt");
    home.ok(&["--repo", "swapped", "--identity", identity.to_str().unwrap(), "init"]);
    let swapped = home.path("swapped");
    let output = other.run(&["--repo", swapped.to_str().unwrap(), "--identity", "identity.txt", "snapshots"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(12) && said.contains("fingerprint"), "{said}");
}
