//! The layers of docs/architecture.md, and the sizes that keep files and functions readable.
//!
//! The sources are read as tokens, so that paths within macros are seen as well.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use syn::spanned::Spanned;
use syn::visit::Visit;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 80;

/// What each module may import besides itself, `error`, and `id`. `a::b` permits that part of `a` only.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("id", &[]),
    ("event", &[]),
    ("format", &[]),
    ("crypto", &[]),
    ("store", &[]),
    ("repo", &["event", "format", "crypto", "store"]),
    ("source", &["event", "format::tree"]),
    ("ops", &["event", "format", "repo", "source", "store::Location"]),
    ("plan", &["source", "ops"]),
    ("service", &["event", "format", "repo", "source", "ops", "plan"]),
    (
        "cli",
        &[
            "event",
            "format",
            "repo",
            "source",
            "ops",
            "plan",
            "service",
            "store::Line",
            "store::Location",
            "store::StoreSettings",
        ],
    ),
    ("main", &["cli"]),
];

/// Those that may print and may read the environment.
const FACES: &[&str] = &["cli", "main"];

/// Violations that stand, as (file, part of the message, reason).
const STANDING: &[(&str, &str, &str)] =
    &[("tests/codecs.rs", "has 541 lines", "one row for each codec and each of its refusals, read as a table")];

struct Source {
    path: PathBuf,
    /// Path of the module: `["repo", "cache", "index"]`.
    module: Vec<String>,
    text: String,
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    rust_files(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 10, "the sources were not found");
    paths.into_iter().map(|path| source(&root, path)).collect()
}

fn source(root: &Path, path: PathBuf) -> Source {
    let relative = path.strip_prefix(root).unwrap().with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    let text = fs::read_to_string(&path).unwrap();
    Source { path: Path::new("src").join(path.strip_prefix(root).unwrap()), module, text }
}

/// Fails with the violations, but for those that stand.
fn none(violations: Vec<(PathBuf, String)>) {
    let stands =
        |file: &Path, message: &str| STANDING.iter().any(|(path, part, _)| file == Path::new(path) && message.contains(part));
    let found: Vec<String> = violations
        .into_iter()
        .filter(|(file, message)| !stands(file, message))
        .map(|(file, message)| format!("{}: {message}", file.display()))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Length of `::` at this place: 2, or 0 if it is not there.
fn separator(tokens: &[TokenTree], at: usize) -> usize {
    if is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':') { 2 } else { 0 }
}

/// The paths that go on from `at`, which is behind a `::`: one, or those of a group in braces.
fn paths(tokens: &[TokenTree], at: usize, before: &[String], found: &mut Vec<Vec<String>>) {
    match tokens.get(at) {
        Some(TokenTree::Ident(name)) => {
            let path = [before, &[name.to_string()]].concat();
            match separator(tokens, at + 1) {
                0 => found.push(path),
                length => paths(tokens, at + 1 + length, &path, found),
            }
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            let starts = inner.iter().enumerate().filter(|(_, token)| is_punct(Some(token), ',')).map(|(comma, _)| comma + 1);
            for start in std::iter::once(0).chain(starts).filter(|start| *start < inner.len()) {
                paths(&inner, start, before, found);
            }
        }
        _ => found.push(before.to_vec()),
    }
}

/// All paths from the top of the crate, however they are written; `module` is where the tokens stand.
fn crate_paths(tokens: TokenStream, module: &[String], found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(name) if name == "crate" && separator(&tokens, at + 1) > 0 => {
                paths(&tokens, at + 3, &[], found);
            }
            TokenTree::Ident(name) if name == "super" && (at < 2 || separator(&tokens, at - 2) == 0) => {
                let (mut next, mut above) = (at, module.len());
                while matches!(tokens.get(next), Some(TokenTree::Ident(name)) if name == "super") {
                    above = above.saturating_sub(1);
                    next += 1 + separator(&tokens, next + 1);
                }
                paths(&tokens, next, &module[..above], found);
            }
            TokenTree::Group(group) => {
                let inner = match (at.checked_sub(2).map(|at| &tokens[at]), at.checked_sub(1).map(|at| &tokens[at])) {
                    (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(name))) if word == "mod" => {
                        [module, &[name.to_string()]].concat()
                    }
                    _ => module.to_vec(),
                };
                crate_paths(group.stream(), &inner, found);
            }
            _ => {}
        }
    }
}

