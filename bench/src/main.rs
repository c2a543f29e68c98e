//! Compares pg_background with dblink and with local execution, in one run on temporary clusters.
//!
//! 1. Start two clusters with PostgreSQL's defaults: in one of them workers wait for the next job, in the other each job gets a process.
//! 2. For each comparison: warm all sides up, then time them in turns, so that disturbances affect all sides.
//! 3. Do the same for many sessions at once, for sessions that hold many handles, and for memory after many jobs.
//! 4. Measure durable tasks, on clusters of their own.
//! 5. Print medians, ratios and whether the goals are reached; write the tables and the plot of docs/performance.md.
//!
//! The loops run inside the server: no number contains a client's round trip. `BENCH_QUICK=1` runs everything with few executions
//! and writes nothing into `docs/`; `BENCH_OUT` names another directory to write to;
//! `BENCH_ONLY=jobs` and `BENCH_ONLY=tasks` measure and write one part.

mod comparisons;
mod cores;
mod handles;
mod measure;
mod memory;
mod plot;
mod report;
mod side;
mod tasks;
mod throughput;

use std::path::{Path, PathBuf};

use measure::Bench;

fn main() {
    let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| value == "1");
    let only = std::env::var("BENCH_ONLY").ok();
    let measures = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let directory = output(quick);
    let mut lines = Vec::new();
    if measures("jobs") {
        lines.extend(jobs(quick, directory.as_deref()));
    }
    if measures("tasks") {
        lines.extend(durable_tasks(quick, directory.as_deref()));
    }
    println!("\n{}", report::summary(&lines));
    if let Some(directory) = directory {
        println!("written to {}", directory.display());
    }
}

fn jobs(quick: bool, directory: Option<&Path>) -> Vec<report::Line> {
    let mut bench = Bench::start(quick);
    let environment = report::environment(bench.warm());
    println!("{environment}\n");
    report::print_head();

    let mut lines = Vec::new();
    comparisons::measure(&mut bench, &mut lines);
    throughput::measure(&bench, &mut lines);
    handles::measure(&bench, &mut lines);
    memory::measure(&bench, &mut lines);
    if let Some(directory) = directory {
        plot::write(&directory.join("performance.svg"), &lines);
        report::write_table(&directory.join("performance.md"), report::JOBS, &environment, &lines);
    }
    lines
}

fn durable_tasks(quick: bool, directory: Option<&Path>) -> Vec<report::Line> {
    let tasks = tasks::Tasks::start(quick);
    let environment = report::environment(&mut tasks.session());
    println!("\n{environment}\n");
    report::print_head();
    let lines = tasks.measure();
    if let Some(directory) = directory {
        report::write_table(&directory.join("performance.md"), report::TASKS, &environment, &lines);
    }
    lines
}

/// The directory for table and plot; None if they are not written.
fn output(quick: bool) -> Option<PathBuf> {
    match std::env::var_os("BENCH_OUT") {
        Some(directory) => Some(directory.into()),
        None if quick => None,
        None => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")),
    }
}
