//! Runs the whole benchmark, with few executions for each row, and checks that it writes its table and its plot.

use std::fs;
use std::process::Command;

const ROWS: [&str; 12] = [
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
];

#[test]
fn all_rows_are_measured_and_written() {
    let directory = std::env::temp_dir().join(format!("pgbg-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(
        directory.join("performance.md"),
        "before\n<!-- made by make bench: begin -->\nold\n<!-- made by make bench: end -->\nafter\n",
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
    assert!(page.starts_with("before\n") && page.ends_with("\nafter\n"), "{page}");
    assert!(!page.contains("\nold\n"), "{page}");
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"), "{plot}");
    assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
}
