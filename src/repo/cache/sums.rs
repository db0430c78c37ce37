//! Sums over tables: SQLite has no checksums of its own, and a bit that flips in a page, or a row that is lost with it,
//! would pass for what was written.
//!
//! Every table has a sum of the hashes of its rows, which triggers keep up to date, whoever writes. Rows of the two largest
//! tables carry a hash each instead, which is looked at whenever one of them is used; how many there are of each pack is
//! part of the pack's row.

use super::{damaged, failed};
use crate::error::Result;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// Tables without a sum: rows that carry hashes of their own, what is believed only once the store has confirmed it, and the
/// sums themselves.
const UNSUMMED: [&str; 5] = ["chunk", "directory", "kept_pack", "kept_body", "sum"];
/// Tables that grow with the number of packs.
const LARGE: [&str; 9] = ["pack", "shard_pack", "unread", "attested", "gone", "told_lost", "lost", "verified", "bad"];
/// Tables whose rows are changed; those of others are only added and removed, and each trigger takes time whenever a
/// connection is opened.
const CHANGED: [&str; 10] = ["client", "fenced", "head", "instance", "meta", "origin", "pack", "prune", "snapshot", "unread"];
/// Columns of which another one holds a hash.
const HASHED: [&str; 2] = ["seals", "blocks"];

/// A table and its columns.
struct Table {
    name: String,
    columns: Vec<String>,
}

impl Table {
    fn stays_small(&self) -> bool {
        !LARGE.contains(&self.name.as_str())
    }
}

/// All tables that have a sum, as the database defines them.
fn tables(connection: &Connection) -> Result<Vec<Table>> {
    let texts = |sql: &str, of: &[&str]| -> Result<Vec<String>> {
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map(rusqlite::params_from_iter(of), |row| row.get(0)).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    };
    let names = texts("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name", &[])?;
    let mut tables = Vec::new();
    for name in names.into_iter().filter(|name| !UNSUMMED.contains(&name.as_str())) {
        let mut columns = texts("SELECT name FROM pragma_table_info(?)", &[&name])?;
        columns.retain(|column| !HASHED.contains(&column.as_str()));
        tables.push(Table { name, columns });
    }
    Ok(tables)
}

/// Second trees that are searched by other columns: what they hold must be what the table holds.
const INDEXES: &[(&str, &str, &str)] = &[("pack", "sqlite_autoindex_pack_1", "id, no")];

/// How much of the cache is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::repo) enum Extent {
    /// What logs and prunes said, without what there is of each pack.
    Logs,
    /// That, and all that says which packs may be relied on.
    Packs,
    /// Every byte.
    All,
}

/// Hash of values in their order.
#[derive(Default)]
pub(super) struct RowHash(XxHash3_64);

impl RowHash {
    pub(super) fn of(table: &str) -> Self {
        let mut hash = Self::default();
        hash.0.write(table.as_bytes());
        hash
    }

    fn value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.0.write(&[0]),
            ValueRef::Integer(number) => self.number(number),
            ValueRef::Real(number) => self.0.write(&number.to_bits().to_le_bytes()),
            ValueRef::Text(bytes) => self.tagged(2, bytes),
            ValueRef::Blob(bytes) => self.tagged(3, bytes),
        }
    }

    pub(super) fn number(&mut self, number: i64) {
        self.0.write(&[1]);
        self.0.write(&number.to_le_bytes());
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.0.write(&[tag]);
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.tagged(3, bytes);
    }

    pub(super) fn end(&self) -> i64 {
        self.0.finish().cast_signed()
    }
}

/// Hash of a row of the chunk table.
pub(super) fn chunk_sum(id: &[u8], numbers: [u32; 5]) -> u32 {
    let mut bytes = [0; 36];
    let (prefix, rest) = bytes.split_at_mut(16);
    prefix.copy_from_slice(id.get(..16).unwrap_or(&[0; 16]));
    for (part, number) in rest.chunks_exact_mut(4).zip(numbers) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    let sum = XxHash3_64::oneshot(&bytes);
    u32::try_from(sum >> 32).expect("half of 64 bits")
}

