//! The tabs: which view each shows, with which columns, and the SQL that reads them.

/// Returns `text` as an SQL literal, whatever the session's settings are.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

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
    key: "pid || ',' || cookie",
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
            7,
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

/// What the server says about a view of the extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub extension: String,
    /// Quoted where it needs to be.
    pub schema: String,
    pub name: String,
    /// Whether the role may read it.
    pub readable: bool,
}

/// The views that exist in the database. Only members of the two extensions count: a schema of the same name may be of another.
#[derive(Clone, Debug, Default)]
pub struct Catalog(pub Vec<Relation>);

/// Reads the catalog. The search path is that of the one message, so that nothing in another schema is called, and a pooler's session
/// keeps its own.
pub const PATH_SQL: &str = "SET LOCAL search_path = pg_catalog";
pub const CATALOG_SQL: &str = "SELECT e.extname, quote_ident(n.nspname), c.relname, \
     has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') \
     FROM pg_extension AS e \
     JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' \
       AND d.classid = 'pg_class'::regclass \
     JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'v' \
     JOIN pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE e.extname IN ('pg_background', 'pg_background_tasks')";

impl Catalog {
    pub fn find(&self, extension: &str, name: &str) -> Option<&Relation> {
        self.0.iter().find(|r| r.extension == extension && r.name == name)
    }

    /// The qualified name of a view that the role may read, or why there is none.
    pub fn qualified(&self, extension: &str, name: &str) -> Result<String, String> {
        match self.find(extension, name) {
            Some(relation) if relation.readable => Ok(format!("{}.{name}", relation.schema)),
            Some(relation) => Err(format!("permission denied for view {}.{name}", relation.schema)),
            None if self.0.iter().any(|r| r.extension == extension) => {
                Err(format!("this version of extension {extension} has no view \"{name}\""))
            }
            None => Err(format!("extension {extension} is not in this database")),
        }
    }

    /// The schema of an extension's functions.
    pub fn schema(&self, extension: &str) -> Option<&str> {
        Some(&self.0.iter().find(|r| r.extension == extension)?.schema)
    }
}

/// Which rows of a tab are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub tab: Tab,
    pub filter: String,
    pub unfinished: bool,
    /// A column, and whether the greatest value comes first.
    pub sort: Option<(usize, bool)>,
    pub offset: usize,
    /// None: all.
    pub limit: Option<usize>,
}

impl Query {
    fn condition(&self) -> String {
        let view = self.tab.view();
        let mut conditions = Vec::new();
        if self.unfinished {
            conditions.push(format!("({})", view.unfinished));
        }
        if !self.filter.is_empty() {
            let text = literal(&self.filter.to_lowercase());
            let places: Vec<_> = view
                .searched
                .iter()
                .map(|column| format!("strpos(lower({column}), {text}) > 0"))
                .collect();
            conditions.push(format!("({})", places.join(" OR ")));
        }
        if conditions.is_empty() {
            return String::new();
        }
        format!(" WHERE {}", conditions.join(" AND "))
    }

    fn order(&self) -> String {
        let view = self.tab.view();
        match self.sort {
            Some((column, descending)) => format!(
                "{} {} NULLS LAST, {}",
                view.columns[column].sql,
                if descending { "DESC" } else { "ASC" },
                view.order
            ),
            None => view.order.to_owned(),
        }
    }

    fn source(&self, relation: &str, also: &str) -> String {
        let limit = self.limit.map_or(String::new(), |n| format!(" LIMIT {n}"));
        format!(
            "(SELECT *{also} FROM {relation} AS v{} ORDER BY {}{limit} OFFSET {}) AS v",
            self.condition(),
            self.order(),
            self.offset
        )
    }

    /// The columns of the rows, before them the key and the number of all rows.
    pub fn rows_sql(&self, relation: &str) -> String {
        let view = self.tab.view();
        let columns: Vec<_> = view
            .columns
            .iter()
            .map(|column| match column.kind {
                // No more of a long text than a line can show.
                Text if column.width == 0 => format!("left({}, 400)", column.sql),
                _ => column.sql.to_owned(),
            })
            .collect();
        format!(
            "SELECT {}, all_rows, {} FROM {}",
            view.key,
            columns.join(", "),
            self.source(relation, ", count(*) OVER () AS all_rows")
        )
    }

    /// All columns of the view, as one JSON document.
    pub fn json_sql(&self, relation: &str) -> String {
        format!(
            "SELECT json_build_object('database', current_database(), 'role', current_user, 'at', clock_timestamp(), \
             'tab', {}, 'rows', coalesce(json_agg(row_to_json(v)), '[]')) FROM {}",
            literal(self.tab.view().name),
            self.source(relation, "")
        )
    }
}

/// One row with all that the view knows about it.
pub fn one_sql(tab: Tab, relation: &str, key: &str) -> String {
    let view = tab.view();
    format!(
        "SELECT * FROM {relation} AS v WHERE ({})::text = {}",
        view.key,
        literal(key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query {
            tab: Tab::Tasks,
            filter: String::new(),
            unfinished: false,
            sort: None,
            offset: 0,
            limit: Some(10),
        }
    }

    #[test]
    fn literals_hold_quotes_and_backslashes() {
        assert_eq!(literal(r"it's \ 'x'"), r"E'it''s \\ ''x'''");
    }

    #[test]
    fn a_filter_is_a_literal_in_every_searched_column() {
        let sql = Query {
            filter: "O'Neil".to_owned(),
            unfinished: true,
            ..query()
        }
        .rows_sql("background.tasks");
        assert!(sql.contains("strpos(lower(label), E'o''neil') > 0"));
        assert!(sql.contains("(finished_at IS NULL"));
        assert!(sql.contains("LIMIT 10 OFFSET 0"));
    }

    #[test]
    fn sorting_keeps_the_order_of_equal_rows() {
        let sql = Query {
            sort: Some((0, true)),
            ..query()
        }
        .rows_sql("background.tasks");
        assert!(sql.contains("ORDER BY id DESC NULLS LAST, CASE state"));
    }

    #[test]
    fn a_missing_view_is_named() {
        let relation = |name: &str, readable| Relation {
            extension: "pg_background_tasks".to_owned(),
            schema: "background".to_owned(),
            name: name.to_owned(),
            readable,
        };
        let catalog = Catalog(vec![relation("tasks", true), relation("runs", false)]);
        let ask = |name| catalog.qualified("pg_background_tasks", name);
        assert_eq!(ask("tasks").unwrap(), "background.tasks");
        assert_eq!(ask("runs").unwrap_err(), "permission denied for view background.runs");
        assert!(ask("operations").unwrap_err().contains("has no view \"operations\""));
        assert!(
            catalog
                .qualified("pg_background", "pg_background_jobs")
                .unwrap_err()
                .contains("is not in this database")
        );
    }

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
