//! A session with the server: it connects within a time, and reads rows whatever their bytes are.
//!
//! A row comes as the hexadecimal digits of the text of its record. The bytes of that text may be no UTF-8: roles, databases and the jobs of
//! other databases are seen from each database, whatever the encoding of their names is. The server converts where it can.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage, Socket};

/// A value: NULL is None.
pub type Cell = Option<String>;

/// The rows of one statement.
#[derive(Default)]
pub struct Set {
    /// Only if they were asked for.
    pub names: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

/// A statement with rows, and whether the names of its columns are wanted.
pub struct Statement {
    pub sql: String,
    pub named: bool,
}

impl Statement {
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            named: false,
        }
    }

    pub fn named(sql: String) -> Self {
        Self { sql, named: true }
    }

    fn message(&self) -> String {
        let sql = &self.sql;
        let rows = format!("SELECT encode(textsend(this_row::text), 'hex') FROM ({sql}) AS this_row");
        if self.named {
            // The names come with the description of the rows, of which there are none.
            return format!("SELECT * FROM ({sql}) AS this_row WHERE false; {rows}");
        }
        rows
    }
}

/// The search path is that of the one message, so that nothing in another schema is called, and a pooler's session keeps its own.
const PATH_SQL: &str = "SET LOCAL search_path = pg_catalog";
/// A database of encoding SQL_ASCII has bytes that the server cannot convert.
const ENCODING_SQL: &str = "SELECT set_config('client_encoding', \
     CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE current_setting('client_encoding') END, true)";
/// The bytes as the database has them.
const UNCONVERTED_SQL: &str = "SELECT set_config('client_encoding', 'SQL_ASCII', true)";
/// For how long a session reads bytes as they are after the server could not convert one: each such error is a line in the server's log.
const UNCONVERTED: Duration = Duration::from_secs(60);

pub struct Session {
    runtime: Runtime,
    client: Client,
    connection: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    ended: bool,
    unconverted: Option<Instant>,
}

impl Session {
    /// Connects to the one server of `config`. Returns None if that takes longer than `timeout`, which covers TLS and authentication, too.
    pub fn connect<T>(
        config: &Config,
        tls: T,
        timeout: Option<Duration>,
    ) -> std::io::Result<Result<Option<Self>, Error>>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connected = runtime.block_on(async {
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, config.connect(tls)).await.ok(),
                None => Some(config.connect(tls).await),
            }
        });
        Ok(connected.transpose().map(|connected| {
            connected.map(|(client, connection)| Self {
                runtime,
                client,
                connection: Box::pin(connection),
                ended: false,
                unconverted: None,
            })
        }))
    }

    pub fn is_closed(&self) -> bool {
        self.ended || self.client.is_closed()
    }

    /// Returns the rows of each statement, all in one message and one transaction.
    pub fn ask(&mut self, statements: &[Statement]) -> Result<Vec<Set>, Error> {
        if self.unconverted.is_some_and(|until| Instant::now() < until) {
            return self.ask_in(UNCONVERTED_SQL, statements);
        }
        match self.ask_in(ENCODING_SQL, statements) {
            Err(error)
                if error
                    .code()
                    .is_some_and(|code| matches!(code.code(), "22021" | "22P05"))
                    && !self.is_closed() =>
            {
                // The transaction was rolled back. An error that is not of the conversion comes again.
                let answer = self.ask_in(UNCONVERTED_SQL, statements)?;
                self.unconverted = Some(Instant::now() + UNCONVERTED);
                Ok(answer)
            }
            answer => answer,
        }
    }

    fn ask_in(&mut self, encoding: &str, statements: &[Statement]) -> Result<Vec<Set>, Error> {
        let mut message = format!("{PATH_SQL}; {encoding}");
        for statement in statements {
            message += "; ";
            message += &statement.message();
        }
        let mut described = Vec::new();
        for part in self.query(&message)? {
            match part {
                SimpleQueryMessage::RowDescription(columns) => described.push(Set {
                    names: columns.iter().map(|column| column.name().to_owned()).collect(),
                    rows: Vec::new(),
                }),
                SimpleQueryMessage::Row(row) => {
                    if let Some(set) = described.last_mut() {
                        set.rows.push(cells(row.try_get(0)?.unwrap_or_default()));
                    }
                }
                _ => {}
            }
        }
        // The first is that of the encoding.
        let mut described = described.into_iter().skip(1);
        let mut next = || described.next().unwrap_or_default();
        Ok(statements
            .iter()
            .map(|statement| {
                let names = if statement.named { next().names } else { Vec::new() };
                Set {
                    names,
                    rows: next().rows,
                }
            })
            .collect())
    }

    /// Works on the connection until the answer is there.
    fn query(&mut self, message: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        let mut answer = pin!(self.client.simple_query(message));
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        self.runtime.block_on(poll_fn(|context| {
            if !*ended && let Poll::Ready(end) = connection.as_mut().poll(context) {
                *ended = true;
                // Why the server closed the connection.
                end?;
            }
            answer.as_mut().poll(context)
        }))
    }
}

/// The values of a record that the server wrote as text: quoted where they need it, with quotes and backslashes twice.
fn cells(digits: &str) -> Vec<Cell> {
    let bytes = unhex(digits);
    let inner = bytes.strip_prefix(b"(").and_then(|bytes| bytes.strip_suffix(b")"));
    let inner = inner.unwrap_or(&bytes);
    let mut cells = Vec::new();
    let (mut value, mut quoted, mut was_quoted) = (Vec::new(), false, false);
    let mut at = 0;
    loop {
        match inner.get(at) {
            Some(b'"' | b'\\') if quoted && inner.get(at + 1) == inner.get(at) => {
                value.push(inner[at]);
                at += 1;
            }
            Some(b'"') => {
                quoted = !quoted;
                was_quoted = true;
            }
            Some(b',') | None if !quoted || at >= inner.len() => {
                let is_null = value.is_empty() && !was_quoted;
                cells.push((!is_null).then(|| String::from_utf8_lossy(&value).into_owned()));
                value.clear();
                was_quoted = false;
                if at >= inner.len() {
                    return cells;
                }
            }
            Some(byte) => value.push(*byte),
            None => return cells,
        }
        at += 1;
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_values() {
        let read = |record: &[u8]| {
            let digits: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
            cells(&digits)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(b"(1,,\"\",a)"), [some("1"), None, some(""), some("a")]);
        assert_eq!(
            read(b"(\"a,\"\"b\"\"\\\\c\",\"(x)\",)"),
            [some("a,\"b\"\\c"), some("(x)"), None]
        );
        assert_eq!(read(b"(\"\"\"\",\"\\\\\")"), [some("\""), some("\\")]);
        assert_eq!(read(b"(rol\xe9,\"l\nm\")"), [some("rol\u{fffd}"), some("l\nm")]);
        assert_eq!(read(b"()"), [None]);
    }
}
