//! The page itself: text for any printer, HTML for a nicer one; both with a square to scan.

use crate::cli::text;
use crate::error::{Error, Result};
use crate::ops::kit::{Kit, KitSecret};
use crate::repo::SnapshotEntry;
use qrcode::{Color, EcLevel, QrCode};
use std::fmt::Write;
use std::path::Path;
use zeroize::Zeroizing;

/// The document that says what the bytes mean, as it was when this program was built.
const FORMAT: &[u8] = include_bytes!("../../../docs/format.md");
/// White around the square, in modules.
const QUIET: usize = 4;

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    /// Plain text
    Text,
    /// A page for a browser, and its printer
    Html,
}

impl Format {
    pub(super) fn of(path: Option<&Path>) -> Self {
        let extension = path.and_then(Path::extension).map(|extension| extension.to_ascii_lowercase());
        if extension.is_some_and(|extension| extension == "html" || extension == "htm") { Self::Html } else { Self::Text }
    }
}

pub(super) struct Page<'a> {
    pub(super) kit: Kit,
    /// Number of the share, how many are needed, how many there are.
    pub(super) share: Option<(u8, u8, u8)>,
    pub(super) newest: Option<&'a SnapshotEntry>,
}

impl Page<'_> {
    pub(super) fn write(&self, format: Format) -> Result<Zeroizing<Vec<u8>>> {
        let code = QrCode::with_error_correction_level(self.kit.text().as_bytes(), EcLevel::M);
        let code = code.map_err(|error| Error::failed(format!("draw the square of the kit: {error}")))?;
        let written = match format {
            Format::Text => self.plain(&code),
            Format::Html => self.html(&code),
        };
        Ok(Zeroizing::new(written.as_bytes().to_vec()))
    }

    fn title(&self) -> String {
        match self.share {
            Some((number, needed, parts)) => format!("Lifeboat recovery kit: share {number} of {parts}, {needed} are needed"),
            None => "Lifeboat recovery kit".to_owned(),
        }
    }

    fn warning(&self) -> String {
        match (&self.kit.secret, self.share) {
            (KitSecret::Elsewhere, _) => "This page holds no key. The key is kept here: ______________________________".into(),
            (KitSecret::Identity(_), _) => {
                "Whoever has this page can read the backups. Keep it like a passport, away from the machine.".into()
            }
            (KitSecret::Share(_), Some((_, needed, _))) => {
                format!("Whoever has {needed} of these pages can read the backups. Give them to different people.")
            }
            (KitSecret::Share(_), None) => String::new(),
        }
    }

    /// What else is good to know: name and value.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default();
        let mut facts = vec![("made", format!("{} by lifeboat {}", text::time(now), env!("CARGO_PKG_VERSION")))];
        if let Some(entry) = self.newest {
            let host = text::printable(entry.snapshot.host.as_bytes());
            facts.push(("newest", format!("snapshot {} of {host}, {}", entry.id.short(), text::time(entry.snapshot.start))));
        }
        facts
    }

    /// What to do, each with the command for it, if there is one.
    fn steps(&self) -> Vec<(String, Option<String>)> {
        let file = match self.share {
            Some((_, needed, _)) => (1..=needed).map(|number| format!("kit-{number}.txt")).collect::<Vec<_>>().join(" "),
            None => "kit.txt".to_owned(),
        };
        let whose = match self.share {
            Some((_, needed, _)) => format!("of {needed} of these pages, each into a file of its own"),
            None => "into a file".to_owned(),
        };
        let mut steps = vec![
            (
                "Get the program lifeboat onto the machine. It is built from its source by `cargo build --release`; a copy of the \
                 program on the stick with this page saves that."
                    .to_owned(),
                None,
            ),
            (
                "Make the repository reachable: attach the disk, or give the machine network and the credentials of the store, which \
                 are not on this page. If it is elsewhere now, say where with --at and --repo."
                    .to_owned(),
                None,
            ),
            (format!("Scan the square with any phone, or type the lines above, {whose}. See that it works:"), Some(format!("lifeboat kit test {file}"))),
        ];
        if !matches!(self.kit.secret, KitSecret::Elsewhere) {
            steps.push(("Write the key to a file:".into(), Some(format!("lifeboat kit join {file} --output identity.txt"))));
        }
        let (place, fingerprint) = (quoted(&self.kit.repository), self.kit.fingerprint);
        let restore = format!("--repo {place} --fingerprint {fingerprint} --identity identity.txt");
        steps.push(("See what there is:".into(), Some(format!("lifeboat {restore} snapshots"))));
        steps.push((
            "Restore into a new directory, as root so that owners come back, and have everything compared. If it is cut off, run it \
             again: it goes on."
                .into(),
            Some(format!("lifeboat {restore} restore latest --to /restored --verify")),
        ));
        let hash = blake3::hash(FORMAT);
        steps.push((
            format!("Without the program: `age -d -i identity.txt` opens the files in keys/ of the repository, and docs/format.md says what the bytes mean (BLAKE3 {hash})."),
            None,
        ));
        steps
    }

    fn plain(&self, code: &QrCode) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(1 << 14));
        let title = self.title();
        let _ = writeln!(out, "{title}\n{}\n\n{}\n", "=".repeat(title.chars().count()), self.warning());
        for (name, value) in self.kit.lines() {
            let _ = writeln!(out, "{:<13} {}", format!("{name}:"), *value);
        }
        for (name, value) in self.facts() {
            let _ = writeln!(out, "{:<13} {value}", format!("{name}:"));
        }
        let _ = writeln!(out, "\nOn a machine that has nothing:\n");
        for (number, (step, command)) in (1..).zip(self.steps()) {
            let _ = writeln!(out, "{number}. {}", wrapped(&step, 88, "   "));
            if let Some(command) = command {
                let _ = writeln!(out, "       {command}");
            }
        }
        let _ = writeln!(out, "\nThe repository, fingerprint, and key, to be scanned:\n");
        half_blocks(code, &mut out);
        out.push('\x0c');
        out
    }

    fn html(&self, code: &QrCode) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(1 << 18));
        let title = self.title();
        let style = "body{font:11pt/1.4 sans-serif;max-width:18cm;margin:1cm auto;color:#000;background:#fff}\
            svg{width:6.5cm;float:right;margin:0 0 .5cm .5cm}code{font:9pt monospace;overflow-wrap:anywhere}\
            dt{font-weight:bold}dd{margin:0 0 .2cm}li{margin:.15cm 0}@page{margin:1.5cm}";
        let _ = write!(
            out,
            "{HTML}\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{style}</style></head>\n"
        );
        let _ = writeln!(out, "<body><h1>{title}</h1>");
        svg(code, &mut out);
        let _ = write!(out, "<p><strong>{}</strong></p>\n<dl>\n", *escaped(&self.warning()));
        for (name, value) in self.kit.lines() {
            let _ = writeln!(out, "<dt>{name}:</dt><dd><code>{}</code></dd>", *escaped(&value));
        }
        for (name, value) in self.facts() {
            let _ = writeln!(out, "<dt>{name}:</dt><dd>{}</dd>", *escaped(&value));
        }
        let _ = write!(out, "</dl>\n<h2>On a machine that has nothing</h2>\n<ol>\n");
        for (step, command) in self.steps() {
            let command = command.map(|command| format!("<br><code>{}</code>", *escaped(&command))).unwrap_or_default();
            let _ = writeln!(out, "<li>{}{command}</li>", *escaped(&step));
        }
        let _ = write!(out, "</ol>\n</body></html>\n");
        out
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,%".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// How a page in HTML begins.
pub(super) const HTML: &str = "<!doctype html>";

