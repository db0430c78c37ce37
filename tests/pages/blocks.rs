//! What a page in Markdown holds: fences, what stands between them, and the commands of a session.

/// A part of a page, with the number of its first line.
pub(crate) enum Part {
    /// Lines outside of fences.
    Prose { first: usize, lines: Vec<String> },
    /// A fence: its language, the lines in it without their common indentation, and why it is not run, if it says so.
    Fence { first: usize, language: String, lines: Vec<String>, not_run: Option<String> },
}

/// The reason in `<!-- not run: REASON -->`.
fn reason(line: &str) -> Option<String> {
    Some(line.trim().strip_prefix("<!-- not run: ")?.strip_suffix(" -->")?.to_owned())
}

/// Cuts a page into its parts.
pub(crate) fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let indent: String = line.chars().take_while(|character| *character == ' ').collect();
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let mut within = Vec::new();
            for (_, line) in lines.by_ref() {
                if line.trim() == "```" {
                    break;
                }
                within.push(line.strip_prefix(&indent).unwrap_or(line.trim_start()).to_owned());
            }
            let above = match parts.last() {
                Some(Part::Prose { lines, .. }) => lines.iter().rev().find(|line| !line.trim().is_empty()),
                _ => None,
            };
            let not_run = above.and_then(|line: &String| reason(line));
            let language = language.trim().to_owned();
            parts.push(Part::Fence { first: number + 1, language, lines: within, not_run });
            continue;
        }
        match parts.last_mut() {
            Some(Part::Prose { lines, .. }) => lines.push(line.to_owned()),
            _ => parts.push(Part::Prose { first: number + 1, lines: vec![line.to_owned()] }),
        }
    }
    parts
}

/// A command of a session and what it answered.
pub(crate) struct Exchange {
    /// Its place in the lines of the fence.
    pub(crate) at: usize,
    pub(crate) command: String,
    pub(crate) answer: Vec<String>,
}

/// The exchanges of a `console` fence: lines that begin with `$ `, those that begin with `> ` go on with them.
pub(crate) fn exchanges(lines: &[String]) -> Vec<Exchange> {
    let mut found: Vec<Exchange> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push(Exchange { at, command: command.to_owned(), answer: Vec::new() });
            continue;
        }
        let last = found.last_mut().expect("a session begins with a command");
        match line.strip_prefix("> ") {
            Some(more) if last.answer.is_empty() => last.command += &format!("\n{more}"),
            _ => last.answer.push(line.clone()),
        }
    }
    found
}

/// The commands of an `sh` fence; a line that ends with a backslash goes on in the next one.
pub(crate) fn commands(lines: &[String]) -> Vec<Exchange> {
    let mut found: Vec<Exchange> = Vec::new();
    let mut goes_on = false;
    for (at, line) in lines.iter().enumerate() {
        let command = line.split_once(" # ").map_or(line.as_str(), |(command, _)| command).trim_end();
        match found.last_mut().filter(|_| goes_on) {
            Some(last) => last.command += &format!("\n{command}"),
            None if command.is_empty() || command.starts_with('#') => {}
            None => found.push(Exchange { at, command: command.to_owned(), answer: Vec::new() }),
        }
        goes_on = command.ends_with('\\');
    }
    found
}
