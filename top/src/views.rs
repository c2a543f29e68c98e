//! The tabs: which view each shows, and with which columns.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    Jobs,
    Tasks,
    Queues,
    Schedules,
    Operations,
}

pub const TABS: [Tab; 5] = [Tab::Jobs, Tab::Tasks, Tab::Queues, Tab::Schedules, Tab::Operations];

/// How a value is shown. The value itself is text, as the server wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    State,
    /// Seconds since something, or until it if negative; coloured if the row is of something that has not ended.
    Age,
    /// Seconds.
    Time,
    /// Percent.
    Progress,
}

pub struct Column {
    /// The heading, and the name to sort by.
    pub name: &'static str,
    pub sql: &'static str,
    pub kind: Kind,
    /// Cells on the screen; 0 for the last column, which takes what is left.
    pub width: u16,
    /// 0: always shown; the columns with the greatest rank go first when the screen is narrow.
    pub rank: u8,
}

const fn column(name: &'static str, sql: &'static str, kind: Kind, width: u16, rank: u8) -> Column {
    Column {
        name,
        sql,
        kind,
        width,
        rank,
    }
}

/// What a tab shows.
pub struct View {
    pub name: &'static str,
    pub extension: &'static str,
    pub relation: &'static str,
    /// What names a row, as text.
    pub key: &'static str,
    pub columns: &'static [Column],
    /// The order in which rows are shown unless a column is chosen.
    pub order: &'static str,
    /// The columns in which a filter is searched.
    pub searched: &'static [&'static str],
    /// The rows of what has not ended.
    pub unfinished: &'static str,
    /// Two counters that only grow, whose rates are shown, and the relation they come from.
    pub counters: (&'static str, &'static str, &'static str),
    pub rates: [&'static str; 2],
    /// A second table for one row: its title, the relation, and what is selected of it; `$1` is the row's key.
    pub more: Option<(&'static str, &'static str, &'static str)>,
}

use Kind::{Age, Number, Progress, State, Text, Time};

static JOBS: View = View {
    name: "jobs",
    extension: "pg_background",
    relation: "pg_background_jobs",
    // The cookie of a job of another role is NULL.
    key: "coalesce(pid || ',' || cookie, pid::text)",
    columns: &[
        column("pid", "pid", Number, 7, 0),
        column("state", "state", State, 8, 0),
        column("role", "usename", Text, 10, 2),
        column("database", "datname", Text, 10, 4),
        column("label", "label", Text, 14, 1),
        column(
            "time",
            "extract(epoch FROM coalesce(finished_at, clock_timestamp()) - coalesce(started_at, launched_at))",
            Age,
            7,
            0,
        ),
        column("progress", "progress_pct", Progress, 10, 0),
        column("rows", "row_count", Number, 9, 3),
        column("error", "sqlstate", Text, 5, 1),
        column(
            "sql",
            "coalesce(error_message || ': ', '') || coalesce(sql_preview, '')",
            Text,
            0,
            0,
        ),
    ],
    order: "state IN ('starting', 'running') DESC, launched_at DESC, pid",
    searched: &[
        "pid::text",
        "state",
        "usename",
        "datname",
        "label",
        "sql_preview",
        "error_message",
        "sqlstate",
    ],
    unfinished: "state IN ('starting', 'running')",
    counters: (
        "sum(jobs_completed)",
        "sum(jobs_failed + jobs_canceled + jobs_timed_out)",
        "pg_background_cluster_stats",
    ),
    rates: ["done/s", "failed/s"],
    more: None,
};

static TASKS: View = View {
    name: "tasks",
    extension: "pg_background_tasks",
    relation: "tasks",
    key: "id",
    columns: &[
        column("id", "id", Number, 8, 0),
        column("state", "state", State, 8, 0),
        column("queue", "queue", Text, 10, 1),
        column("owner", "owner", Text, 10, 3),
        column("label", "label", Text, 12, 0),
        column("try", "attempt || '/' || max_attempts", Text, 5, 2),
        column(
            "time",
            "extract(epoch FROM CASE state WHEN 'running' THEN clock_timestamp() - started_at \
             WHEN 'deferred' THEN clock_timestamp() - run_at \
             WHEN 'waiting' THEN clock_timestamp() - greatest(enqueued_at, run_at) \
             WHEN 'blocked' THEN clock_timestamp() - enqueued_at \
             ELSE coalesce(finished_at - started_at, '0') END)",
            Age,
            8,
            0,
        ),
        column("progress", "progress_pct", Progress, 10, 0),
        column("error", "sqlstate", Text, 5, 1),
        column(
            "sql",
            "coalesce(error_message || ': ', '') || coalesce(sql, '')",
            Text,
            0,
            0,
        ),
    ],
    order: "CASE state WHEN 'running' THEN 0 WHEN 'waiting' THEN 1 WHEN 'deferred' THEN 2 WHEN 'blocked' THEN 3 ELSE 4 END, \
            finished_at DESC, priority DESC, id",
    searched: &[
        "id::text",
        "state",
        "queue",
        "owner",
        "label",
        "key",
        "schedule",
        "sql",
        "error_message",
        "sqlstate",
    ],
    unfinished: "finished_at IS NULL AND state NOT IN ('done', 'failed', 'canceled', 'expired')",
    counters: ("sum(done_total)", "sum(failed_total)", "queues"),
    rates: ["done/s", "failed/s"],
    more: Some((
        "runs",
        "runs",
        "attempt AS \"try\", state, pid, date_trunc('second', started_at) AS started, \
         round(1000 * extract(epoch FROM finished_at - started_at), 1) AS ms, row_count AS rows, sqlstate, message \
         FROM $relation WHERE task_id = $1::int8 ORDER BY started_at DESC",
    )),
};

static QUEUES: View = View {
    name: "queues",
    extension: "pg_background_tasks",
    relation: "queues",
    key: "name",
    columns: &[
        column("name", "name", Text, 14, 0),
        column("state", "CASE WHEN paused THEN 'paused' ELSE 'open' END", State, 6, 0),
        column("waiting", "waiting", Number, 8, 0),
        column("oldest", "extract(epoch FROM oldest_waiting)", Age, 7, 0),
        column("deferred", "deferred", Number, 8, 1),
        column("blocked", "blocked", Number, 8, 2),
        column("running", "running", Number, 7, 0),
        column("limit", "max_running", Number, 5, 2),
        column("failed", "failed", Number, 8, 0),
        column("done total", "done_total", Number, 12, 1),
        column("failed total", "failed_total", Number, 12, 1),
        column(
            "settings",
            "concat_ws(', ', 'per key ' || max_running_per_key, 'waiting ' || max_waiting, max_attempts || ' attempts', \
             'timeout ' || timeout)",
            Text,
            0,
            0,
        ),
    ],
    order: "name",
    searched: &["name"],
    unfinished: "waiting + deferred + blocked + running > 0",
    counters: ("sum(done_total)", "sum(failed_total)", "queues"),
    rates: ["done/s", "failed/s"],
    more: Some((
        "tasks that have not ended",
        "tasks",
        "id, state, priority, owner, label, left(sql, 200) AS sql FROM $relation \
         WHERE queue = $1 AND finished_at IS NULL ORDER BY state = 'running' DESC, priority DESC, id",
    )),
};

static SCHEDULES: View = View {
    name: "schedules",
    extension: "pg_background_tasks",
    relation: "schedules",
    key: "name",
    columns: &[
        column("name", "name", Text, 14, 0),
        column("spec", "spec", Text, 14, 0),
        column(
            "state",
            "CASE WHEN enabled THEN coalesce(last_state, 'new') ELSE 'off' END",
            State,
            8,
            0,
        ),
        column("next", "extract(epoch FROM clock_timestamp() - next_at)", Time, 8, 0),
        column("last", "extract(epoch FROM clock_timestamp() - last_at)", Time, 7, 1),
        column("took", "extract(epoch FROM last_duration)", Time, 7, 2),
        column("runs", "runs_total", Number, 7, 1),
        column("failed", "failures_total", Number, 6, 0),
        column("skipped", "skipped_total", Number, 7, 3),
        column("missed", "missed_total", Number, 6, 3),
        column("owner", "owner", Text, 10, 4),
        column("sql", "coalesce(sql, '')", Text, 0, 0),
    ],
    order: "next_at, name",
    searched: &["name", "spec", "owner", "queue", "last_state", "sql"],
    unfinished: "enabled",
    counters: ("sum(runs_total)", "sum(failures_total)", "schedules"),
    rates: ["runs/s", "failed/s"],
    more: Some((
        "tasks of it",
        "tasks",
        "id, state, attempt AS \"try\", date_trunc('second', coalesce(started_at, run_at, enqueued_at)) AS at, \
         round(1000 * extract(epoch FROM finished_at - started_at), 1) AS ms, sqlstate, error_message \
         FROM $relation WHERE schedule = $1 ORDER BY id DESC",
    )),
};

static OPERATIONS: View = View {
    name: "operations",
    extension: "pg_background_tasks",
    relation: "operations",
    key: "id",
    columns: &[
        column("id", "id", Number, 7, 0),
        column("state", "state", State, 8, 0),
        column("label", "label", Text, 14, 0),
        column("owner", "owner", Text, 10, 3),
        column("progress", "round((100 * progress)::numeric, 1)", Progress, 12, 0),
        column("chunks", "chunks_done", Number, 7, 1),
        column("failed", "chunks_failed", Number, 6, 0),
        column("rows", "rows_affected", Number, 11, 1),
        column("rows/s", "round(rows_per_second::numeric)", Number, 9, 2),
        column("eta", "extract(epoch FROM clock_timestamp() - eta)", Time, 8, 0),
        column(
            "time",
            "extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)",
            Time,
            7,
            2,
        ),
        column("last error", "coalesce(last_error, '')", Text, 0, 0),
    ],
    order: "finished_at DESC NULLS FIRST, id DESC",
    searched: &["id::text", "label", "owner", "state", "last_error"],
    unfinished: "finished_at IS NULL",
    counters: ("sum(rows_affected)", "sum(chunks_failed)", "operations"),
    rates: ["rows/s", "failed/s"],
    more: Some((
        "chunks",
        "chunks",
        "n, state, attempts, rows, round(ms::numeric, 1) AS ms, first, last, sqlstate, error_message \
         FROM $relation WHERE operation_id = $1::int8 ORDER BY state = 'running' DESC, state = 'failed' DESC, n DESC",
    )),
};

impl Tab {
    pub fn view(self) -> &'static View {
        match self {
            Self::Jobs => &JOBS,
            Self::Tasks => &TASKS,
            Self::Queues => &QUEUES,
            Self::Schedules => &SCHEDULES,
            Self::Operations => &OPERATIONS,
        }
    }

    pub fn index(self) -> usize {
        self as usize
    }

    /// The tab of that name, or of one that begins so.
    pub fn named(name: &str) -> Option<Self> {
        TABS.into_iter()
            .find(|tab| !name.is_empty() && tab.view().name.starts_with(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_are_found_by_the_begin_of_their_name() {
        assert_eq!(Tab::named("op"), Some(Tab::Operations));
        assert_eq!(Tab::named(""), None);
        assert_eq!(Tab::named("jobz"), None);
        for (n, tab) in TABS.into_iter().enumerate() {
            assert_eq!(tab.index(), n);
            assert_eq!(tab.view().columns.iter().filter(|column| column.width == 0).count(), 1);
        }
    }
}
