//! A client session. All statements use the simple-query protocol, and values arrive as text.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::error::DbError;
use postgres::{CancelToken, Client, NoTls, SimpleQueryMessage};

pub type Rows = Vec<Vec<Option<String>>>;

/// A job's handle; displays as the two arguments that functions take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub pid: i32,
    pub cookie: i64,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.pid, self.cookie)
    }
}

impl Handle {
    /// The handle in a row of `pid, cookie`.
    #[track_caller]
    pub fn of(row: &[Option<String>]) -> Self {
        let field = |i: usize| row[i].as_deref().expect("a handle that is not NULL");
        Self {
            pid: field(0).parse().unwrap(),
            cookie: field(1).parse().unwrap(),
        }
    }

    /// The handle as a value of its composite type.
    pub fn composite(&self) -> String {
        format!("ROW({self})::pg_background_handle")
    }

    /// An array of handles, as drain and wait_any take it.
    pub fn array(handles: &[Self]) -> String {
        let rows: Vec<_> = handles.iter().map(Self::composite).collect();
        format!("ARRAY[{}]::pg_background_handle[]", rows.join(", "))
    }
}

/// An error of the server, with the fields that tests use.
#[derive(Clone, Debug)]
pub struct SqlError {
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    pub context: String,
}

impl SqlError {
    /// SQLSTATE of a connection that ended without an error message.
    pub const CONNECTION_LOST: &'static str = "lost";

    fn from_client(error: &postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self {
                sqlstate: Self::CONNECTION_LOST.to_owned(),
                message: error.to_string(),
                detail: String::new(),
                hint: String::new(),
                context: String::new(),
            };
        };
        Self {
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().unwrap_or_default().to_owned(),
            hint: db.hint().unwrap_or_default().to_owned(),
            context: db.where_().unwrap_or_default().to_owned(),
        }
    }
}

pub struct Session {
    client: Client,
    /// Messages that arrived since they were last taken.
    notices: Arc<Mutex<Vec<DbError>>>,
    pub pid: i32,
}

