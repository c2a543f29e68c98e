//! The connection, in a thread of its own: the screen never waits for it. One message and one answer for each look.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::connect::{Connector, describe};
use crate::data::{CATALOG_SQL, Catalog, Query, Relation, literal, one_sql};
use crate::format::exact_json;
use crate::session::{Cell, Session, Set, Statement};
use crate::views::Tab;

/// What the screen asks for.
pub enum Ask {
    Look(Look),
    /// A statement that changes something, and what it does in words.
    Act {
        what: String,
        sql: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which of the looks it is: an answer to an older one is of no use.
    pub number: u64,
    pub query: Query,
    /// The key of the one row that is followed.
    pub follow: Option<String>,
}

pub enum Answer {
    /// There is a connection, to this server.
    Connected(String),
    /// There is no connection; another is tried.
    Lost(String),
    Page(u64, Box<Result<Page, String>>),
    Acted {
        what: String,
        result: Result<String, String>,
    },
}

#[derive(Clone, Debug)]
pub struct Row {
    pub key: String,
    pub cells: Vec<Cell>,
}

/// A row with all its columns, and the second table that belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// Empty if the row is not there any more.
    pub columns: Vec<(String, Cell)>,
    pub title: &'static str,
    pub names: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

impl Followed {
    /// What the list shows as its state.
    pub fn state(&self) -> Cell {
        let cell = |name| {
            self.columns
                .iter()
                .find(|column| column.0 == name)
                .and_then(|column| column.1.clone())
        };
        match (cell("paused").as_deref(), cell("enabled").as_deref()) {
            (Some("t"), _) => Some("paused".to_owned()),
            (_, Some("f")) => Some("off".to_owned()),
            _ => cell("state"),
        }
    }
}

/// What one look has found.
#[derive(Clone, Debug)]
pub struct Page {
    pub tab: Tab,
    pub database: String,
    pub role: String,
    pub version: String,
    pub standby: bool,
    pub clock: String,
    pub catalog: Catalog,
    /// Why the tab has no rows.
    pub missing: Option<String>,
    pub total: usize,
    pub rows: Vec<Row>,
    pub counters: Option<[f64; 2]>,
    pub followed: Option<Followed>,
    pub at: Instant,
    /// From the question to the answer.
    pub took: Duration,
}

const HEAD_SQL: &str = "SELECT current_database(), current_user, current_setting('server_version'), pg_is_in_recovery(), \
     to_char(clock_timestamp(), 'HH24:MI:SS')";

/// Looks at a tab, with one message if `catalog` is right about the tab's view, else with two. `catalog` is brought up to date.
pub fn look(session: &mut Session, catalog: &mut Catalog, look: &Look) -> Result<Page, tokio_postgres::Error> {
    let page = look_once(session, catalog, look);
    let again = match &page {
        // The view came with this very answer.
        Ok(page) => {
            page.missing.is_some() && {
                let view = page.tab.view();
                catalog.qualified(view.extension, view.relation).is_ok()
            }
        }
        // The view, its schema, the right to it is gone: then the catalog says so.
        Err(error) => {
            let gone = error
                .code()
                .is_some_and(|code| matches!(code.code(), "42P01" | "3F000" | "42501" | "42883"));
            if gone {
                *catalog = Catalog::default();
                look_once(session, catalog, look)?;
            }
            gone
        }
    };
    if again { look_once(session, catalog, look) } else { page }
}

fn look_once(session: &mut Session, catalog: &mut Catalog, look: &Look) -> Result<Page, tokio_postgres::Error> {
    let started = Instant::now();
    let tab = look.query.tab;
    let view = tab.view();
    let relation = catalog.qualified(view.extension, view.relation);
    let mut statements = vec![Statement::new(HEAD_SQL), Statement::new(CATALOG_SQL)];
    let mut more = None;
    if let Ok(relation) = &relation {
        let (first, second, source) = view.counters;
        if let Ok(source) = catalog.qualified(view.extension, source) {
            statements.push(Statement::new(format!("SELECT {first}, {second} FROM {source}")));
        } else {
            statements.push(Statement::new("SELECT NULL, NULL"));
        }
        match &look.follow {
            None => statements.push(Statement::new(look.query.rows_sql(relation))),
            Some(key) => {
                statements.push(Statement::named(one_sql(tab, relation, key)));
                more = view.more.and_then(|(title, name, sql)| {
                    let relation = catalog.qualified(view.extension, name).ok()?;
                    let limit = look.query.limit.unwrap_or(100);
                    let sql = sql.replace("$relation", &relation).replace("$1", &literal(key));
                    statements.push(Statement::named(format!("SELECT {sql} LIMIT {limit}")));
                    Some(title)
                });
            }
        }
    }
    let mut answers = session.ask(&statements)?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let text = |cell: Option<&Cell>| cell.cloned().flatten().unwrap_or_default();
    let head = next().rows.pop().unwrap_or_default();
    let relations = next().rows.into_iter().map(|row| Relation {
        extension: text(row.first()),
        schema: text(row.get(1)),
        name: text(row.get(2)),
        readable: text(row.get(3)) == "t",
    });
    *catalog = Catalog(relations.collect());
    let mut page = Page {
        tab,
        database: text(head.first()),
        role: text(head.get(1)),
        version: text(head.get(2)),
        standby: text(head.get(3)) == "t",
        clock: text(head.get(4)),
        missing: relation.is_err().then(|| {
            catalog
                .qualified(view.extension, view.relation)
                .err()
                .unwrap_or_default()
        }),
        catalog: catalog.clone(),
        total: 0,
        rows: Vec::new(),
        counters: None,
        followed: None,
        at: Instant::now(),
        took: started.elapsed(),
    };
    if relation.is_err() {
        return Ok(page);
    }
    let counters = next().rows.pop().unwrap_or_default();
    let number = |n: usize| text(counters.get(n)).parse::<f64>().ok();
    page.counters = number(0).map(|first| [first, number(1).unwrap_or(0.0)]);
    let mut rows = next();
    if look.follow.is_some() {
        let cells = rows.rows.pop().unwrap_or_default();
        let second = if more.is_some() { next() } else { Set::default() };
        page.followed = Some(Followed {
            columns: rows.names.into_iter().zip(cells).collect(),
            title: more.unwrap_or_default(),
            names: second.names,
            rows: second.rows,
        });
        return Ok(page);
    }
    for mut row in rows.rows.drain(..) {
        let cells = row.split_off(2);
        page.total = text(row.get(1)).parse().unwrap_or(0);
        page.rows.push(Row {
            key: text(row.first()),
            cells,
        });
    }
    Ok(page)
}

/// The rows as one JSON document, or why there are none.
pub fn json(session: &mut Session, catalog: &Catalog, query: &Query) -> Result<String, String> {
    let view = query.tab.view();
    let relation = catalog.qualified(view.extension, view.relation)?;
    let statement = Statement::new(query.json_sql(&relation));
    let mut sets = session.ask(&[statement]).map_err(|error| describe(&error))?;
    let row = sets.pop().and_then(|mut set| set.rows.pop());
    row.and_then(|row| row.into_iter().next().flatten())
        .map(|document| exact_json(&document))
        .ok_or_else(|| "no answer".to_owned())
}

fn act(session: &mut Session, sql: &str) -> Result<String, String> {
    let sets = session.ask(&[Statement::new(sql)]).map_err(|error| describe(&error))?;
    let cell = sets
        .last()
        .and_then(|set| set.rows.last())
        .and_then(|row| row.first().cloned().flatten());
    Ok(cell.unwrap_or_default())
}

/// The time between two attempts to connect: at most this.
const MOST_PATIENT: Duration = Duration::from_secs(5);

/// Answers what the screen asks until it ends, and connects again when the server has gone away. `send` returns false when nobody hears it.
pub fn serve(connector: &Connector, session: Session, asks: &Receiver<Ask>, send: &dyn Fn(Answer) -> bool) {
    let mut session = Some(session);
    let mut pause = Duration::from_millis(250);
    loop {
        let mut connection = match session.take().map_or_else(|| connector.connect(), Ok) {
            Ok(connection) => connection,
            Err(failure) => {
                if !send(Answer::Lost(failure.message)) || !rest(asks, send, pause) {
                    return;
                }
                pause = (pause * 2).min(MOST_PATIENT);
                continue;
            }
        };
        pause = Duration::from_millis(250);
        // What was asked while there was no connection is not done later.
        if !rest(asks, send, Duration::ZERO) || !send(Answer::Connected(connector.place())) {
            return;
        }
        let lost = serve_connection(&mut connection, asks, send);
        if !lost.is_some_and(|message| send(Answer::Lost(message))) {
            return;
        }
    }
}

/// Waits before the next attempt, or takes what was asked before. What is asked meanwhile cannot be answered. Returns false at the end.
fn rest(asks: &Receiver<Ask>, send: &dyn Fn(Answer) -> bool, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    loop {
        match asks.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ask::Act { what, .. }) => {
                send(Answer::Acted {
                    what,
                    result: Err("there is no connection".to_owned()),
                });
            }
            Ok(Ask::Look(_)) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Returns why the connection is lost, or None at the end.
fn serve_connection(session: &mut Session, asks: &Receiver<Ask>, send: &dyn Fn(Answer) -> bool) -> Option<String> {
    let mut catalog = Catalog::default();
    while let Ok(ask) = asks.recv() {
        let (answer, trouble) = match ask {
            Ask::Look(wanted) => {
                let page = look(session, &mut catalog, &wanted).map_err(|error| describe(&error));
                let trouble = page.as_ref().err().cloned();
                (Answer::Page(wanted.number, Box::new(page)), trouble)
            }
            Ask::Act { what, sql } => {
                let result = act(session, &sql);
                let trouble = result.as_ref().err().cloned();
                (Answer::Acted { what, result }, trouble)
            }
        };
        if !send(answer) {
            return None;
        }
        if session.is_closed() {
            return Some(trouble.unwrap_or_else(|| "the server closed the connection".to_owned()));
        }
    }
    None
}
