//! Splits psql scripts into statements, as psql's own scanner does (psqlscan.l).

use std::collections::HashMap;

/// A piece of a script, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Statement(String),
    /// `COPY ... FROM stdin`, and its data lines.
    Copy(String, String),
    /// Another session, of this role, or, without one, of the role that the script began with.
    Connect(Option<String>),
}

/// Splits a script. Variables that psql would set from an answer (`\gset`) are unknown, and text that depends on them is not replaced. All
/// branches of conditions (`\if`) are taken.
pub fn split(text: &str, variables: &mut HashMap<String, String>) -> Vec<Piece> {
    let mut scanner = Scanner {
        text,
        at: 0,
        buffer: String::new(),
        parens: 0,
        begins: 0,
        words: Vec::new(),
        conforming: true,
        variables,
        pieces: Vec::new(),
    };
    scanner.run();
    scanner.pieces
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The statement so far.
    buffer: String,
    parens: usize,
    /// How deeply the statement is nested in `BEGIN ATOMIC` and `CASE`.
    begins: usize,
    /// Its first words.
    words: Vec<String>,
    /// Whether a backslash in a plain string is an ordinary character.
    conforming: bool,
    variables: &'a mut HashMap<String, String>,
    pieces: Vec<Piece>,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn take(&mut self, len: usize) {
        let text = &self.text[self.at..self.at + len];
        self.buffer += text;
        self.at += len;
    }

    fn run(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            let rest = self.rest();
            match c {
                '-' if rest.starts_with("--") => self.at += rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => {
                    self.at += comment(rest);
                    self.buffer.push(' ');
                }
                '\'' => {
                    let unicode = self.buffer.ends_with("U&") || self.buffer.ends_with("u&");
                    let escapes = !self.conforming && !unicode || self.buffer_ends_with_e();
                    self.take(quoted(rest, '\'', escapes));
                }
                '"' => self.take(quoted(rest, '"', false)),
                '$' if !self.buffer.ends_with(is_word) => match dollar_quote(rest) {
                    Some(len) => self.take(len),
                    None => self.take(1),
                },
                ':' => self.variable(),
                '\\' => self.command(),
                ';' if self.parens == 0 && self.begins == 0 => {
                    self.at += 1;
                    self.end_statement();
                }
                '(' => {
                    self.parens += 1;
                    self.take(1);
                }
                ')' => {
                    self.parens = self.parens.saturating_sub(1);
                    self.take(1);
                }
                c if is_word(c) => self.word(),
                c => self.take(c.len_utf8()),
            }
        }
        self.end_statement();
    }

    fn buffer_ends_with_e(&self) -> bool {
        self.buffer
            .strip_suffix(['e', 'E'])
            .is_some_and(|before| !before.ends_with(is_word))
    }

    fn word(&mut self) {
        let rest = self.rest();
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = rest[..len].to_lowercase();
        self.take(len);
        if self.words.len() < 4 {
            self.words.push(word.clone());
        }
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let makes_function = matches!(
            words.as_slice(),
            ["create", "function" | "procedure", ..] | ["create", "or", "replace", "function" | "procedure"]
        );
        if makes_function && self.parens == 0 {
            match word.as_str() {
                "begin" => self.begins += 1,
                "case" if self.begins > 0 => self.begins += 1,
                "end" => self.begins = self.begins.saturating_sub(1),
                _ => (),
            }
        }
    }

    /// `:name`, `:'name'` and `:"name"`, if the variable is known.
    fn variable(&mut self) {
        let rest = self.rest();
        if rest.starts_with("::") || rest.starts_with(":=") {
            return self.take(2);
        }
        let quote = rest[1..].chars().next().filter(|c| matches!(c, '\'' | '"'));
        let start = 1 + quote.map_or(0, char::len_utf8);
        let end = rest[start..]
            .find(|c| !is_word(c))
            .map_or(rest.len(), |len| start + len);
        let value = self.variables.get(&rest[start..end]).cloned();
        let closes = quote.is_none_or(|quote| rest[end..].starts_with(quote));
        let Some(value) = value.filter(|_| closes) else {
            return self.take(1);
        };
        match quote {
            Some(quote) => {
                let doubled = value.replace(quote, &format!("{quote}{quote}"));
                self.buffer += &format!("{quote}{doubled}{quote}");
                self.at += end + 1;
            }
            None => {
                self.buffer += &value;
                self.at += end;
            }
        }
    }

    /// A backslash command with its arguments, up to the end of the line.
    fn command(&mut self) {
        if self.rest().starts_with("\\;") {
            self.buffer.push(';');
            self.at += 2;
            return;
        }
        let line = self.rest().lines().next().unwrap_or_default();
        let len = line.len();
        let line = line[1..].split("\\\\").next().unwrap_or_default().to_owned();
        self.at += len;
        let (name, arguments) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        match name {
            "set" => {
                let mut parts = self.arguments(arguments).into_iter();
                if let Some(variable) = parts.next() {
                    self.variables.insert(variable, parts.collect());
                }
            }
            "getenv" => {
                if let [variable, environment] = self.arguments(arguments).as_slice()
                    && let Some(value) = self.variables.get(environment).cloned()
                {
                    self.variables.insert(variable.clone(), value);
                }
            }
            "unset" => {
                self.variables.remove(arguments.trim());
            }
            "c" | "connect" => {
                let role = arguments.split_whitespace().nth(1).filter(|role| *role != "-");
                self.pieces.push(Piece::Connect(role.map(str::to_owned)));
            }
            "copy" => {
                self.buffer = format!("COPY {arguments}");
                self.end_statement();
            }
            "r" | "reset" => self.forget(),
            _ if name.starts_with('g') && !name.starts_with("getenv") || name == "crosstabview" || name == "watch" => {
                self.end_statement();
            }
            _ => (),
        }
    }

    /// The arguments of a command: words, strings, variables.
    fn arguments(&self, text: &str) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut left = text.trim_start();
        while !left.is_empty() {
            let len = if left.starts_with('\'') {
                quoted(left, '\'', true)
            } else {
                left.find(char::is_whitespace).unwrap_or(left.len())
            };
            let word = &left[..len];
            arguments.push(match word.strip_prefix(':') {
                Some(name) => self.variables.get(name).cloned().unwrap_or_default(),
                None => word.trim_matches('\'').replace("''", "'"),
            });
            left = left[len..].trim_start();
        }
        arguments
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.words.clear();
        (self.parens, self.begins) = (0, 0);
    }

    fn end_statement(&mut self) {
        let statement = self.buffer.trim().to_owned();
        self.forget();
        if statement.is_empty() {
            return;
        }
        let lower = statement.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| c.is_whitespace() || c == '=').collect();
        if words.first() == Some(&"set") && words.contains(&"standard_conforming_strings") {
            self.conforming = !(words.contains(&"off") || words.contains(&"false"));
        }
        if words.first() == Some(&"copy") && lower.contains("from stdin") {
            let rest = self.rest();
            let start = rest.find('\n').map_or(rest.len(), |at| at + 1);
            let lines = &rest[start..];
            let end = if lines.starts_with("\\.") {
                0
            } else {
                lines.find("\n\\.").map_or(lines.len(), |at| at + 1)
            };
            let data = lines[..end].to_owned();
            let after = lines[end..].find('\n').map_or(lines.len(), |at| end + at + 1);
            self.at += start + after;
            self.pieces.push(Piece::Copy(statement, data));
        } else {
            self.pieces.push(Piece::Statement(statement));
        }
    }
}

