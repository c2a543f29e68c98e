//! Turns the pieces of a script into actions: most become jobs; those that are meaningful only in a session are executed by the session.

use std::path::Path;

use crate::script::Piece;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A statement, or a whole transaction block.
    Job(String),
    /// A change of the session's settings or roles, which its jobs adopt.
    Session(String),
    /// Another session of this role.
    Connect(Option<String>),
}

/// Turns the pieces of a script into actions. `keep` writes the data of a `COPY ... FROM stdin` to a file that the server can read.
/// Temporary tables become permanent ones, whose names are returned too, to be dropped at the end. An `EXECUTE` gets its `PREPARE`.
pub fn actions(pieces: &[Piece], mut keep: impl FnMut(&str) -> String) -> (Vec<Action>, Vec<String>) {
    let mut actions = Vec::new();
    let mut block: Option<Vec<String>> = None;
    let mut prepared: Vec<(String, String)> = Vec::new();
    let mut dropped = Vec::new();
    for piece in pieces {
        let mut statement = match piece {
            Piece::Statement(statement) => statement.clone(),
            Piece::Copy(statement, data) => replace_word(statement, "stdin", &format!("'{}'", keep(data))),
            Piece::Connect(role) => {
                if let Some(block) = block.take() {
                    actions.push(Action::Job(block.join(";\n")));
                }
                prepared.clear();
                actions.push(Action::Connect(role.clone()));
                continue;
            }
        };
        let words = words(&statement);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words.first() == Some(&"copy") && words.contains(&"stdout") {
            statement = replace_word(&statement, "stdout", "'/dev/null'");
        }
        if let ["create", "temp" | "temporary", kind, ..] = words.as_slice()
            && matches!(*kind, "table" | "view" | "sequence" | "recursive")
        {
            statement = replace_word(&statement, words[1], "");
            dropped.extend(temporary(&words));
        }
        if let ["prepare", name, ..] = words.as_slice()
            && *name != "transaction"
        {
            prepared.push(((*name).to_owned(), statement.clone()));
        }
        if let Some(name) = words
            .iter()
            .position(|word| *word == "execute")
            .and_then(|at| words.get(at + 1))
            && let Some((_, text)) = prepared.iter().rev().find(|(known, _)| known == name)
            && words[0] != "prepare"
            && block.as_ref().is_none_or(|block| !block.contains(text))
        {
            statement = format!("{text};\n{statement}");
        }
        let begins = matches!(words.as_slice(), ["begin", ..] | ["start", "transaction", ..]);
        let ends =
            matches!(
                words.as_slice(),
                ["commit" | "end" | "abort", ..] | ["prepare", "transaction", ..]
            ) || words.first() == Some(&"rollback") && !words.contains(&"to") && words.get(1) != Some(&"prepared");
        match &mut block {
            Some(open) => {
                open.push(statement);
                // A block that begins another at once (AND CHAIN) continues.
                if ends && (words.contains(&"no") || !words.contains(&"chain")) {
                    let committed = matches!(words[0], "commit" | "end");
                    let settings: Vec<_> = open
                        .iter()
                        .filter(|_| committed)
                        .filter(|s| is_of_session(s))
                        .cloned()
                        .collect();
                    actions.push(Action::Job(open.join(";\n")));
                    actions.extend(settings.into_iter().map(Action::Session));
                    block = None;
                }
            }
            None if begins => block = Some(vec![statement]),
            None if is_of_session(&statement) => actions.push(Action::Session(statement)),
            None => actions.push(Action::Job(statement)),
        }
    }
    if let Some(block) = block {
        actions.push(Action::Job(block.join(";\n")));
    }
    (actions, dropped)
}

/// Whether a statement changes the session's state, and nothing else.
fn is_of_session(statement: &str) -> bool {
    let words = words(statement);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["set", second, ..] => !matches!(*second, "local" | "constraints" | "transaction"),
        ["reset" | "discard" | "listen" | "unlisten" | "load", ..] => true,
        _ => false,
    }
}

/// The name of the temporary table that these words create.
fn temporary(words: &[&str]) -> Option<String> {
    let name = words.get(3).filter(|_| words[2] == "table")?;
    let name = match *name {
        "if" => words.get(6)?,
        name => name,
    };
    name.chars()
        .all(|c| c.is_alphanumeric() || c == '_')
        .then(|| name.to_owned())
}

/// The words of a statement in lower case, without dollar-quoted and quoted strings.
pub fn words(statement: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut in_string = false;
    for c in statement.chars() {
        if c == '\'' {
            in_string = !in_string;
        }
        if !in_string && (c.is_alphanumeric() || c == '_') {
            word.extend(c.to_lowercase());
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Replaces the first `word`, in upper or lower case.
fn replace_word(statement: &str, word: &str, by: &str) -> String {
    match statement.to_ascii_lowercase().find(word) {
        Some(at) => format!("{}{by}{}", &statement[..at], &statement[at + word.len()..]),
        None => statement.to_owned(),
    }
}

/// The tests of a schedule, in its order.
pub fn scheduled(schedule: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(schedule).expect("a schedule");
    text.lines()
        .filter_map(|line| line.strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Action::{Connect, Job, Session};
    use super::*;

    #[test]
    fn pieces_become_actions() {
        let text = "SET x = 1; SET LOCAL x = 2; BEGIN; SET x = 3; SAVEPOINT s; ROLLBACK TO s; COMMIT; CREATE TEMP TABLE t (n int);
            PREPARE p AS SELECT 1; EXPLAIN EXECUTE p; \\c - joe\n BEGIN; SET x = 5; ROLLBACK; EXECUTE p; COPY t FROM STDIN;\n1\n\\.\n
            COPY t TO stdout; END";
        let pieces = crate::script::split(text, &mut Default::default());
        let (actions, dropped) = actions(&pieces, |data| format!("/file {}", data.len()));
        let job = |sql: &str| Job(sql.to_owned());
        assert_eq!(
            actions,
            [
                Session("SET x = 1".to_owned()),
                job("SET LOCAL x = 2"),
                job("BEGIN;\nSET x = 3;\nSAVEPOINT s;\nROLLBACK TO s;\nCOMMIT"),
                Session("SET x = 3".to_owned()),
                job("CREATE  TABLE t (n int)"),
                job("PREPARE p AS SELECT 1"),
                job("PREPARE p AS SELECT 1;\nEXPLAIN EXECUTE p"),
                Connect(Some("joe".to_owned())),
                job("BEGIN;\nSET x = 5;\nROLLBACK"),
                job("EXECUTE p"),
                job("COPY t FROM '/file 2'"),
                job("COPY t TO '/dev/null'"),
                job("END"),
            ]
        );
        assert_eq!(dropped, ["t"]);
    }
}
