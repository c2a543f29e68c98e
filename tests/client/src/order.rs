//! Jobs in an order, run on workers that wait for the next job and on fresh ones: the outcomes must be the same.

use crate::{Cluster, Handle, Session, quoted};

/// One step of an order.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A job is launched, and its outcome, result, messages and error are read.
    Job(&'static str),
    /// A job is launched, and detached unread when it has ended.
    Unread(&'static str),
    /// A job is launched, and cancelled while it sleeps.
    Cancelled(&'static str),
    /// The launching session executes this itself.
    Session(&'static str),
    /// Another session, a superuser's, executes this.
    Admin(&'static str),
    /// The launching session ends, and the next one is of this role.
    Connect(&'static str),
}

/// Steps of one session.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub name: &'static str,
    pub role: &'static str,
    pub steps: &'static [Step],
    /// Whether a worker can certainly undo the state, so that all jobs must run in the same process.
    pub keeps_worker: bool,
    /// Whether the last job's answer depends on state that the jobs before it leave. Then the steps, executed as plain statements of one
    /// session, show that the test can fail.
    pub shows: bool,
}

/// The observed answers.
pub struct Played {
    /// One text for each step that has an answer.
    pub answers: Vec<String>,
    /// The processes that ran the jobs.
    pub workers: Vec<i32>,
}

impl Order {
    /// Runs the order with jobs.
    pub fn play(&self, cluster: &Cluster) -> Played {
        self.play_with(cluster, Session::job_answer)
    }

    /// Runs the order with the session itself executing each job's SQL.
    pub fn play_plain(&self, cluster: &Cluster) -> Played {
        self.play_with(cluster, |session, step, _| match step {
            Step::Cancelled(_) => (String::new(), None),
            Step::Job(sql) | Step::Unread(sql) => {
                let answer = rows_or_error(session.try_rows(sql));
                session.take_notices();
                (answer, None)
            }
            other => panic!("{other:?} is no job"),
        })
    }

    fn play_with(
        &self,
        cluster: &Cluster,
        job: impl Fn(&mut Session, Step, &mut Session) -> (String, Option<i32>),
    ) -> Played {
        let mut session = cluster.session_as(self.role);
        let mut administrator = cluster.session();
        let mut played = Played {
            answers: Vec::new(),
            workers: Vec::new(),
        };
        for step in self.steps {
            match step {
                Step::Admin(sql) => administrator.exec(sql),
                Step::Connect(role) => session = cluster.session_as(role),
                Step::Session(sql) => {
                    let answer = rows_or_error(session.try_rows(sql));
                    played.answers.push(format!("{sql}\n{answer}"));
                    session.take_notices();
                }
                Step::Job(sql) | Step::Unread(sql) | Step::Cancelled(sql) => {
                    let (answer, worker) = job(&mut session, *step, &mut administrator);
                    let answer = name_process(&answer, session.pid, "<session>");
                    played.answers.push(format!("{sql}\n{answer}"));
                    played.workers.extend(worker);
                }
            }
        }
        played
    }
}

fn rows_or_error(result: Result<crate::Rows, crate::SqlError>) -> String {
    match result {
        Ok(rows) => rows
            .into_iter()
            .map(|row| {
                let columns: Vec<_> = row.into_iter().map(|c| c.unwrap_or("NULL".into())).collect();
                format!("  {}\n", columns.join(" | "))
            })
            .collect(),
        Err(error) => format!(
            "  error {} {} / {} / {} / {}\n",
            error.sqlstate, error.message, error.detail, error.hint, error.context
        ),
    }
}

impl Session {
    /// Returns all that a job shows, without what identifies its process, and that process.
    fn job_answer(&mut self, step: Step, observer: &mut Session) -> (String, Option<i32>) {
        let (Step::Job(sql) | Step::Unread(sql) | Step::Cancelled(sql)) = step else {
            panic!("{step:?} is no job");
        };
        let launch = format!("SELECT pid, cookie FROM pg_background_launch({})", quoted(sql));
        let launched = match self.try_rows(&launch) {
            Ok(rows) => rows,
            Err(error) => return (rows_or_error(Err(error)), None),
        };
        let field = |i: usize| launched[0][i].as_deref().expect("a handle");
        let job = Handle {
            pid: field(0).parse().expect("a pid"),
            cookie: field(1).parse().expect("a cookie"),
        };
        if matches!(step, Step::Cancelled(_)) {
            observer.wait_until(&format!(
                "wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}",
                job.pid
            ));
            self.exec(&format!("SELECT pg_background_cancel({job})"));
        }
        self.wait(job);
        let mut answer = String::new();
        if matches!(step, Step::Unread(_)) {
            self.exec(&format!("SELECT pg_background_detach({job})"));
            return (answer, Some(job.pid));
        }
        for look in [
            "SELECT state, has_error, row_count, command_tag, sqlstate, error_message, label FROM pg_background_outcome({job})",
            "SELECT * FROM pg_background_error_info({job})",
            "SELECT row_count, command_tag, completed, has_error FROM pg_background_result_info({job})",
            "SELECT * FROM pg_background_get_progress({job})",
            "SELECT * FROM pg_background_result({job}) AS (x text)",
        ] {
            answer += &rows_or_error(self.try_rows(&look.replace("{job}", &job.to_string())));
        }
        for notice in self.take_notices() {
            answer += &format!(
                "  {} {} {}\n",
                notice.severity(),
                notice.code().code(),
                notice.message()
            );
        }
        // A result that could not be read leaves its handle.
        let _ = self.try_rows(&format!("SELECT pg_background_detach({job})"));
        self.take_notices();
        let answer = answer.replace(&job.cookie.to_string(), "<cookie>");
        (name_process(&answer, job.pid, "<worker>"), Some(job.pid))
    }
}

/// Replaces a process's number by a name where the text is about the process: elsewhere the same number can occur by chance.
fn name_process(text: &str, pid: i32, name: &str) -> String {
    const BEFORE: [&str; 5] = ["PID ", "pid ", "process ", "Process ", ":"];
    let pid = pid.to_string();
    let mut named = String::new();
    let mut left = text;
    while let Some(at) = left.find(&pid) {
        let (before, after) = (&left[..at], &left[at + pid.len()..]);
        let is_meant =
            BEFORE.iter().any(|mark| before.ends_with(mark)) && !after.starts_with(|c: char| c.is_ascii_digit());
        named += before;
        named += if is_meant { name } else { &pid };
        left = after;
    }
    named + left
}

/// Runs all orders on both clusters, and panics with every difference. A worker that had to be reused and was not is a difference.
#[track_caller]
pub fn compare(warm: &Cluster, fresh: &Cluster, plain: &Cluster, orders: &[Order]) {
    let mut differences = Vec::new();
    for order in orders {
        let on_warm = order.play(warm);
        let on_fresh = order.play(fresh);
        if on_warm.answers != on_fresh.answers {
            let first = (0..on_warm.answers.len())
                .find(|&i| on_warm.answers.get(i) != on_fresh.answers.get(i))
                .unwrap_or(0);
            differences.push(format!(
                "{}: a warm worker answers\n{}a fresh one\n{}",
                order.name, on_warm.answers[first], on_fresh.answers[first]
            ));
        }
        if order.keeps_worker && on_warm.workers.windows(2).any(|pair| pair[0] != pair[1]) {
            differences.push(format!(
                "{}: the worker was not kept: {:?}",
                order.name, on_warm.workers
            ));
        }
        if on_fresh.workers.windows(2).any(|pair| pair[0] == pair[1]) {
            differences.push(format!(
                "{}: a fresh worker ran two jobs: {:?}",
                order.name, on_fresh.workers
            ));
        }
        if order.shows {
            let last = |played: &Played| answer_rows(played.answers.last().expect("an answer"));
            let on_plain = order.play_plain(plain);
            // Both ways show the result; a job shows more than that.
            if last(&on_fresh).contains(&last(&on_plain)) {
                differences.push(format!(
                    "{}: the last job would not show what is left: {}",
                    order.name,
                    on_plain.answers.last().expect("an answer")
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} orders differ\n\n{}",
        differences.len(),
        orders.len(),
        differences.join("\n")
    );
}

/// Runs orders of which each job must answer like its session; panics with every difference.
#[track_caller]
pub fn agree(warm: &Cluster, fresh: &Cluster, plain: &Cluster, orders: &[Order]) {
    let mut differences = Vec::new();
    for order in orders {
        let plain = order.play_plain(plain).answers;
        for (kind, cluster) in [("warm", warm), ("fresh", fresh)] {
            let played = order.play(cluster).answers;
            let differs = |(job, session): &(&String, &String)| !answer_rows(job).contains(&answer_rows(session));
            if let Some((job, session)) = played.iter().zip(&plain).find(differs) {
                differences.push(format!(
                    "{}: the session answers\n{session}a {kind} worker\n{job}",
                    order.name
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Returns an answer without the statement that it belongs to.
fn answer_rows(answer: &str) -> String {
    let place = answer.find("\n  ").map_or(answer.len(), |place| place + 1);
    answer[place..].to_owned()
}