/// Lets triggers compute: sums of what was there before, plus or minus the hash of a row.
pub(super) fn enable(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let hash = |context: &Context<'_>| -> rusqlite::Result<(i64, i64)> {
        let mut hash = RowHash::of(context.get_raw(1).as_str()?);
        (2..context.len()).for_each(|at| hash.value(context.get_raw(at)));
        Ok((context.get(0)?, hash.end()))
    };
    let plus = move |context: &Context<'_>| hash(context).map(|(sum, row)| sum.wrapping_add(row));
    let minus = move |context: &Context<'_>| hash(context).map(|(sum, row)| sum.wrapping_sub(row));
    connection.create_scalar_function(c"plus_row", -1, flags, plus).map_err(failed)?;
    connection.create_scalar_function(c"minus_row", -1, flags, minus).map_err(failed)?;
    // A row that is replaced must be subtracted.
    connection.pragma_update(None, "recursive_triggers", true).map_err(failed)
}

/// Makes the table of sums, and the triggers that keep it. Before this nothing may be inserted.
pub(super) fn make(connection: &Connection) -> Result<()> {
    let mut sql = "CREATE TABLE sum(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;".to_owned();
    for Table { name, columns } in tables(connection)? {
        let of = |row: &str| columns.iter().map(|column| format!("{row}.{column}")).collect::<Vec<_>>().join(", ");
        let (new, old, columns) = (of("NEW"), of("OLD"), columns.join(", "));
        let set = |value: String| format!("BEGIN UPDATE sum SET value = {value} WHERE name = '{name}'; END;");
        let added = set(format!("plus_row(value, '{name}', {new})"));
        let removed = set(format!("minus_row(value, '{name}', {old})"));
        let changed = set(format!("plus_row(minus_row(value, '{name}', {old}), '{name}', {new})"));
        sql.push_str(&format!(
            "INSERT INTO sum VALUES('{name}', 0);
             CREATE TRIGGER {name}_added AFTER INSERT ON {name} {added}
             CREATE TRIGGER {name}_removed AFTER DELETE ON {name} {removed}\n"
        ));
        if CHANGED.contains(&name.as_str()) {
            sql.push_str(&format!("CREATE TRIGGER {name}_changed AFTER UPDATE OF {columns} ON {name} {changed}\n"));
        }
    }
    connection.execute_batch(&sql).map_err(failed)
}

/// Hash of the definitions of all tables: where they are, and what they are called.
pub(super) fn definitions(connection: &Connection) -> Result<i32> {
    let mut hash = RowHash::default();
    each_row(connection, "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid", 5, |row| {
        (0..5).try_for_each(|at| row.get_ref(at).map(|value| hash.value(value)))
    })?;
    Ok((hash.end() >> 32) as i32)
}

fn each_row(
    connection: &Connection,
    sql: &str,
    columns: usize,
    mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> Result<()> {
    debug_assert!(columns > 0, "a row has columns");
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        each(row).map_err(failed)?;
    }
    Ok(())
}

/// Adds up the rows that a query gives.
fn sum_of(connection: &Connection, name: &str, sql: &str, columns: usize) -> Result<i64> {
    let mut sum = 0i64;
    each_row(connection, sql, columns, |row| {
        let mut hash = RowHash::of(name);
        (0..columns).try_for_each(|at| row.get_ref(at).map(|value| hash.value(value)))?;
        sum = sum.wrapping_add(hash.end());
        Ok(())
    })?;
    Ok(sum)
}

