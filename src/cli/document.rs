//! A report as one JSON object that is written as it is made: a list in it may be longer than memory is.

use crate::error::{Error, Result};
use crate::ops::gathered::Gathered;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{BufWriter, Write};

/// A list under a name.
pub(super) type List<'a> = (&'static str, Box<dyn Iterator<Item = Result<Value>> + 'a>);

/// A list of which each item is told as `tell` says.
pub(super) fn list<'a, T: Serialize + DeserializeOwned>(
    name: &'static str,
    items: &'a Gathered<T>,
    tell: impl Fn(&T) -> Value + 'a,
) -> List<'a> {
    (name, Box::new(items.iter().map(move |item| item.map(|item| tell(&item)))))
}

/// Prints one object with these lists, and with the members of `figures`.
pub(super) fn print(lists: Vec<List<'_>>, figures: &Value) -> Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    write(&mut out, lists, figures)?;
    out.flush().map_err(failed)
}

fn write(out: &mut dyn Write, lists: Vec<List<'_>>, figures: &Value) -> Result<()> {
    let mut before = '{';
    for (name, items) in lists {
        write!(out, "{before}{}:[", Value::from(name)).map_err(failed)?;
        for (number, item) in items.enumerate() {
            write!(out, "{}{}", if number > 0 { "," } else { "" }, item?).map_err(failed)?;
        }
        write!(out, "]").map_err(failed)?;
        before = ',';
    }
    for (name, value) in figures.as_object().into_iter().flatten() {
        write!(out, "{before}{}:{value}", Value::from(name.as_str())).map_err(failed)?;
        before = ',';
    }
    writeln!(out, "}}").map_err(failed)
}

fn failed(error: std::io::Error) -> Error {
    Error::io("print the report to", "standard output", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_one_object() {
        let (mut items, none) = (Gathered::default(), Gathered::default());
        (0..3).for_each(|number| items.push(&number).unwrap());
        let lists = vec![
            list("a \"name\"", &items, |number: &i32| json!({"number": number})),
            list("none", &none, |_: &i32| Value::Null),
        ];
        let mut out = Vec::new();
        write(&mut out, lists, &json!({"seconds": 1.5, "damaged": false})).unwrap();
        let expected = json!({
            "a \"name\"": [{"number": 0}, {"number": 1}, {"number": 2}], "none": [], "seconds": 1.5, "damaged": false
        });
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }
}
