//! `--once` and `--json`: one look, without a screen.

use std::io::Write;

use crate::connect::describe;
use crate::data::{Catalog, Query};
use crate::format::{fit, is_right, value, width};
use crate::link::{self, Look, Page};
use crate::session::Session;

/// Prints a tab as a table.
pub fn table(session: &mut Session, query: Query, out: &mut dyn Write) -> Result<(), String> {
    let wanted = Look {
        number: 0,
        query,
        follow: None,
    };
    let page = link::look(session, &mut Catalog::default(), &wanted).map_err(|error| describe(&error))?;
    if let Some(missing) = page.missing {
        return Err(missing);
    }
    write(&page, out)
}

fn write(page: &Page, out: &mut dyn Write) -> Result<(), String> {
    let columns = page.tab.view().columns;
    let lines: Vec<Vec<String>> = page
        .rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .zip(&row.cells)
                .map(|(column, cell)| value(column, cell.as_deref()))
                .collect()
        })
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| {
            lines
                .iter()
                .map(|line| width(&line[n]))
                .max()
                .unwrap_or(0)
                .max(column.name.len())
        })
        .collect();
    let line = |cells: &[String]| {
        let fitted: Vec<_> = columns
            .iter()
            .zip(cells)
            .zip(&widths)
            .map(|((column, cell), &cells)| fit(cell, cells, is_right(column.kind)))
            .collect();
        fitted.join("  ").trim_end().to_owned()
    };
    let names: Vec<_> = columns.iter().map(|column| column.name.to_owned()).collect();
    let mut text = line(&names) + "\n";
    for cells in &lines {
        text += &(line(cells) + "\n");
    }
    if page.total > page.rows.len() {
        text += &format!("({} of {})\n", page.rows.len(), page.total);
    }
    put(out, &text)
}

/// Prints a tab as one JSON document.
pub fn json(session: &mut Session, query: &Query, out: &mut dyn Write) -> Result<(), String> {
    // The catalog first, which says where the view is.
    let mut catalog = Catalog::default();
    let nothing = Look {
        number: 0,
        query: Query {
            limit: Some(0),
            ..query.clone()
        },
        follow: None,
    };
    link::look(session, &mut catalog, &nothing).map_err(|error| describe(&error))?;
    let document = link::json(session, &catalog, query)?;
    put(out, &(document + "\n"))
}

/// Writes all of a text.
pub fn put(out: &mut dyn Write, text: &str) -> Result<(), String> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough is no error: head, less.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
