//! What the rules leave out.

use super::shell;
use lifeboat::error::ErrorKind;
use lifeboat::source::files::{Directory, RuleOptions, Rules};

fn globs(globs: &[&str]) -> Rules {
    Rules::new(&RuleOptions { exclude: globs.iter().map(ToString::to_string).collect(), ..RuleOptions::default() }).unwrap()
}

#[test]
fn globs_mean_what_gitignore_says() {
    let table: &[(&[&str], &str, bool, bool)] = &[
        (&["*.o"], "home/x/a.o", false, true),
        (&["*.o"], "home/x/a.op", false, false),
        (&["cache"], "home/x/cache", true, true),
        (&["cache/"], "home/x/cache", false, false),
        (&["cache/"], "home/x/cache", true, true),
        (&["/home/x/cache"], "home/x/cache", true, true),
        (&["/home/x/cache"], "/home/x/cache", true, true),
        (&["/cache"], "home/x/cache", true, false),
        (&["x/cache"], "home/x/cache", true, false),
        (&["**/x/cache"], "home/x/cache", true, true),
        (&["home/**/cache"], "home/a/b/c/cache", true, true),
        (&["home/*/cache"], "home/a/b/cache", true, false),
        (&["home/**"], "home/a", false, true),
        (&["home/**"], "home", true, false),
        (&["*.log", "!keep.log"], "var/keep.log", false, false),
        (&["*.log", "!keep.log"], "var/other.log", false, true),
        (&["!keep.log", "*.log"], "var/keep.log", false, true),
        (&["[ab]?"], "x/ac", false, true),
        (&["\\!odd"], "!odd", false, true),
        (&["#odd#"], "#odd#", false, true),
        (&["{a,b}.txt"], "b.txt", false, true),
        (&[], "anything", false, false),
    ];
    for (rules, path, is_dir, expected) in table {
        assert_eq!(globs(rules).excludes(path.as_bytes(), *is_dir), *expected, "{rules:?} on {path} (directory: {is_dir})");
    }
}

#[test]
fn paths_that_are_not_text_are_matched_by_their_bytes() {
    assert!(globs(&["*.o"]).excludes(b"a/\xff\xfe.o", false));
    assert!(!globs(&["*.o"]).excludes(b"a/\xff\xfe.c", false));
    assert!(globs(&["?x"]).excludes(b"a/\xffx", false));
}

#[test]
fn case_is_ignored_only_where_asked() {
    let options = RuleOptions { exclude: vec!["*.tmp".into()], iexclude: vec!["*.bak".into()], ..RuleOptions::default() };
    let rules = Rules::new(&options).unwrap();
    assert!(rules.excludes(b"x.BAK", false) && rules.excludes(b"x.tmp", false));
    assert!(!rules.excludes(b"x.TMP", false));
}

#[test]
fn a_path_below_an_excluded_directory_is_known_without_a_walk() {
    let rules = globs(&["node_modules/", "!kept"]);
    assert!(rules.excludes_below(b"a/node_modules/x/kept", false));
    assert!(!rules.excludes_below(b"a/node_modules", false));
    assert!(!rules.excludes(b"a/node_modules/x/y", false));
}

#[test]
fn globs_that_cannot_be_understood_are_named() {
    let wrong = |options: RuleOptions| {
        let error = Rules::new(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        error.to_string()
    };
    assert!(wrong(RuleOptions { exclude: vec!["a[b".into()], ..RuleOptions::default() }).contains("a[b"));
    assert!(wrong(RuleOptions { exclude: vec![" ".into()], ..RuleOptions::default() }).contains("--exclude"));
    assert!(wrong(RuleOptions { exclude_if_present: vec!["a/b".into()], ..RuleOptions::default() }).contains("a/b"));
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("rules");
    std::fs::write(&file, "# comment\n\nfine\n{unclosed\n").unwrap();
    assert!(wrong(RuleOptions { exclude_file: vec![file.clone()], ..RuleOptions::default() }).contains("rules, line 4"));
    std::fs::write(&file, b"ok\n\xff\n").unwrap();
    assert!(wrong(RuleOptions { exclude_file: vec![file.clone()], ..RuleOptions::default() }).contains("line 2"));
    std::fs::remove_file(&file).unwrap();
    let error = Rules::new(&RuleOptions { exclude_file: vec![file], ..RuleOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}

#[test]
fn a_file_of_globs_counts_before_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("rules");
    std::fs::write(&file, "\u{feff}*.log\r\n# *.txt\n*.tmp\n").unwrap();
    let options = RuleOptions { exclude: vec!["!keep.log".into()], exclude_file: vec![file], ..RuleOptions::default() };
    let rules = Rules::new(&options).unwrap();
    assert!(rules.excludes(b"a.log", false) && rules.excludes(b"a.tmp", false));
    assert!(!rules.excludes(b"keep.log", false) && !rules.excludes(b"a.txt", false));
}

#[test]
fn markers_leave_out_the_contents_of_their_directory() {
    let place = tempfile::tempdir().unwrap();
    assert!(shell(
        place.path(),
        "mkdir cache fake plain marked linked; printf 'Signature: 8a477f597d28d172789f06886806bc55\\n# x' > cache/CACHEDIR.TAG
         echo nothing > fake/CACHEDIR.TAG; echo 'yes, skip' > marked/.skip; ln -s ../cache/CACHEDIR.TAG linked/CACHEDIR.TAG; touch plain/.nobackup"
    ));
    let top = Directory::open_root(place.path()).unwrap();
    let excluded = |options: &RuleOptions, name: &str| {
        Rules::new(options).unwrap().excludes_contents(&top.open_child(name.as_bytes()).unwrap())
    };
    let caches = RuleOptions { exclude_caches: true, ..RuleOptions::default() };
    assert!(excluded(&caches, "cache"));
    assert!(!excluded(&caches, "fake") && !excluded(&caches, "plain") && !excluded(&caches, "linked"));
    let marked = RuleOptions { exclude_if_present: vec![".skip:yes".into(), ".nobackup".into()], ..RuleOptions::default() };
    assert!(excluded(&marked, "marked") && excluded(&marked, "plain") && !excluded(&marked, "cache"));
    let other = RuleOptions { exclude_if_present: vec![".skip:no".into()], ..RuleOptions::default() };
    assert!(!excluded(&other, "marked"));
    let rules = Rules::new(&marked).unwrap();
    assert_eq!(rules.marker(&top.open_child(b"marked").unwrap()), Some(&b".skip"[..]));
}

#[test]
fn sizes_and_file_systems_are_left_out_only_on_request() {
    let none = Rules::new(&RuleOptions::default()).unwrap();
    let some =
        Rules::new(&RuleOptions { exclude_larger_than: Some(100), one_file_system: true, ..RuleOptions::default() }).unwrap();
    assert!(!none.too_large(u64::MAX) && !some.too_large(100) && some.too_large(101));
    let root = Directory::open_root("/".as_ref()).unwrap();
    let (top, other) = (root.stat_self().unwrap(), root.stat(b"proc").unwrap());
    assert!(!some.leaves_file_system(&top, &top) && !none.leaves_file_system(&top, &other));
    assert_eq!(some.leaves_file_system(&top, &other), top.dev != other.dev);
}