impl Session {
    /// `options` are those of the server's command line, as in PGOPTIONS.
    pub(crate) fn connect(
        socket_dir: &Path,
        database: &str,
        role: &str,
        options: &str,
    ) -> Result<Self, postgres::Error> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&notices);
        let mut config = postgres::Config::new();
        config
            .host_path(socket_dir)
            .dbname(database)
            .user(role)
            .connect_timeout(Duration::from_secs(30))
            .notice_callback(move |notice| sink.lock().unwrap().push(notice));
        // A pooler refuses even empty ones.
        if !options.is_empty() {
            config.options(options);
        }
        let client = config.connect(NoTls)?;
        let mut session = Self {
            client,
            notices,
            pid: 0,
        };
        // A connection that a crash ends at once is an error like a refused connection.
        if let Some(SimpleQueryMessage::Row(row)) = session
            .client
            .simple_query("SELECT pg_backend_pid()")?
            .iter()
            .find(|m| matches!(m, SimpleQueryMessage::Row(_)))
        {
            session.pid = row.get(0).and_then(|pid| pid.parse().ok()).expect("a process id");
        }
        Ok(session)
    }

    pub fn try_rows(&mut self, sql: &str) -> Result<Rows, SqlError> {
        let watch = Watch::start(self.cancel_token(), sql);
        let messages = self.client.simple_query(sql);
        drop(watch);
        let messages = messages.map_err(|e| SqlError::from_client(&e))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|i| row.get(i).map(str::to_owned))
                        .collect::<Vec<_>>(),
                ),
                _ => None,
            })
            .collect())
    }

    /// Returns the types of the columns of a statement's result, by their SQL names; None if it cannot be prepared here.
    pub fn describe(&mut self, sql: &str) -> Option<Vec<String>> {
        let statement = self.client.prepare(sql).ok()?;
        let name = |column: &postgres::Column| {
            let kind = column.type_();
            format!("\"{}\".\"{}\"", kind.schema(), kind.name())
        };
        Some(statement.columns().iter().map(name).collect())
    }

    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Rows {
        self.try_rows(sql)
            .unwrap_or_else(|e| panic!("{}\nfailed: {e:#?}", shortened(sql)))
    }

    #[track_caller]
    pub fn exec(&mut self, sql: &str) {
        self.rows(sql);
    }

    /// Returns the error of a statement that must fail.
    #[track_caller]
    pub fn error(&mut self, sql: &str) -> SqlError {
        match self.try_rows(sql) {
            Err(error) => error,
            Ok(rows) => panic!(
                "{}\ndid not fail but gave {} rows: {:?}",
                shortened(sql),
                rows.len(),
                rows.first()
            ),
        }
    }

    /// Returns the first column of the first row.
    #[track_caller]
    pub fn text(&mut self, sql: &str) -> Option<String> {
        self.rows(sql)
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("{sql}\ngave no row"))
            .into_iter()
            .next()
            .flatten()
    }

    #[track_caller]
    pub fn value<T: FromStr>(&mut self, sql: &str) -> T
    where
        T::Err: fmt::Debug,
    {
        let text = self
            .text(sql)
            .unwrap_or_else(|| panic!("{}\ngave NULL", shortened(sql)));
        text.parse()
            .unwrap_or_else(|e| panic!("{}\ngave {text}: {e:?}", shortened(sql)))
    }

    /// Whether a condition is true; with a FROM clause that finds no row it is false.
    #[track_caller]
    pub fn holds(&mut self, condition: &str) -> bool {
        let rows = self.rows(&format!("SELECT {condition}"));
        rows.first().is_some_and(|row| row[0].as_deref() == Some("t"))
    }

    /// Resets a `statement_timeout` that is short enough to end this very statement.
    pub fn end_statement_timeout(&mut self) {
        crate::wait_for("the end of the timeout", || {
            self.try_rows("SET statement_timeout = 0").is_ok()
        });
    }

    /// Polls an SQL condition until it holds.
    #[track_caller]
    pub fn wait_until(&mut self, condition: &str) {
        crate::wait_for(condition, || self.holds(condition));
    }

    #[track_caller]
    pub fn launch(&mut self, sql: &str) -> Handle {
        self.handle(&format!(
            "SELECT pid, cookie FROM pg_background_launch({})",
            quoted(sql)
        ))
    }

    #[track_caller]
    pub fn submit(&mut self, sql: &str) -> Handle {
        self.handle(&format!(
            "SELECT pid, cookie FROM pg_background_submit({})",
            quoted(sql)
        ))
    }

    /// Runs a job and returns the process that ran it.
    #[track_caller]
    pub fn run(&mut self) -> i32 {
        let row = self
            .rows("SELECT state, pid, error_message FROM pg_background_run('SELECT 1')")
            .remove(0);
        assert_eq!(row[0].as_deref(), Some("stopped"), "{row:?}");
        row[1].as_deref().unwrap().parse().unwrap()
    }

    /// Launches a job in a worker that has run others before, unless workers are fresh, and waits until it runs; `verb` is launch or
    /// submit.
    #[track_caller]
    pub fn launch_in_used_worker(&mut self, verb: &str, sql: &str) -> Handle {
        let worker = self.run();
        let job = self.handle(&format!(
            "SELECT pid, cookie FROM pg_background_{verb}({})",
            quoted(sql)
        ));
        if !crate::cluster::workers_are_fresh() {
            assert_eq!(job.pid, worker, "the worker was not kept");
        }
        self.wait_running(job);
        job
    }

    /// Waits for a job that must be lost with its process, and returns the error of reading it.
    #[track_caller]
    pub fn lost(&mut self, job: Handle) -> SqlError {
        self.wait(job);
        assert_eq!((self.state(job), self.sqlstate(job)), ("error".into(), "08006".into()));
        let error = self.error(&format!("SELECT * FROM pg_background_result({job}) AS (x text)"));
        assert_eq!(error.sqlstate, "08006", "{error:?}");
        error
    }

    /// Returns the handle in the columns `pid, cookie` of a query.
    #[track_caller]
    pub fn handle(&mut self, query: &str) -> Handle {
        Handle::of(self.rows(query).first().expect("a handle"))
    }

    /// Waits for a job's end.
    #[track_caller]
    pub fn wait(&mut self, job: Handle) {
        assert!(
            self.holds(&format!("pg_background_wait({job}, 60000)")),
            "the job did not end within 60 s"
        );
    }

    /// Enqueues a task with these arguments and returns its id.
    #[track_caller]
    pub fn enqueue(&mut self, arguments: &str) -> i64 {
        self.value(&format!("SELECT background.enqueue({arguments})"))
    }

    /// Waits for a task's end and returns its state.
    #[track_caller]
    pub fn wait_task(&mut self, id: i64) -> String {
        self.text(&format!("SELECT background.wait({id}, 30000)"))
            .unwrap_or("(still not ended)".into())
    }

    /// Returns a job's state as the list shows it.
    #[track_caller]
    pub fn state(&mut self, job: Handle) -> String {
        self.value(&format!(
            "SELECT state FROM pg_background_list WHERE (pid, cookie) = ({job})"
        ))
    }

    /// Returns a job's SQLSTATE, empty if it has not failed.
    #[track_caller]
    pub fn sqlstate(&mut self, job: Handle) -> String {
        self.value(&format!(
            "SELECT coalesce((pg_background_error_info({job})).sqlstate, '')"
        ))
    }

    /// Waits until another session sees that a job's statement is being executed.
    #[track_caller]
    pub fn wait_running(&mut self, job: Handle) {
        self.wait_until(&format!(
            "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {} AND backend_type = 'pg_background' AND state = 'active')",
            job.pid
        ));
    }

    /// Waits until another session sees that a backend waits for a lock.
    #[track_caller]
    pub fn wait_blocked(&mut self, pid: i32) {
        self.wait_until(&format!(
            "EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"
        ));
    }

    /// Returns the session's counters, which must add up.
    #[track_caller]
    pub fn counters(&mut self) -> Counters {
        let row = self.rows(
            "SELECT workers_launched, workers_completed, workers_failed, workers_canceled, workers_timed_out, workers_active
             FROM pg_background_stats()",
        );
        let field = |i: usize| row[0][i].as_deref().expect("a counter").parse().expect("a number");
        let counters = Counters {
            launched: field(0),
            completed: field(1),
            failed: field(2),
            canceled: field(3),
            timed_out: field(4),
            active: field(5),
        };
        assert_eq!(
            counters.launched,
            counters.completed + counters.failed + counters.canceled + counters.timed_out + counters.active,
            "every job is in exactly one counter: {counters:?}"
        );
        counters
    }

    pub fn take_notices(&mut self) -> Vec<DbError> {
        std::mem::take(&mut self.notices.lock().unwrap())
    }

    pub fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Returns the payloads of notifications, waiting until `count` have arrived.
    pub fn notifications(&mut self, count: usize) -> Vec<String> {
        use postgres::fallible_iterator::FallibleIterator;
        let mut notifications = self.client.notifications();
        let mut payloads = Vec::new();
        let mut arriving = notifications.timeout_iter(crate::PATIENCE);
        while payloads.len() < count {
            match arriving.next().expect("the connection holds") {
                Some(notification) => payloads.push(notification.payload().to_owned()),
                None => panic!("{} of {count} notifications arrived", payloads.len()),
            }
        }
        payloads
    }

    /// Runs a statement in a thread of its own, for statements that block.
    pub fn start(mut self, sql: &str) -> Pending {
        let sql = sql.to_owned();
        let pid = self.pid;
        let token = self.cancel_token();
        let thread = std::thread::spawn(move || {
            let result = self.try_rows(&sql);
            (self, result)
        });
        Pending { thread, token, pid }
    }
}

