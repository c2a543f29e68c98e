//! Runs the whole benchmark, with few executions for each row, and checks that it writes its table and its plot.

use std::fs;
use std::process::Command;

const ROWS: [&str; 22] = [
    "launch + result of SELECT 1 ",
    "launch + result of SELECT 1, p99",
    "run of SELECT 1 ",
    "run of SELECT 1, p99",
    "run of an INSERT, fsync on",
    "launch + result of SELECT 1, cold",
    "launch + result of 1,000,000 rows",
    "launch + result of 200,000 rows of 1 kB",
    "run_query of 1,000,000 rows",
    "16 sessions, run of SELECT 1",
    "run of SELECT 1, 500 handles held",
    "memory of the session after",
    "waiting tasks that insert a row",
    "the same, synchronous_commit on",
    "enqueue in bulk",
    "from the commit of an enqueue to the run ",
    "from the commit of an enqueue to the run, p99",
    "tasks while 10,000 wait",
    "tasks after 5,000 under an old snapshot",
    "tasks while a limit holds 2,000 back",
    "tasks while a key holds 2,000 back",
    "wake-ups in a minute, no task due, one for tomorrow",
];

#[test]
fn all_rows_are_measured_and_written() {
    let directory = std::env::temp_dir().join(format!("pgbg-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(
        directory.join("performance.md"),
        "before\n<!-- made by make bench: begin -->\nold\n<!-- made by make bench: end -->\nbetween\n\
         <!-- made by make bench, tasks: begin -->\nold\n<!-- made by make bench, tasks: end -->\nafter\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pg_background_bench"))
        .env("BENCH_QUICK", "1")
        .env("BENCH_OUT", &directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let page = fs::read_to_string(directory.join("performance.md")).unwrap();
    let plot = fs::read_to_string(directory.join("performance.svg")).unwrap();
    fs::remove_dir_all(&directory).unwrap();

    for row in ROWS {
        assert!(text.contains(row), "{row} is not measured:\n{text}");
        assert!(page.contains(&format!("| {row}")), "{row} is not in the table:\n{page}");
    }
    assert!(
        page.starts_with("before\n") && page.contains("\nbetween\n") && page.ends_with("\nafter\n"),
        "{page}"
    );
    assert!(!page.contains("\nold\n"), "{page}");
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"), "{plot}");
    assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
}
