//! The SQL that reads a tab, and what exists to be read.

use crate::views::{Kind, Tab};

/// Returns `text` as an SQL literal, whatever the session's settings are.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
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

/// Reads the catalog.
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
                Kind::Text if column.width == 0 => format!("left({}, 400)", column.sql),
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
}
