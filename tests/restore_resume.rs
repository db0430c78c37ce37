//! Restores that are killed, and those that go on from there.

mod support;

use lifeboat::ops::restore::restore;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::home::Home;
use support::{contents, noise};

const ARGUMENTS: [&str; 5] = ["restore", "latest:documents", "--to", "out", "--json"];

fn home() -> Home {
    let home = Home::filled_in_memory();
    for file in 0..250_u64 {
        let dir = home.path(&format!("documents/d{}/e{}", file % 9, file % 23));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("f{file}")), noise(file, 1000 + usize::try_from(file % 7).unwrap() * 9000)).unwrap();
    }
    std::fs::write(home.path("documents/large"), noise(1 << 40, 8 << 20)).unwrap();
    home.ok(&["backup", "documents"]);
    home
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".lifeboat-"))
}

/// Bytes of the files that have their names, and how many temporary ones there are.
fn found(home: &Home) -> (u64, usize) {
    let out = home.path("out");
    let all = if out.exists() { contents(&out) } else { Vec::new() };
    let (temporary, named): (Vec<_>, Vec<_>) = all.iter().partition(|(path, _)| is_temporary(path));
    (named.iter().filter_map(|(_, content)| content.as_ref()).map(|content| content.len() as u64).sum(), temporary.len())
}

fn written(home: &Home) -> u64 {
    let output = home.run(&ARGUMENTS);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    report["bytes_written"].as_u64().unwrap()
}

#[test]
fn a_restore_that_is_killed_at_any_moment_goes_on_and_writes_only_what_is_missing() {
    use std::os::unix::fs::MetadataExt;
    let home = home();
    let expected = contents(&home.path("documents"));
    let total: u64 = expected.iter().filter_map(|(_, content)| content.as_ref()).map(|content| content.len() as u64).sum();
    let began = Instant::now();
    home.ok(&ARGUMENTS);
    let mut whole_run = u64::try_from(began.elapsed().as_micros()).unwrap();
    std::fs::remove_dir_all(home.path("out")).unwrap();
    let (mut partial, mut left_something) = (0, 0);
    for round in 0..200_u64 {
        // Thirty rounds, and more where the machine is so busy that no kill came in the middle yet.
        if round >= 30 && partial > 0 && left_something > 0 {
            break;
        }
        for kill in 0..1 + round % 3 {
            let mut child = home.command(&ARGUMENTS).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The next run may take much longer or shorter than the first one: some spreads are wider, some narrower.
            let spread = (whole_run << ((round + kill) % 4)) / 4;
            let moment = u64::from_le_bytes(noise(1000 * round + kill, 8).try_into().unwrap()) % spread.max(1);
            std::thread::sleep(Duration::from_micros(moment));
            let _ = child.kill();
            child.wait().unwrap();
        }
        let (before, temporary) = found(&home);
        partial += u32::from(before > 0 && before < total);
        left_something += temporary;
        // One that had come to its end before it was killed is not resumed, but refused.
        if home.path("out").exists() && !home.path("out/.lifeboat-restore").exists() && before == total {
            std::fs::remove_dir_all(home.path("out")).unwrap();
            continue;
        }
        let began = Instant::now();
        let written = written(&home);
        // Others may have begun to work on this machine.
        whole_run = whole_run.max(u64::try_from(began.elapsed().as_micros()).unwrap());
        assert_eq!(written, total - before, "round {round}: {before} of {total} bytes were there");
        assert!(contents(&home.path("out")) == expected, "round {round}");
        for (path, _) in &expected {
            let of = |top: &str| {
                let metadata = std::fs::metadata(home.path(top).join(path)).unwrap();
                (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), metadata.uid())
            };
            assert_eq!(of("out"), of("documents"), "round {round}: {}", path.display());
        }
        std::fs::remove_dir_all(home.path("out")).unwrap();
    }
    assert!(partial > 0 && left_something > 0, "{partial} restores were killed half way, {left_something} files were left");
}

#[test]
fn what_a_killed_restore_left_is_removed_also_when_it_restored_over_files() {
    let home = home();
    home.ok(&["restore", "latest:documents", "--to", "out"]);
    let leftover = ".lifeboat-7ffffffe-0123456789abcdef-2a";
    let own = [".lifeboat-notes", ".lifeboat-7ffffffe-0123"];
    for folder in ["out", "out/d1", "out/d1/e1"] {
        std::fs::write(home.path(folder).join(leftover), "half a file").unwrap();
        own.iter().for_each(|name| std::fs::write(home.path(folder).join(name), "somebody's").unwrap());
    }
    home.ok(&["restore", "latest:documents", "--to", "out", "--overwrite", "if-changed"]);
    for folder in ["out", "out/d1", "out/d1/e1"] {
        assert!(!home.path(folder).join(leftover).exists(), "{folder}");
        assert!(own.iter().all(|name| home.path(folder).join(name).exists()), "what is not ours stays");
    }
}

#[test]
fn a_restore_that_a_crash_of_the_system_cut_off_trusts_no_file_by_its_looks() {
    let home = home();
    let expected = contents(&home.path("documents"));
    home.ok(&ARGUMENTS);
    let marker = |boot: &str| {
        let id = home.json(&["snapshots", "--json"]).as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        std::fs::write(home.path("out/.lifeboat-restore"), format!("{id} documents\n{boot}\n")).unwrap();
    };
    // As some file systems leave it: the length and the times of the file, and none of its bytes.
    let damaged = home.path("out/d1/e1/f1");
    let length = std::fs::metadata(&damaged).unwrap().len();
    let times = std::fs::metadata(&damaged).unwrap().modified().unwrap();
    std::fs::write(&damaged, vec![0; usize::try_from(length).unwrap()]).unwrap();
    std::fs::File::options().write(true).open(&damaged).unwrap().set_modified(times).unwrap();
    marker("another system, before the crash");
    assert_eq!(written(&home), length, "only that file is written again");
    assert!(contents(&home.path("out")) == expected);
}

#[test]
fn two_restores_into_one_directory_at_once_end_with_the_whole_tree() {
    let home = home();
    let expected = contents(&home.path("documents"));
    for _ in 0..5 {
        let start = || home.command(&ARGUMENTS).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
        for output in &both {
            let said = String::from_utf8_lossy(&output.stderr);
            // In use while the other runs, refused once it has ended.
            assert!(matches!(output.status.code(), Some(0 | 11)), "{said}");
        }
        assert!(both.iter().any(|output| output.status.success()), "one of them comes to its end");
        assert!(contents(&home.path("out")) == expected);
        std::fs::remove_dir_all(home.path("out")).unwrap();
    }
}

#[test]
fn a_restore_that_is_stopped_says_what_becomes_of_the_files_that_are_there() {
    let bench = support::Bench::in_memory();
    bench.write("file", noise(1, 100_000));
    bench.backup();
    let stopped = support::Recorder { stop: true.into(), ..support::Recorder::default() };
    let target = bench.path("out");
    let error = restore(&bench.open(), &bench.latest(), &bench.restore_options(&target), &stopped).unwrap_err();
    assert!(error.hint().contains("restored already is not written again"), "{error}, {}", error.hint());
    assert_eq!(bench.restore(&bench.latest(), &target).files, 1);
}
