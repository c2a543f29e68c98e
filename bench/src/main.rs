//! Measures pg_background against dblink and against local execution, in one run on throw-away clusters.
//!
//! 1. Start two clusters with PostgreSQL's defaults: in one workers wait for the next job, in the other each job gets a process.
//! 2. For each comparison: warm all sides up, then time them in turns, so that what disturbs one disturbs all.
//! 3. The same for many sessions at once, for sessions that hold many handles, and for memory after many jobs.
//! 4. Print medians, ratios and whether the goals are reached; write table and plot for docs/performance.md.
//!
//! The loops run inside the server: the client's round trips are in no number. `BENCH_QUICK=1` does all of it with a few
//! executions and writes nothing into `docs/`; `BENCH_OUT` names another directory to write to.

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

/// Where table and plot go; None for nowhere.
fn output(quick: bool) -> Option<PathBuf> {
    match std::env::var_os("BENCH_OUT") {
        Some(directory) => Some(directory.into()),
        None if quick => None,
        None => Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")),
    }
}