/// The counters of pg_background_stats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub launched: i64,
    pub completed: i64,
    pub failed: i64,
    pub canceled: i64,
    pub timed_out: i64,
    pub active: i64,
}

/// A statement that runs in another thread.
pub struct Pending {
    thread: JoinHandle<(Session, Result<Rows, SqlError>)>,
    token: CancelToken,
    pub pid: i32,
}

impl Pending {
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn cancel(&self) {
        self.token.cancel_query(NoTls).expect("a cancel request can be sent");
    }

    /// Returns the session and the answer of its statement; panics if the statement does not end.
    #[track_caller]
    pub fn join(self) -> (Session, Result<Rows, SqlError>) {
        crate::wait_for("the end of the statement", || self.thread.is_finished());
        self.thread.join().expect("the session's thread does not panic")
    }
}

/// Cancels a statement that never ends, so that a hang fails one test and does not block the runner.
struct Watch {
    _ended: Sender<()>,
}

/// Longer than any statement of the tests may take.
const HANG: Duration = Duration::from_secs(180);

impl Watch {
    fn start(token: CancelToken, sql: &str) -> Self {
        let (ended, watched) = channel::<()>();
        let sql = shortened(sql);
        std::thread::spawn(move || {
            if watched.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
                eprintln!("cancelled after {HANG:?}: {sql}");
                let _ = token.cancel_query(NoTls);
            }
        });
        Self { _ended: ended }
    }
}

/// Returns a text as an SQL literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn shortened(sql: &str) -> String {
    sql.chars().take(500).collect()
}