/// The text of a page in HTML, as it was before [`escaped`].
pub(super) fn text_of(html: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(html.len()));
    let body = html.split_once("<body>").map_or(html, |(_, body)| body);
    for piece in body.split('<') {
        out.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
    }
    let plain = out.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    Zeroizing::new(plain)
}

fn escaped(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"))
}

/// The text in lines of at most so many columns.
fn wrapped(text: &str, columns: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > columns {
            let _ = write!(out, "\n{indent}");
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out
}

/// The square in characters of half the height, dark on light, as printers draw it.
fn half_blocks(code: &QrCode, out: &mut String) {
    let (width, colors) = (code.width(), Zeroizing::new(dark(code)));
    let at = |x: usize, y: usize| {
        let (x, y) = (x.wrapping_sub(QUIET), y.wrapping_sub(QUIET));
        x < width && y < width && colors[y * width + x]
    };
    let all = width + 2 * QUIET;
    for y in (0..all).step_by(2) {
        for x in 0..all {
            out.push(match (at(x, y), at(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push('\n');
    }
}

fn dark(code: &QrCode) -> Vec<bool> {
    code.to_colors().into_iter().map(|color| color == Color::Dark).collect()
}

fn svg(code: &QrCode, out: &mut String) {
    let (width, colors) = (code.width(), Zeroizing::new(dark(code)));
    let all = width + 2 * QUIET;
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all} {all}\" shape-rendering=\"crispEdges\"><path d=\""
    );
    for (position, _) in colors.iter().enumerate().filter(|(_, dark)| **dark) {
        let _ = write!(out, "M{} {}h1v1h-1z", position % width + QUIET, position / width + QUIET);
    }
    let _ = writeln!(out, "\"/></svg>");
}
