//! Compares pg_background with dblink and with local execution, in one run on temporary clusters.
//!
//! 1. Start two clusters with PostgreSQL's defaults: in one of them workers wait for the next job, in the other each job gets a process.
//! 2. For each comparison: warm all sides up, then time them in turns, so that disturbances affect all sides.
//! 3. Do the same for many sessions at once, for sessions that hold many handles, and for memory after many jobs.
//! 4. Print medians, ratios and whether the goals are reached; write the table and the plot of docs/performance.md.
//!
//! The loops run inside the server: no number contains a client's round trip. `BENCH_QUICK=1` runs everything with few executions
//! and writes nothing into `docs/`; `BENCH_OUT` names another directory to write to.

mod comparisons;
mod cores;
mod handles;
mod measure;
mod memory;
mod plot;
mod report;
mod side;
mod throughput;

use std::path::{Path, PathBuf};

use measure::Bench;

fn main() {
    let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| value == "1");
    let mut bench = Bench::start(quick);
    let environment = report::environment(bench.warm());
    println!("{environment}\n");
    report::print_head();

    let mut lines = Vec::new();
    comparisons::measure(&mut bench, &mut lines);
    throughput::measure(&bench, &mut lines);
    handles::measure(&bench, &mut lines);
    memory::measure(&bench, &mut lines);

    println!("\n{}", report::summary(&lines));
    if let Some(directory) = output(quick) {
        plot::write(&directory.join("performance.svg"), &lines);
        report::write_table(&directory.join("performance.md"), &environment, &lines);
        println!("written to {}", directory.display());
    }
}

/// The directory for table and plot; None if they are not written.
fn output(quick: bool) -> Option<PathBuf> {
    match std::env::var_os("BENCH_OUT") {
        Some(directory) => Some(directory.into()),
        None if quick => None,
        None => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")),
    }
}
