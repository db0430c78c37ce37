//! Answers without what differs from run to run: ids, keys, times, rates, places.

use regex::{Captures, Regex};
use std::path::Path;

/// Rules of replacement; ids are numbered in the order in which they come up.
pub(crate) struct Plain {
    home: String,
    host: Regex,
    ids: Vec<String>,
    id: Regex,
    rules: Vec<(Regex, &'static str)>,
    figures: Vec<(Regex, &'static str)>,
}

fn rules(rules: &[(&str, &'static str)]) -> Vec<(Regex, &'static str)> {
    rules.iter().map(|(pattern, with)| (Regex::new(pattern).unwrap(), *with)).collect()
}

impl Plain {
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            home: home.display().to_string(),
            host: Regex::new(&format!(r"\b{}\b", regex::escape(&rustix::system::uname().nodename().to_string_lossy()))).unwrap(),
            ids: Vec::new(),
            id: Regex::new(r"\b(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12}|[0-9a-f]{8})\b").unwrap(),
            // What is stored is larger by a few bytes now and then: headers of age are, times compress differently, and where the
            // pages of a directory end depends on keys that are random.
            rules: rules(&[
                (r"stored as [0-9.]+ (B|[KMGT]iB)( \([0-9.]+:1\))?", "stored as <stored>"),
                (r"(  [0-9.]+ (B|KiB) +)[0-9.]+ (B|KiB) ", "$1<stored> "),
                (r"(packs?, |pack [0-9a-f]+ +)[0-9.]+ (B|KiB)", "$1<stored>"),
                (r"\([0-9.]+ (B|KiB)\): [0-9.]+ (B|KiB) freed", "(<stored>): <stored> freed"),
                (r"[0-9.]+ (B|KiB) read in", "<stored> read in"),
                (r"read whole, [0-9.]+ (B|KiB)", "read whole, <stored>"),
                (r"[0-9.]+ (B|[KMGT]iB) new\b", "<stored> new"),
                (r"(added +)[0-9]+ B,", "$1<stored>,"),
                (r#""bytes_added":[0-9]+"#, r#""bytes_added":<stored>"#),
                (r#""bytes_stored":[0-9]+"#, r#""bytes_stored":<stored>"#),
                ("AGE-SECRET-KEY-1[0-9A-Z]{58}", "AGE-SECRET-KEY-1…"),
                ("LIFEBOAT-SHARE-1[0-9A-Z]+", "LIFEBOAT-SHARE-1…"),
                ("age1[0-9a-z]{58}", "age1…"),
                (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?( UTC)?", "<time>"),
                (r"\d{4}-\d\d-\d\d", "<date>"),
                (r"([0-9.]+) (B|KiB|MiB|GiB)/s", "<rate>"),
                (r"\b[0-9]+(\.[0-9]+)? s\b", "<duration>"),
                (r#"("seconds(_left)?"):[0-9.e-]+"#, "$1:<seconds>"),
                (r"(?m)^([-dlpscb][-rwxsStT]{9}) \S+ +\S+ +", "$1 ann ann "),
                // How deep the scratch home lies.
                (r"[0-9]+ directories(, 0 others, 8 B to /\n)", "<n> directories$1"),
                (r"lifeboat \d+\.\d+\.\d+", "lifeboat <version>"),
                (r#""version":"[^"]*""#, r#""version":"<version>""#),
            ]),
            figures: rules(&[(r"[0-9][0-9.,]* (B|KiB|MiB|GiB|TiB)\b", "<size>"), (r"[0-9][0-9.,]*", "<n>")]),
        }
    }

    /// A command of a page with the ids that stand for `<id 1>` and so on.
    pub(crate) fn filled(&self, command: &str) -> String {
        let mut filled = command.to_owned();
        for (number, id) in self.ids.iter().enumerate() {
            filled = filled.replace(&format!("<id {}>", number + 1), id);
        }
        assert!(!filled.contains("<id "), "no such id came up before: {command}");
        filled
    }

    fn number_ids(&mut self, text: &str) -> String {
        let ids = &mut self.ids;
        let numbered = self.id.replace_all(text, |found: &Captures<'_>| {
            let id = &found[0];
            let known = ids.iter().position(|known| known.starts_with(id) || id.starts_with(known.as_str()));
            let number = known.unwrap_or_else(|| {
                ids.push(id.to_owned());
                ids.len() - 1
            });
            if ids[number].len() < id.len() {
                id.clone_into(&mut ids[number]);
            }
            format!("<id {}>", number + 1)
        });
        numbered.into_owned()
    }

    /// The answer as it stands in a transcript.
    pub(crate) fn of(&mut self, answer: &str) -> String {
        // The home is a scratch directory; the page is about Ann's.
        let mut text = answer.replace(&self.home, "/home/ann");
        text = text.replace(self.home.trim_start_matches('/'), "home/ann");
        text = self.host.replace_all(&text, "harbour").into_owned();
        for (pattern, with) in &self.rules {
            text = pattern.replace_all(&text, *with).into_owned();
        }
        text = self.number_ids(&text);
        let spaces = Regex::new("  +").unwrap();
        let lines: Vec<String> = text.lines().map(|line| spaces.replace_all(line.trim_end(), "  ").into_owned()).collect();
        lines.join("\n")
    }

    /// The same without any figures, for pages whose figures are of another machine and other files.
    pub(crate) fn shape(&mut self, answer: &str) -> String {
        let mut text = self.of(answer);
        text = Regex::new("<id [0-9]+>").unwrap().replace_all(&text, "<id>").into_owned();
        for (pattern, with) in &self.figures {
            text = pattern.replace_all(&text, *with).into_owned();
        }
        Regex::new(" +").unwrap().replace_all(&text, " ").into_owned()
    }
}