fn may_import(from: &str, path: &[String]) -> bool {
    let Some(to) = path.first() else { return true };
    let known = LAYERS.iter().any(|(name, _)| name == to);
    let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == from).unwrap_or_else(|| panic!("{from} has no layer"));
    let joined = path.join("::");
    !known
        || to == from
        || to == "error"
        || to == "id"
        || allowed.iter().any(|allowed| joined == *allowed || joined.starts_with(&format!("{allowed}::")))
}

#[test]
fn modules_import_only_what_lies_below_them() {
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| source.module != ["lib"]) {
        let mut found = Vec::new();
        // The program sees the library under its name.
        let text = if source.module == ["main"] { source.text.replace("lifeboat::", "crate::") } else { source.text.clone() };
        crate_paths(TokenStream::from_str(&text).unwrap(), &source.module, &mut found);
        found.sort();
        found.dedup();
        for path in found.iter().filter(|path| !may_import(&source.module[0], path)) {
            violations.push((source.path.clone(), format!("imports {}", path.join("::"))));
        }
    }
    none(violations);
}

/// Calls `each` with every token and those behind it.
fn every_token(tokens: TokenStream, each: &mut impl FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for at in 0..tokens.len() {
        each(&tokens[at..]);
        if let TokenTree::Group(group) = &tokens[at] {
            every_token(group.stream(), each);
        }
    }
}

#[test]
fn only_faces_print_and_read_the_environment() {
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| !FACES.contains(&source.module[0].as_str())) {
        every_token(TokenStream::from_str(&source.text).unwrap(), &mut |tokens| {
            let TokenTree::Ident(name) = &tokens[0] else { return };
            let name = name.to_string();
            if ["print", "println", "eprint", "eprintln", "dbg"].contains(&name.as_str()) && is_punct(tokens.get(1), '!') {
                violations.push((source.path.clone(), format!("prints with {name}!")));
            }
            if name == "std" && matches!(tokens.get(3), Some(TokenTree::Ident(module)) if module == "env") {
                violations.push((source.path.clone(), "reads the environment".to_owned()));
            }
        });
    }
    none(violations);
}

/// Where all random bytes and the time come from that an engine uses, and the one place that knows of others than the
/// system's.
const SURROUNDINGS: &[&str] = &["repo", "surroundings"];

#[test]
fn an_engine_draws_random_bytes_and_the_time_in_one_place_and_from_the_system() {
    let is = |token: Option<&TokenTree>, word: &str| matches!(token, Some(TokenTree::Ident(name)) if name == word);
    let mut violations = Vec::new();
    for source in sources().iter().filter(|source| source.module != SURROUNDINGS) {
        let of_engine = ["repo", "ops"].contains(&source.module[0].as_str());
        every_token(TokenStream::from_str(&source.text).unwrap(), &mut |tokens| {
            let follows = |word| separator(tokens, 1) > 0 && is(tokens.get(3), word);
            // Whoever could do this in a program that people run could make keys that are known.
            if is(tokens.first(), "simulated") {
                violations.push((source.path.clone(), "names simulated surroundings".to_owned()));
            }
            let random = is(tokens.first(), "fill_random") || is(tokens.first(), "crypto") && follows("random");
            if of_engine && (random || is(tokens.first(), "Timestamp") && follows("now")) {
                violations.push((source.path.clone(), "does not ask its surroundings".to_owned()));
            }
        });
    }
    none(violations);
}

struct Functions {
    long: Vec<String>,
}

