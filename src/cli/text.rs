//! Text for people: sizes, times, rates, names of any bytes, colours.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Writes a line to standard output. Whoever stops reading has seen enough; a full disk is another matter.
pub(in crate::cli) fn print(line: std::fmt::Arguments<'_>) {
    let written = std::io::stdout().lock().write_fmt(format_args!("{line}\n"));
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let error = crate::error::Error::io("write", "to standard output", error);
        complain(format_args!("lifeboat: {error}\nhint: {}\n", error.hint()));
        std::process::exit(1);
    }
}

/// Writes to standard error, in one piece. If that fails there is nobody to tell.
pub(in crate::cli) fn complain(text: std::fmt::Arguments<'_>) {
    let _ = std::io::stderr().lock().write_all(text.to_string().as_bytes());
}

/// Columns of standard output, if it is a terminal.
fn columns() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

/// A table of these columns, without its rows.
pub(super) fn table(header: Vec<&str>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let mut names = Row::from(header);
    names.max_height(1);
    table.set_header(names);
    table
}

/// Columns that may be cut; all others are shown whole.
const FLEXIBLE: [&str; 8] = ["tags", "paths", "why", "result", "figures", "repository", "recipient", "state"];

/// The table, cut to what the terminal has: each row is one line.
pub(super) fn fitted(table: Table) -> String {
    fitted_to(table, columns())
}

fn fitted_to(mut table: Table, columns: Option<u16>) -> String {
    if let Some(columns) = columns {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns).set_truncation_indicator("…");
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
        let names: Vec<String> = table.header().into_iter().flat_map(Row::cell_iter).map(Cell::content).collect();
        for (position, _) in names.iter().enumerate().filter(|(_, name)| !FLEXIBLE.contains(&name.as_str())) {
            let constraint = ColumnConstraint::ContentWidth;
            if let Some(column) = table.column_mut(position) {
                column.set_constraint(constraint);
            }
        }
    }
    table.to_string()
}

/// Colours, if the stream is a terminal and nobody said otherwise.
#[derive(Clone, Copy)]
pub(super) struct Style(bool);

impl Style {
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self(!set("NO_COLOR") && ((stream.is_terminal() && can_move_cursor()) || set("CLICOLOR_FORCE")))
    }

    fn code(self, code: &'static str) -> &'static str {
        if self.0 { code } else { "" }
    }

    pub(super) fn bad(self) -> &'static str {
        self.code("\x1b[1;31m")
    }

    pub(super) fn warn(self) -> &'static str {
        self.code("\x1b[33m")
    }

    pub(super) fn good(self) -> &'static str {
        self.code("\x1b[32m")
    }

    pub(super) fn reset(self) -> &'static str {
        self.code("\x1b[0m")
    }
}

/// True if the terminal, should there be one, understands escape sequences.
pub(super) fn can_move_cursor() -> bool {
    std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// True for characters that make a terminal do something else than show them, or show text in another order.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as a terminal may show it: control characters, backslashes, and what is not UTF-8 are escaped, so that no two names
/// look the same.
pub(super) fn printable(bytes: &[u8]) -> String {
    escaped(bytes, true)
}

/// A message as a terminal may show it. Names in it may be escaped already, so backslashes stay.
pub(super) fn legible(text: &str) -> String {
    escaped(text.as_bytes(), false)
}

fn escaped(bytes: &[u8], backslashes: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_unsafe(character) || (backslashes && character == '\\') {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// A name in JSON: as text, and as hexadecimal digits too when it is not UTF-8.
pub(super) fn json_path(object: &mut serde_json::Map<String, serde_json::Value>, bytes: &[u8]) {
    object.insert("path".into(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        object.insert("path_bytes".into(), hex.into());
    }
}

/// `1.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `1,234 files`.
pub(super) fn number(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `2.4 s`, `3 min 5 s`, `1 h 2 min`.
pub(super) fn duration(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
    }
}

/// Bytes in a time, for each second.
pub(super) fn rate(bytes: u64, time: Duration) -> String {
    let each = bytes as f64 / time.as_secs_f64().max(0.001);
    format!("{}/s", size(each as u64))
}

/// Local time to the second.
pub(super) fn time(nanos: i64) -> String {
    let stamp = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// RFC 3339 in UTC.
pub(super) fn json_time(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default().to_string()
}

/// Reads `10M`, `1.5GiB`, `4096`: powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no size; write it like 10M or 1.5GiB"))?;
    let unit = unit.trim().to_ascii_uppercase();
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return Err(format!("{text:?} has an unknown unit; K, M, G, T, and P are known")),
    };
    let bytes = number * 1024f64.powi(power);
    if (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(format!("{text:?} is too large")) }
}

/// Reads a rate: bytes for each second, at least one.
pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err(format!("{text:?} would never let anything through; without a limit, leave it out")),
        rate => Ok(rate),
    }
}

/// Reads `90s`, `30m`, `2h`, `30d`; a day has 24 hours.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::Span>().and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()));
    let span = span.map_err(|_| format!("{text:?} is no duration; write it like 90s, 30m, 2h, or 30d"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is less than nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(parse_size("10M"), Ok(10 << 20));
        assert_eq!(parse_size("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert!(parse_size("x").is_err() && parse_size("1Q").is_err());
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn a_table_is_cut_to_the_terminal_and_whole_elsewhere() {
        let long = "/a/very/long/path/that/goes/on and on/and/on/and/never/ends";
        let table = || {
            let mut table = table(vec!["id", "time", "paths"]);
            table.add_row(["0123abcd", "2026-01-02 03:04:05", long]);
            table
        };
        assert!(fitted_to(table(), None).contains(long));
        let narrow = fitted_to(table(), Some(50));
        assert!(narrow.lines().all(|line| line.trim_end().chars().count() <= 50) && narrow.lines().count() == 2, "{narrow}");
        assert!(narrow.contains("0123abcd  2026-01-02 03:04:05") && narrow.contains('…'), "{narrow}");
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(printable(b"a\nb\xff\x1b"), "a\\nb\\xff\\u{1b}");
        assert_eq!((printable(br"a\xff"), legible(r"a\xff")), (r"a\\xff".to_owned(), r"a\xff".to_owned()));
        assert_eq!(printable("\u{9b}31m \u{202e}fdp".as_bytes()), "\\u{9b}31m \\u{202e}fdp");
        assert_eq!(printable("Grüße 你好 é".as_bytes()), "Grüße 你好 é");
    }
}
