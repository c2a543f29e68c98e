//! Runs scripts as jobs on one cluster, with the jobs of other sessions in between.

use std::time::{Duration, Instant};

use harness::{Cluster, Handle, Session, SqlError};

use crate::actions::Action;

pub const DATABASE: &str = "regression";

/// The placeholder in a script for a directory of one cluster.
pub const DIRECTORY: &str = "{directory of the cluster}";

const PLAIN: &str = "SELECT pid, cookie FROM background.pg_background_launch({sql})";
/// The caller may not see the job of another role: the function returns how it ended.
const AS_OWNER: &str =
    "SELECT pid, state, row_count, command_tag, sqlstate, error_message FROM neighbours.run_as_owner({sql})";

/// Sessions whose jobs run between those of the script, on the same worker: name, role, settings, launch. Each one would change the answers
/// of the others' jobs if any of its state stayed. None sets `session_replication_role`, which discards all plans. Only the first sets
/// settings that PostgreSQL does not define itself: it shares no worker with the others.
const NEIGHBOURS: [(&str, &str, &str, &str); 5] = [
    (
        "abroad",
        "postgres",
        "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'german, dmy'; SET intervalstyle = sql_standard;
         SET extra_float_digits = -3; SET bytea_output = escape; SET timezone_abbreviations = 'Australia';
         SET app.tenant = 'abroad'; SET lc_messages = 'C'; SET plpgsql.variable_conflict = 'use_column'",
        PLAIN,
    ),
    (
        "words",
        "postgres",
        "SET standard_conforming_strings = off; SET escape_string_warning = off; SET backslash_quote = on; SET array_nulls = off;
         SET transform_null_equals = on; SET quote_all_identifiers = on; SET default_text_search_config = 'simple';
         SET xmloption = document; SET xmlbinary = hex;
         SET check_function_bodies = off; SET client_min_messages = warning",
        PLAIN,
    ),
    (
        "tenant",
        "postgres",
        "SET search_path = tenant, public; SET ROLE regress_neighbour",
        PLAIN,
    ),
    (
        "guest",
        "postgres",
        "SET timezone = 'America/New_York'; SET SESSION AUTHORIZATION regress_neighbour",
        AS_OWNER,
    ),
    (
        "plans",
        "postgres",
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_sort = off; SET plan_cache_mode = force_generic_plan;
         SET work_mem = '64kB'; SET row_security = off; SET constraint_exclusion = on;
         SET default_transaction_isolation = 'repeatable read'; SET default_transaction_read_only = on",
        PLAIN,
    ),
];

/// What sessions do in between that leaves state in them.
const CHANGES: [&str; 6] = [
    "BEGIN; SET LOCAL app.left_over = '7'; SET LOCAL timezone = 'UTC'; COMMIT",
    "SET app.reset = '7'; RESET app.reset",
    "BEGIN; SET app.rolled_back = '7'; ROLLBACK",
    "DISCARD ALL",
    "RESET ALL",
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; SET app.tenant = 'another'",
];

/// Functions for the neighbours, and probes: functions whose answer shows under which settings and roles they were compiled.
const SETUP: &str = r"
    SET check_function_bodies = off;
    CREATE ROLE regress_neighbour;
    GRANT pg_read_all_data, pg_write_all_data TO regress_neighbour;
    CREATE SCHEMA background;
    CREATE EXTENSION pg_background SCHEMA background;
    GRANT USAGE ON SCHEMA background TO PUBLIC;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA background TO PUBLIC;
    CREATE SCHEMA neighbours;
    CREATE SCHEMA tenant;
    GRANT USAGE, CREATE ON SCHEMA neighbours, tenant TO PUBLIC;
    CREATE FUNCTION neighbours.run_as_owner(statement text) RETURNS SETOF background.pg_background_run_result
        LANGUAGE sql SECURITY DEFINER AS $$ SELECT * FROM background.pg_background_run(statement) $$;
    CREATE FUNCTION neighbours.literals() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            RETURN concat_ws(' ', extract(epoch FROM timestamptz '2024-01-01 00:00'), extract(month FROM date '01/02/2024'),
                extract(epoch FROM interval '-1 2:03') / 60, (0.1::float8 + 0.2::float8)::text, '{1,NULL}'::text[], 'a\\b',
                quote_ident('a'), current_setting('app.tenant', true), current_setting('app.left_over', true),
                timestamptz 'now' = transaction_timestamp());
        END $$;
    CREATE TABLE neighbours.whose (id int, name text);
    CREATE TABLE tenant.whose (name text, id int);
    CREATE TABLE public.whose (whose text, name text, id int);
    INSERT INTO public.whose VALUES ('public', 'public', 3);
    INSERT INTO neighbours.whose VALUES (1, 'neighbours');
    INSERT INTO tenant.whose VALUES ('tenant', 2);
    GRANT SELECT ON neighbours.whose, tenant.whose, public.whose TO PUBLIC;
    CREATE FUNCTION neighbours.secret() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'secret'::text $$;
    REVOKE EXECUTE ON FUNCTION neighbours.secret() FROM PUBLIC;
    CREATE FUNCTION neighbours.reveal() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN RETURN neighbours.secret(); EXCEPTION WHEN insufficient_privilege THEN RETURN 'denied'; END $$;
    CREATE FUNCTION neighbours.whose_row() RETURNS text LANGUAGE plpgsql AS $$
        DECLARE r whose%ROWTYPE; BEGIN SELECT * INTO r FROM whose; RETURN r::text; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