impl Functions {
    fn measure(&mut self, signature: &syn::Signature, whole: proc_macro2::Span) {
        let lines = whole.end().line + 1 - signature.span().start().line;
        if lines > FUNCTION_LINES {
            self.long.push(format!("function {} has {lines} lines", signature.ident));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, item.span());
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, item.span());
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.measure(&item.sig, item.span());
        syn::visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn functions_are_short() {
    let mut violations = Vec::new();
    for source in sources() {
        let file = syn::parse_file(&source.text).unwrap();
        let mut functions = Functions { long: Vec::new() };
        functions.visit_file(&file);
        violations.extend(functions.long.into_iter().map(|message| (source.path.clone(), message)));
    }
    none(violations);
}

#[test]
fn files_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    rust_files(&root.join("src"), &mut paths);
    rust_files(&root.join("tests"), &mut paths);
    let mut violations = Vec::new();
    for path in paths {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > FILE_LINES {
            violations.push((path.strip_prefix(root).unwrap().to_owned(), format!("has {lines} lines")));
        }
    }
    none(violations);
}

#[test]
fn the_rules_see_what_they_forbid() {
    let module = ["repo".to_owned(), "cache".to_owned()];
    let mut found = Vec::new();
    let text = "use crate::{error::Error, store::{Key, Location}}; fn f() { x!(crate::ops::run(1)); } mod t { use super::super::super::cli::A; }";
    crate_paths(TokenStream::from_str(text).unwrap(), &module, &mut found);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["error::Error", "store::Key", "store::Location", "ops::run", "cli::A"]);
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    assert!(may_import("source", &path("format::tree::Node")));
    assert!(!may_import("source", &path("format::pack::Toc")));
    assert!(!may_import("ops", &path("store::Key")));
}

/// A thread that has ended is an error of the work that waits for it, and no reason to panic. How a call goes on, without
/// blanks: `send(x).unwrap()`.
fn panics_at_a_closed_channel(text: &str) -> bool {
    let text: String = text.split_whitespace().collect();
    let calls = regex::Regex::new(r"\.(send\([^;{}]*?\)|try_send\([^;{}]*?\)|recv\(\)|try_recv\(\)|join\(\))\.(unwrap|expect)\(")
        .unwrap();
    calls.is_match(&text)
}

#[test]
fn no_end_of_a_thread_or_channel_is_taken_for_impossible() {
    for text in ["a.send(b).unwrap()", "a\n    .send((b, c))\n    .expect(\"x\")", "t.join().unwrap();", "r.recv().expect(\"y\")"]
    {
        assert!(panics_at_a_closed_channel(text), "{text}");
    }
    assert!(!panics_at_a_closed_channel(
        "names.join(\"/\"); t.join().unwrap_or_else(|_| f()); let x = a.send(b).is_err(); c.unwrap()"
    ));
    let tests = |source: &Source| source.text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let sources = sources().into_iter().filter(|source| panics_at_a_closed_channel(&tests(source)));
    none(sources.map(|source| (source.path, "panics when a thread has ended".to_owned())).collect());
}

/// The programs of tests, each with the text of all of its files; the tests beside the code are those of `lib`.
fn test_programs() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut programs = Vec::new();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut files = Vec::new();
        if path.is_dir() {
            rust_files(&path, &mut files)
        } else {
            files.push(path)
        }
        files.retain(|file| file.extension().is_some_and(|end| end == "rs"));
        programs.push((name, files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()));
    }
    programs.push(("lib".into(), sources().into_iter().map(|source| source.text).collect()));
    programs
}

/// Tests as a page names them: `program::name`.
fn named_tests(page: &str) -> Vec<(&str, &str)> {
    let words = page.split('`').skip(1).step_by(2);
    words.filter(|word| !word.contains(' ')).filter_map(|word| word.split_once("::")).collect()
}

#[test]
fn every_test_that_the_page_of_losses_names_exists_and_every_row_names_one() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-to-lose-data.md")).unwrap();
    let programs = test_programs();
    let named = named_tests(&page);
    assert!(named.len() > 60, "{} tests are named", named.len());
    for (program, name) in named {
        let found = programs.iter().any(|(known, text)| known == program && is_test(text, name));
        assert!(found, "there is no test {program}::{name}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what went wrong elsewhere |"));
    for row in rows {
        assert!(row.contains("::"), "no test is named: {row}");
    }
}

/// True if a function of that name has `#[test]` before it, and nothing else but attributes.
fn is_test(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    before.lines().rev().take_while(|line| !line.contains('}')).any(|line| line.trim() == "#[test]")
}
