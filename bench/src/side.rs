//! The sides of a comparison: a few statements of PL/pgSQL, made into a procedure that times each execution.

use harness::{Session, quoted};

/// One side: one way to do the same work.
#[derive(Clone)]
pub struct Side {
    pub name: &'static str,
    body: String,
}

impl Side {
    pub fn new(name: &'static str, body: &str) -> Self {
        Self {
            name,
            body: body.to_owned(),
        }
    }

    /// `launch` of a query and `result` with its rows.
    pub fn launch_and_result(query: &str, columns: &str) -> Self {
        Self {
            name: "launch + result",
            body: format!(
                "h := pg_background_launch({});
                 PERFORM count(*) FROM pg_background_result(h.pid, h.cookie) {columns};",
                quoted(query)
            ),
        }
    }

    pub fn run(query: &str) -> Self {
        Self {
            name: "run",
            body: format!("PERFORM pg_background_run({});", quoted(query)),
        }
    }

    /// dblink on an open connection.
    pub fn kept(query: &str, columns: &str) -> Self {
        Self {
            name: "dblink, kept connection",
            body: format!("PERFORM count(*) FROM dblink('kept', {}) {columns};", quoted(query)),
        }
    }

    /// dblink on a connection of its own.
    pub fn new_connection(query: &str, columns: &str) -> Self {
        Self {
            name: "dblink, new connection",
            body: format!("PERFORM count(*) FROM dblink(here(), {}) {columns};", quoted(query)),
        }
    }

    /// Local execution, each value computed.
    pub fn local(query: &str, columns: &[&str]) -> Self {
        let counts: Vec<_> = columns.iter().map(|column| format!("count({column})")).collect();
        Self {
            name: "the same query run locally",
            body: format!(
                "PERFORM {} FROM ({query} OFFSET 0) AS s ({});",
                counts.join(", "),
                columns.join(", ")
            ),
        }
    }

    /// Executes it `repeat` times in the server. Returns the milliseconds of each execution. With many repetitions the first few do not count: the
    /// other side's turn has replaced the contents of the caches.
    pub fn time(&self, session: &mut Session, repeat: u32) -> Vec<f64> {
        let name = self.procedure(session);
        let taken: String = session.value(&format!("CALL {name}({repeat}, NULL)"));
        taken
            .trim_matches(['{', '}'])
            .split(',')
            .map(|ms| ms.parse().expect("milliseconds"))
            .collect()
    }

    /// Executes it for `seconds`. Returns executions per second.
    pub fn rate(&self, session: &mut Session, seconds: f64) -> f64 {
        let name = self.procedure(session);
        session.value(&format!("CALL {name}_rate({seconds}, NULL)"))
    }

    /// Executes it `repeat` times, untimed.
    pub fn repeat(&self, session: &mut Session, repeat: u32) {
        let name = self.procedure(session);
        session.exec(&format!("CALL {name}_repeat({repeat})"));
    }

    /// Returns the name of its procedure, which is created if it is missing.
    fn procedure(&self, session: &mut Session) -> String {
        let name: String = session.value(&format!("SELECT 'side_' || md5({})", quoted(&self.body)));
        if !session.holds(&format!("EXISTS (SELECT FROM pg_proc WHERE proname = '{name}')")) {
            let body = &self.body;
            session.exec(&format!(
                "CREATE PROCEDURE {name}(repeat int, INOUT taken float8[]) LANGUAGE plpgsql AS $side$
                 DECLARE
                     h pg_background_handle;
                     started timestamptz;
                 BEGIN
                     FOR i IN 1..repeat / 20 LOOP
                         {body}
                     END LOOP;
                     FOR i IN 1..repeat LOOP
                         started := clock_timestamp();
                         {body}
                         taken[i] := extract(epoch FROM clock_timestamp() - started) * 1000;
                     END LOOP;
                 END $side$;
                 CREATE PROCEDURE {name}_rate(seconds float8, INOUT rate float8) LANGUAGE plpgsql AS $side$
                 DECLARE
                     h pg_background_handle;
                     started timestamptz := clock_timestamp();
                     n int := 0;
                 BEGIN
                     WHILE clock_timestamp() < started + seconds * interval '1 s' LOOP
                         {body}
                         n := n + 1;
                     END LOOP;
                     rate := n / extract(epoch FROM clock_timestamp() - started);
                 END $side$;
                 CREATE PROCEDURE {name}_repeat(repeat int) LANGUAGE plpgsql AS $side$
                 DECLARE
                     h pg_background_handle;
                 BEGIN
                     FOR i IN 1..repeat LOOP {body} END LOOP;
                 END $side$"
            ));
        }
        name
    }
}
