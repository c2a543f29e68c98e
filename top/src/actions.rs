//! What can be done to the selected row. Each is asked about first.

use crate::data::{Catalog, literal};
use crate::link::Row;
use crate::views::Tab;

/// A statement that waits for a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What it does, as a phrase in the imperative.
    pub what: String,
    pub sql: String,
}

/// Why a row can neither be followed nor changed: the view hides the cookie of a job of another role, without which no function finds it.
pub fn refusal(tab: Tab, row: &Row) -> Option<String> {
    (tab == Tab::Jobs && !row.key.contains(',')).then(|| {
        format!(
            "job of another role: without its privileges it cannot be followed or canceled (process {})",
            row.key
        )
    })
}

/// The action of a key on a row of a tab.
pub fn of(key: char, tab: Tab, row: &Row, catalog: &Catalog) -> Option<Action> {
    let schema = catalog.schema(tab.view().extension)?;
    let cell = |name: &str| {
        let at = tab.view().columns.iter().position(|column| column.name == name)?;
        row.cells.get(at)?.as_deref()
    };
    let is = |state: &str| cell("state") == Some(state);
    let key_of_row = &row.key;
    let named = |what: &str, noun: &str| match cell("label").filter(|label| !label.is_empty()) {
        Some(label) => format!("{what} {noun} {key_of_row} ({label})"),
        None => format!("{what} {noun} {key_of_row}"),
    };
    let id = format!("{}::int8", literal(key_of_row));
    let name = literal(key_of_row);
    let (what, call) = match (key, tab) {
        ('c', Tab::Jobs) => {
            let (pid, cookie) = key_of_row.split_once(',')?;
            let label = cell("label")
                .filter(|label| !label.is_empty())
                .map_or(String::new(), |label| format!(" ({label})"));
            (
                format!("cancel the job of process {pid}{label}"),
                format!(
                    "pg_background_cancel({}::int4, {}::int8)",
                    literal(pid),
                    literal(cookie)
                ),
            )
        }
        ('c', Tab::Tasks) => (named("cancel", "task"), format!("cancel({id})")),
        ('r', Tab::Tasks) => (named("retry", "task"), format!("retry({id})")),
        ('p', Tab::Queues) if is("paused") => (
            format!("resume queue {key_of_row}"),
            format!("set_queue({name}, paused => false)"),
        ),
        ('p', Tab::Queues) => (
            format!("pause queue {key_of_row}"),
            format!("set_queue({name}, paused => true)"),
        ),
        ('x', Tab::Schedules) => (
            format!("run schedule {key_of_row} now"),
            format!("run_schedule({name})"),
        ),
        ('p', Tab::Schedules) if is("off") => (
            format!("enable schedule {key_of_row}"),
            format!("alter_schedule({name}, enabled => true)"),
        ),
        ('p', Tab::Schedules) => (
            format!("disable schedule {key_of_row}"),
            format!("alter_schedule({name}, enabled => false)"),
        ),
        ('c', Tab::Operations) => (named("cancel", "operation"), format!("cancel_operation({id})")),
        ('r', Tab::Operations) => (named("retry", "operation"), format!("retry_operation({id})")),
        ('p', Tab::Operations) if is("paused") => (
            named("resume", "operation"),
            format!("alter_operation({id}, paused => false)"),
        ),
        ('p', Tab::Operations) => (
            named("pause", "operation"),
            format!("alter_operation({id}, paused => true)"),
        ),
        _ => return None,
    };
    Some(Action {
        what,
        sql: format!("SELECT {schema}.{call}"),
    })
}

/// The keys of a tab's actions, for the last line.
pub fn hints(tab: Tab) -> &'static str {
    match tab {
        Tab::Jobs => "c cancel",
        Tab::Tasks => "c cancel  r retry",
        Tab::Queues => "p pause/resume",
        Tab::Schedules => "x run now  p enable/disable",
        Tab::Operations => "c cancel  r retry  p pause/resume",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Relation;

    #[test]
    fn keys_become_calls_with_literals() {
        let relation = |extension: &str, schema: &str| Relation {
            extension: extension.to_owned(),
            schema: schema.to_owned(),
            name: String::new(),
            readable: true,
        };
        let catalog = Catalog(vec![
            relation("pg_background", "\"My\""),
            relation("pg_background_tasks", "background"),
        ]);
        let row = |key: &str, state: &str| Row {
            key: key.to_owned(),
            cells: vec![None, Some(state.to_owned())],
        };
        let sql = |key, tab, row: &Row| of(key, tab, row, &catalog).map(|action| action.sql);
        assert_eq!(
            sql('c', Tab::Jobs, &row("12,-5", "running")).unwrap(),
            "SELECT \"My\".pg_background_cancel(E'12'::int4, E'-5'::int8)"
        );
        assert_eq!(
            sql('p', Tab::Queues, &row("o'x", "open")).unwrap(),
            "SELECT background.set_queue(E'o''x', paused => true)"
        );
        assert_eq!(
            sql('p', Tab::Queues, &row("q", "paused")).unwrap(),
            "SELECT background.set_queue(E'q', paused => false)"
        );
        assert_eq!(
            sql('r', Tab::Tasks, &row("7", "failed")).unwrap(),
            "SELECT background.retry(E'7'::int8)"
        );
        assert_eq!(sql('x', Tab::Tasks, &row("7", "failed")), None);
        assert_eq!(of('r', Tab::Tasks, &row("7", "failed"), &Catalog::default()), None);
    }
}