/// Fails unless the cache holds what was written to it, as far as `extent` says.
pub(in crate::repo) fn verify(connection: &Connection, extent: Extent) -> Result<()> {
    // All of it at one moment, whoever writes meanwhile.
    let moment = connection.unchecked_transaction().map_err(failed)?;
    if extent == Extent::All {
        let found: String = moment.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if found != "ok" {
            return Err(damaged("its pages do not fit together"));
        }
    }
    verify_definitions(&moment)?;
    for table in tables(&moment)?.iter().filter(|table| table.stays_small() || extent != Extent::Logs) {
        let name = &table.name;
        let sql = format!("SELECT {} FROM {name}", table.columns.join(", "));
        let found = sum_of(&moment, name, &sql, table.columns.len())?;
        let sql = "SELECT value FROM sum WHERE name = ?";
        let expected: Option<i64> = moment.query_row(sql, [name], |row| row.get(0)).optional().map_err(failed)?;
        if expected != Some(found) {
            return Err(damaged(&format!("the table {name} is not what was written")));
        }
    }
    if extent != Extent::Logs {
        for (table, index, columns) in INDEXES {
            let of = |way: &str| sum_of(&moment, table, &format!("SELECT {columns} FROM {table} {way}"), 2);
            if of("NOT INDEXED")? != of(&format!("INDEXED BY {index}"))? {
                return Err(damaged(&format!("the table {table} is not found by what it holds")));
            }
        }
    }
    if extent == Extent::All {
        verify_rows(&moment)?;
    }
    moment.commit().map_err(failed)
}

fn verify_definitions(connection: &Connection) -> Result<()> {
    let expected: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    match definitions(connection)? == expected {
        true => Ok(()),
        false => Err(damaged("its tables are not those that were made")),
    }
}

/// Looks at the rows that carry their own hashes, and that none is missing.
fn verify_rows(connection: &Connection) -> Result<()> {
    let mut left = std::collections::HashMap::new();
    each_row(connection, "SELECT no, chunks, body_sum, seals, blocks FROM pack", 5, |row| {
        let (number, chunks): (i64, i64) = (row.get(0)?, row.get(1)?);
        left.insert(number, chunks);
        let sum: i64 = row.get(2)?;
        if body_sum(row.get_ref(3)?.as_blob()?, row.get_ref(4)?.as_blob()?) != sum {
            left.insert(number, -1);
        }
        Ok(())
    })?;
    let mut whole = true;
    each_row(connection, "SELECT id, pack, block, start, len, nth, sum FROM chunk", 7, |row| {
        let numbers = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
        whole &= chunk_sum(row.get_ref(0)?.as_blob()?, numbers) == row.get::<_, u32>(6)?;
        match left.get_mut(&i64::from(numbers[0])) {
            Some(left) => *left -= 1,
            None => whole = false,
        }
        Ok(())
    })?;
    if !whole || left.values().any(|left| *left != 0) {
        return Err(damaged("what it says of chunks is not what was written"));
    }
    Ok(())
}

/// Hash of what a pack's row holds of its seals and blocks.
pub(super) fn body_sum(seals: &[u8], blocks: &[u8]) -> i64 {
    let mut hash = RowHash::default();
    hash.bytes(seals);
    hash.bytes(blocks);
    hash.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn sources(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, all) } else { all.push_str(&std::fs::read_to_string(&path).unwrap()) }
        }
    }

    #[test]
    fn whatever_is_changed_has_a_trigger_that_knows_of_it() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/repo"), &mut text);
        let changes =
            regex::Regex::new(r"UPDATE ([a-z_]+) SET|INSERT INTO ([a-z_]+)[^;]{0,300}?ON CONFLICT ?\([^)]*\) DO UPDATE").unwrap();
        let mut found: Vec<&str> = changes
            .captures_iter(&text)
            .filter_map(|found| found.get(1).or_else(|| found.get(2)))
            .map(|name| name.as_str())
            .collect();
        found.sort_unstable();
        found.dedup();
        found.retain(|name| !UNSUMMED.contains(name) && *name != "sum");
        assert!(found.len() > 5, "{found:?}");
        let missing: Vec<&&str> = found.iter().filter(|name| !CHANGED.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?} are changed");
    }
}