/// The length of a comment, including nested ones.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a quoted string, including its end.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let bytes = text.as_bytes();
    let quote = quote as u8;
    let mut at = 1;
    while at < bytes.len() {
        if escapes && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a dollar-quoted string; None if there is none.
fn dollar_quote(text: &str) -> Option<usize> {
    let tag_end = 1 + text[1..].find('$')?;
    let tag = &text[..=tag_end];
    let name = &tag[1..tag_end];
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_word) {
        return None;
    }
    let body = &text[tag.len()..];
    Some(body.find(tag).map_or(text.len(), |at| tag.len() + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::Piece::{Connect, Copy};
    use super::*;

    fn statements(text: &str) -> Vec<String> {
        pieces(text)
            .into_iter()
            .map(|piece| match piece {
                Piece::Statement(statement) => statement,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn pieces(text: &str) -> Vec<Piece> {
        split(text, &mut HashMap::from([("DIR".to_owned(), "/it's".to_owned())]))
    }

    #[test]
    fn what_a_semicolon_does_not_end() {
        for one in [
            "SELECT 'a;b'",
            "SELECT 'it''s;'",
            r"SELECT E'\';'",
            r"SELECT e'\\\';', 'x'",
            r#"SELECT 1 AS "a;""b""#,
            "SELECT $$;$$",
            "SELECT $a$ ; $$ ; $b$ ; $a$",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
            "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC; END",
            "SELECT x[1:n], 1::int, a$1$ FROM t",
        ] {
            assert_eq!(statements(&format!("{one};\nSELECT 2;")), [one, "SELECT 2"]);
        }
    }

    #[test]
    fn what_is_left_out() {
        assert_eq!(
            statements("SELECT 1 -- ;\n, 2; /* ; /* ; */ ; */ SELECT 3;;\n\\echo no ; \\d x\nSELECT 4"),
            ["SELECT 1 \n, 2", "SELECT 3", "SELECT 4"]
        );
        assert_eq!(statements("BEGIN; END; SELECT 1;"), ["BEGIN", "END", "SELECT 1"]);
    }

    #[test]
    fn backslashes_in_strings() {
        assert_eq!(statements(r"SELECT '\'; SELECT 1;"), [r"SELECT '\'", "SELECT 1"]);
        assert_eq!(
            statements(r"SET standard_conforming_strings = off; SELECT '\';'; SELECT 2;"),
            ["SET standard_conforming_strings = off", r"SELECT '\';'", "SELECT 2"]
        );
    }

    #[test]
    fn commands() {
        assert_eq!(
            statements(
                "\\getenv dir DIR\n\\set file :dir '/x' \nSELECT :'file', :\"file\", :nothing, 1 \\; SELECT 2\\gset p_\nSELECT 3 \\g"
            ),
            ["SELECT '/it''s/x', \"/it's/x\", :nothing, 1 ; SELECT 2", "SELECT 3"]
        );
        assert_eq!(
            pieces("\\c -\n\\connect - joe\ncopy t from stdin;\n1;\t'\n\\N\n\\.\ncopy u from stdin;\n\\.\nSELECT 1;"),
            [
                Connect(None),
                Connect(Some("joe".to_owned())),
                Copy("copy t from stdin".to_owned(), "1;\t'\n\\N\n".to_owned()),
                Copy("copy u from stdin".to_owned(), String::new()),
                Piece::Statement("SELECT 1".to_owned()),
            ]
        );
    }
}
