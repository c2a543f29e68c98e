//! pg_background_top: what pg_background does, in a terminal.
//!
//! 1. [`args`] reads the command line, [`conninfo`] connection strings, [`files`] the service and password files;
//! 2. [`parameters`] completes them, [`connect`] makes a connection of them, with [`tls`];
//! 3. [`session`] is the connection, [`link`] serves it in a thread: it asks what [`data`] says about the [`views`], one message for each look;
//! 4. [`screen`] is the loop of the screen; [`app`] has its state, [`keys`] changes it, [`actions`] has the statements that change something;
//! 5. [`draw`] and [`follow`] show it, with the colours of [`theme`]; [`once`] prints a table or JSON instead. [`format`] makes texts of values.

mod actions;
mod app;
mod args;
mod connect;
mod conninfo;
mod data;
mod draw;
mod files;
mod follow;
mod format;
mod keys;
mod link;
mod once;
mod parameters;
mod screen;
mod session;
mod terminal;
mod theme;
mod tls;
mod views;

use std::io::Write;
use std::process::ExitCode;

use args::{Args, Command, Output};
use connect::Connector;
use data::Query;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let args = match args::read(&arguments) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help) => {
            return print(args::HELP);
        }
        Ok(Command::Version) => {
            return print(concat!("pg_background_top ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(error) => {
            complain(&format!(
                "{error}\nTry \"pg_background_top --help\" for more information."
            ));
            return ExitCode::from(2);
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {}", format::clean_lines(&error)));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match once::put(&mut std::io::stdout(), text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong, if the error output takes it.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "pg_background_top: {text}");
}

fn run(mut args: Args) -> Result<(), String> {
    let mut connector = Connector::new(std::mem::take(&mut args.connection), &|name| std::env::var(name).ok())?;
    let mut session = connector.connect_asking(args.ask)?;
    let query = Query {
        tab: args.tab,
        filter: args.filter.clone(),
        unfinished: args.unfinished,
        sort: args.sort,
        offset: 0,
        limit: args.rows,
    };
    match args.output {
        Output::Table => once::table(&mut session, query, &mut std::io::stdout()),
        Output::Json => once::json(&mut session, &query, &mut std::io::stdout()),
        Output::Screen => screen::run(query, args.interval, connector, session),
    }
}
