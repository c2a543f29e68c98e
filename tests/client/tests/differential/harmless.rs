//! Expected differences between two processes or two clusters, in one place, with the reasons.

use crate::actions::words;
use crate::play::Answer;

/// Files that are not run.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "compression_pglz",
        "calls functions of a library that is part of PostgreSQL's tests only",
    ),
    ("mvcc", "one transaction that goes on with a variable of psql"),
    ("psql", "about the program psql"),
    ("psql_crosstab", "about the program psql"),
    ("psql_pipeline", "about the program psql"),
    ("random", "random numbers"),
    (
        "stats",
        "waits for counters that other processes bring up to date at their own time",
    ),
    ("stats_import", "the same"),
];

/// Words of statements whose rows and numbers are not compared, only how they end.
const BY_NATURE: &[(&str, &str)] = &[
    ("now", "the time"),
    ("current_timestamp", "the time"),
    ("current_time", "the time"),
    ("current_date", "the time, near midnight"),
    ("localtimestamp", "the time"),
    ("localtime", "the time"),
    ("clock_timestamp", "the time"),
    ("statement_timestamp", "the time"),
    ("transaction_timestamp", "the time"),
    ("timeofday", "the time"),
    ("stats_reset", "the time"),
    ("random", "random numbers"),
    ("random_normal", "random numbers"),
    ("gen_random_uuid", "random numbers"),
    ("uuidv4", "random numbers"),
    ("uuidv7", "random numbers and the time"),
    ("tablesample", "random numbers"),
    ("rolpassword", "random salts"),
    ("pg_backend_pid", "a process"),
    ("pg_stat_activity", "processes and times"),
    ("pg_locks", "processes"),
    ("pg_backend_memory_contexts", "what a process has cached"),
    ("pg_log_backend_memory_contexts", "a process"),
    ("pg_get_loaded_modules", "what a process has loaded"),
    (
        "pg_current_wal_lsn",
        "the two clusters write other amounts of WAL: new processes do more of their own",
    ),
    ("pg_ls_waldir", "the same"),
    (
        "pg_size_pretty",
        "sizes of the catalogs, which grow with each process's temporary schema",
    ),
    ("pg_database_size", "the same"),
    ("pg_settings", "a library that is loaded has settings of its own"),
    ("pg_show_all_settings", "the same"),
    ("buffers", "what is cached"),
    ("explain_filter", "times, and what is cached: EXPLAIN in a string"),
    ("wal", "the same"),
];

/// Beginnings of statements whose messages name one object of several, in catalog order. The order differs if rows of temporary schemas
/// were inserted and deleted. `GRANT` and `REVOKE ... ON ALL ... IN SCHEMA` are the same.
const IN_ORDER_OF_CATALOG: &[&str] = &["alter table all in tablespace", "drop owned", "reassign owned"];

/// A statement of these words alone looks at all tables of the database, and names those that it skips in the order of the catalog: also
/// temporary tables of a process that is about to end.
const OF_ALL_TABLES: &[&str] = &["begin", "vacuum", "analyze", "full", "freeze", "verbose"];

/// Messages of a function's compilation, which a process raises once under the same settings and roles: only the messages of the calls are
/// compared. A session that has created the function does not raise them again either.
const ONCE_COMPILED: &str = "WARNING 22P06 nonstandard use of ";

/// The error of a recursion without end. How often its context says the same is not compared: that differs by a call between two new
/// processes, too.
const TOO_DEEP: &str = "54001";

/// Whether both sides show the same.
pub fn same(one: &Answer, other: &Answer) -> bool {
    if one.sql != other.sql || one.failed != other.failed {
        return false;
    }
    let words = words(&one.sql);
    let is_ordered = words.windows(2).any(|pair| pair == ["order", "by"]);
    if same_texts(one, other, is_ordered, str::to_owned) || same_texts(one, other, is_ordered, without_numbers) {
        return true;
    }
    let lower = one.sql.trim_start_matches("BEGIN;\n").to_lowercase();
    let is_for_all = (lower.starts_with("grant") || lower.starts_with("revoke"))
        && words.windows(2).any(|pair| pair == ["on", "all"])
        && words.windows(2).any(|pair| pair == ["in", "schema"]);
    let is_of_all_tables = words.iter().all(|word| OF_ALL_TABLES.contains(&word.as_str()));
    if is_for_all || is_of_all_tables || IN_ORDER_OF_CATALOG.iter().any(|start| lower.starts_with(start)) {
        return one.sqlstate == other.sqlstate;
    }
    let measures = words.iter().any(|word| word == "explain") && words.iter().any(|word| word == "analyze");
    let by_nature = words
        .iter()
        .any(|word| BY_NATURE.iter().any(|(known, _)| known == word));
    (measures || by_nature) && without_digits(&one.end) == without_digits(&other.end)
}

fn same_texts(one: &Answer, other: &Answer, is_ordered: bool, mask: impl Fn(&str) -> String) -> bool {
    let rows = |answer: &Answer| {
        let mut rows: Vec<_> = answer.rows.iter().map(|row| mask(row)).collect();
        if !is_ordered {
            rows.sort();
        }
        rows
    };
    let messages = |answer: &Answer| {
        let messages = answer.messages.iter().filter(|text| !text.starts_with(ONCE_COMPILED));
        messages.map(|text| mask(text)).collect::<Vec<_>>()
    };
    let end = |answer: &Answer| {
        let mut lines: Vec<_> = answer.end.lines().collect();
        if answer.sqlstate.as_deref() == Some(TOO_DEEP) {
            lines.dedup();
        }
        mask(&lines.join("\n"))
    };
    end(one) == end(other) && rows(one) == rows(other) && messages(one) == messages(other)
}

/// OIDs, transaction ids and pids have five or six digits. They differ in two clusters that do the same, since a new process creates
/// temporary schemas of its own.
fn without_numbers(text: &str) -> String {
    masked(text, 5..=6)
}

fn without_digits(text: &str) -> String {
    masked(text, 1..=usize::MAX)
}

fn masked(text: &str, lengths: std::ops::RangeInclusive<usize>) -> String {
    let mut masked = String::new();
    let mut left = text;
    while let Some(at) = left.find(|c: char| c.is_ascii_digit()) {
        masked += &left[..at];
        let len = left[at..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(left.len() - at);
        let number = &left[at..at + len];
        masked += if lengths.contains(&len) { "#" } else { number };
        left = &left[at + len..];
    }
    masked + left
}