";

/// For a neighbour, and for the script.
const PROBES: [[&str; 2]; 4] = [
    ["SELECT neighbours.literals()"; 2],
    ["SELECT neighbours.whose_row()"; 2],
    ["SELECT neighbours.reveal()"; 2],
    [
        "SET LOCAL search_path = tenant;\nSELECT neighbours.whose_row()",
        "SET LOCAL search_path = neighbours;\nSELECT neighbours.whose_row()",
    ],
];

/// The tables of test_setup, for the tenant: fewer rows.
const TENANT: &str = "DO $$
    DECLARE t text;
    BEGIN
        FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            AND relname <> 'whose' LOOP
            EXECUTE format('CREATE TABLE tenant.%I AS SELECT * FROM public.%I LIMIT 2', t, t);
            EXECUTE format('GRANT ALL ON tenant.%I TO PUBLIC', t);
        END LOOP;
    END $$";

/// More than the time limit of a job (`pg_background.worker_timeout`).
const LONGEST: Duration = Duration::from_secs(120);

/// The observed outcome of one step.
#[derive(Clone, Debug)]
pub struct Answer {
    pub who: &'static str,
    pub sql: String,
    /// State, SQLSTATE, message, tag, count.
    pub end: String,
    pub rows: Vec<String>,
    pub messages: Vec<String>,
    pub worker: i32,
    pub failed: bool,
    /// The context of a job's error.
    pub sqlstate: Option<String>,
}

/// One file's answers.
pub struct Played {
    pub name: String,
    pub answers: Vec<Answer>,
    pub took: Duration,
}

/// A file to run.
pub struct File {
    pub name: String,
    pub actions: Vec<Action>,
    /// Tables to drop at the end.
    pub dropped: Vec<String>,
    /// Whether other files depend on it, so that a session executes it itself.
    pub plain: bool,
}

pub struct Player<'a> {
    cluster: &'a Cluster,
    directory: String,
    session: Session,
    turn: usize,
}

/// Prepares the database.
pub fn prepare(cluster: &Cluster) {
    cluster
        .session()
        .exec("CREATE DATABASE regression TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    let mut session = cluster.session_in(DATABASE, "postgres");
    // As pg_regress does.
    for setting in [
        "lc_messages = 'C'",
        "lc_monetary = 'C'",
        "lc_numeric = 'C'",
        "lc_time = 'C'",
        "bytea_output = 'hex'",
        "timezone_abbreviations = 'Default'",
        "timezone = 'PST8PDT'",
        "datestyle = 'Postgres, MDY'",
        "intervalstyle = 'postgres_verbose'",
    ] {
        session.exec(&format!("ALTER DATABASE regression SET {setting}"));
    }
    session.exec(SETUP);
}

impl<'a> Player<'a> {
    pub fn new(cluster: &'a Cluster, directory: String) -> Self {
        Self {
            cluster,
            directory,
            session: cluster.session_in(DATABASE, "postgres"),
            turn: 0,
        }
    }

    pub fn play(&mut self, file: &File) -> Played {
        let began = Instant::now();
        let mut answers = Vec::new();
        self.connect("postgres");
        if file.plain {
            for action in &file.actions {
                if let Action::Job(sql) | Action::Session(sql) = action {
                    answers.push(self.plainly(sql));
                }
            }
            if file.name == "test_setup" {
                self.session.exec(TENANT);
            }
        } else {
            for action in &file.actions {
                self.act(action, &mut answers);
            }
            self.connect("postgres");
            for table in &file.dropped {
                let _ = self.session.try_rows(&format!("DROP TABLE IF EXISTS {table} CASCADE"));
            }
        }
        Played {
            name: file.name.clone(),
            answers,
            took: began.elapsed(),
        }
    }

    fn connect(&mut self, role: &str) {
        // A role that the script has created may lack LOGIN, or may have been dropped.
        match self.cluster.try_session_in(DATABASE, role) {
            Ok(session) => self.session = session,
            Err(_) => self.session = self.cluster.session_in(DATABASE, "postgres"),
        }
    }

    fn act(&mut self, action: &Action, answers: &mut Vec<Answer>) {
        let before = answers.len();
        let lost = match action {
            Action::Connect(role) => {
                self.connect(role.as_deref().unwrap_or("postgres"));
                false
            }
            Action::Session(sql) => {
                let answer = self.plainly(sql);
                let lost = answer.end.contains(SqlError::CONNECTION_LOST);
                answers.push(answer);
                lost
            }
            Action::Job(sql) => {
                let sql = sql.replace(DIRECTORY, &self.directory);
                let neighbours = self.neighbour_says(&sql, answers);
                let answer = job(&mut self.session, "script", &sql, PLAIN);
                let lost = neighbours || answer.end.contains(SqlError::CONNECTION_LOST);
                answers.push(answer);
                lost
            }
        };
        for answer in &mut answers[before..] {
            for text in [&mut answer.sql, &mut answer.end]
                .into_iter()
                .chain(&mut answer.rows)
                .chain(&mut answer.messages)
            {
                if text.contains(&self.directory) {
                    *text = text.replace(&self.directory, DIRECTORY);
                }
            }
        }
        if lost {
            // The server restarts after a crash, or the session was terminated.
            harness::wait_for("the server after a crash", || {
                self.cluster.try_session_in(DATABASE, "postgres").is_ok()
            });
            self.connect("postgres");
        }
    }

    fn plainly(&mut self, sql: &str) -> Answer {
        let result = self.session.try_rows(&sql.replace(DIRECTORY, &self.directory));
        self.session.take_notices();
        Answer {
            who: "session",
            sql: sql.to_owned(),
            end: match &result {
                Ok(_) => String::new(),
                Err(error) => format!("{} {}", error.sqlstate, error.message),
            },
            failed: result.is_err(),
            sqlstate: None,
            rows: result.map_or_else(|_| Vec::new(), |rows| rows.iter().map(|row| text(row)).collect()),
            messages: Vec::new(),
            worker: 0,
        }
    }

    /// One of the neighbours runs the same statement, and rolls it back. Sometimes it also runs a probe, or changes its state. Returns true
    /// if a session was lost.
    fn neighbour_says(&mut self, sql: &str, answers: &mut Vec<Answer>) -> bool {
        self.turn += 1;
        let turn = self.turn;
        let before = answers.len();
        let (name, role, settings, launch) = NEIGHBOURS[(turn + turn / 5) % NEIGHBOURS.len()];
        // A session without a worker of its own takes the script's.
        let Ok(mut session) = self.cluster.try_session_in(DATABASE, role) else {
            return true;
        };
        // The script may have dropped what the neighbour needs.
        let _ = session.try_rows(settings);
        if turn.is_multiple_of(7) {
            let _ = session.try_rows(CHANGES[turn / 7 % CHANGES.len()]);
        }
        if !sql.trim_start().to_lowercase().starts_with("begin") {
            let rolled_back = format!("BEGIN;\n{sql}");
            answers.push(job(&mut session, name, &rolled_back, launch));
        }
        if turn.is_multiple_of(5) {
            let [theirs, ours] = PROBES[turn / 5 % PROBES.len()];
            answers.push(job(&mut session, name, theirs, launch));
            // The second time it finds the state that the first one has left.
            for _ in 0..2 {
                answers.push(job(&mut self.session, "script", ours, PLAIN));
            }
        }
        answers[before..]
            .iter()
            .any(|answer| answer.end.contains(SqlError::CONNECTION_LOST))
    }
}

fn text(row: &[Option<String>]) -> String {
    let columns: Vec<_> = row.iter().map(|column| column.as_deref().unwrap_or("NULL")).collect();
    columns.join(" | ")
}

/// Runs a job and records all that it shows.
fn job(session: &mut Session, who: &'static str, sql: &str, launch: &str) -> Answer {
    let mut answer = Answer {
        who,
        sql: sql.to_owned(),
        end: String::new(),
        rows: Vec::new(),
        messages: Vec::new(),
        worker: 0,
        failed: true,
        sqlstate: None,
    };
    let last = sql.rsplit_once(";\n").map_or(sql, |(_, last)| last);
    let columns = session.describe(last).unwrap_or_default();
    session.take_notices();
    let launched = session.try_rows(&launch.replace("{sql}", &tagged(sql)));
    let handle = match launched {
        Ok(mut rows) if launch == AS_OWNER => {
            let row = rows.remove(0);
            answer.worker = row[0].as_deref().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            answer.failed = row[1].as_deref() != Some("stopped");
            answer.sqlstate = row[4].clone();
            answer.end = text(&row[1..]);
            session.take_notices();
            return answer;
        }
        Ok(rows) if rows.len() == 1 => Handle::of(&rows[0]),
        Ok(rows) => panic!("{sql} was launched {} times", rows.len()),
        Err(error) => {
            answer.end = format!("not launched: {} {}", error.sqlstate, error.message);
            session.take_notices();
            return answer;
        }
    };
    answer.worker = handle.pid;
    // A wait holds a snapshot, for which CREATE INDEX CONCURRENTLY waits in turn: so the wait is short, and repeated.
    let look = format!(
        "SELECT background.pg_background_wait({handle}, 300);
         SELECT state, row_count, command_tag, sqlstate, error_message FROM background.pg_background_outcome({handle});
         SELECT detail, hint, context, schema_name, table_name, column_name, constraint_name
         FROM background.pg_background_error_info({handle})"
    );
    let deadline = Instant::now() + LONGEST;
    let outcome = loop {
        match session.try_rows(&look) {
            Ok(rows) if rows[0][0].as_deref() != Some("t") && Instant::now() < deadline => (),
            outcome => break outcome,
        }
    };
    match outcome {
        Ok(rows) => {
            answer.failed = rows[1][0].as_deref() != Some("stopped");
            answer.sqlstate = rows[1][3].clone();
            let lines: Vec<_> = rows.iter().map(|row| text(row)).collect();
            answer.end = lines.join("\n").replace(&format!("pid {}", handle.pid), "pid <worker>");
        }
        Err(error) => {
            answer.end = format!("not waited for: {} {}", error.sqlstate, error.message);
            return answer;
        }
    }
    let list: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(n, kind)| format!("c{n} {kind}"))
        .collect();
    let list = if list.is_empty() {
        "tag text".to_owned()
    } else {
        list.join(", ")
    };
    let result = session.try_rows(&format!(
        "SELECT * FROM background.pg_background_result({handle}) AS ({list})"
    ));
    match result {
        Ok(rows) => answer.rows = rows.iter().map(|row| text(row)).collect(),
        Err(_) if answer.failed => (),
        Err(error) => {
            answer.rows = vec![format!("not read: {} {}", error.sqlstate, error.message)];
            let _ = session.try_rows(&format!("SELECT background.pg_background_detach({handle})"));
        }
    }
    answer.messages = session
        .take_notices()
        .iter()
        .map(|notice| format!("{} {} {}", notice.severity(), notice.code().code(), notice.message()))
        .collect();
    answer
}

/// Returns a text as an SQL literal that is valid under all settings of strings.
fn tagged(sql: &str) -> String {
    let mut tag = "$job$".to_owned();
    while sql.contains(&tag) {
        tag = tag.replace("$job", "$job_");
    }
    format!("{tag}{sql}{tag}")
}

/// The processes that ran the jobs.
pub fn workers(played: &Played) -> impl Iterator<Item = i32> {
    played
        .answers
        .iter()
        .map(|answer| answer.worker)
        .filter(|worker| *worker != 0)
}
