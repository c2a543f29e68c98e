//! The shared library as a file: what it exports, what it needs, and the version in which all files agree.

use harness::{Cluster, pg_config};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// The C symbols that a catalog of 2.0 refers to, without `pg_background_`: those that have a `_v2` twin, and those without.
const WITH_TWIN: &str = "launch submit result detach cancel wait list stats get_progress result_info error_info detach_all \
    cancel_all full_sql";
const WITHOUT_TWIN: &str = "record_timeout report_progress";

/// The names that PostgreSQL looks up without a catalog: the module's magic, its initialization, and the main functions of workers.
const NAMED_BY_THE_SERVER: [&str; 5] = [
    "Pg_magic_func",
    "_PG_init",
    "pg_background_worker_main",
    "pg_background_spare_worker_main",
    "pg_background_clock_main",
];

fn library() -> PathBuf {
    PathBuf::from(pg_config("pkglibdir")).join("pg_background.so")
}

/// Returns the lines that a program of binutils prints about the library.
#[track_caller]
fn lines_of(program: &str, options: &[&str]) -> Vec<String> {
    let output = Command::new(program)
        .args(options)
        .arg(library())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    assert!(output.status.success(), "{program} failed on {:?}", library());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn exported() -> BTreeSet<String> {
    let name = |line: &String| line.split_whitespace().next().unwrap().to_owned();
    lines_of("nm", &["--dynamic", "--defined-only", "--format=posix"])
        .iter()
        .map(name)
        .collect()
}

#[test]
fn exports_what_the_server_looks_up_and_no_more() {
    let cluster = Cluster::start(&[]);
    cluster.session().exec("CREATE EXTENSION pg_background_tasks");
    let called: Vec<String> = cluster
        .session()
        .rows("SELECT DISTINCT prosrc FROM pg_proc WHERE probin = '$libdir/pg_background'")
        .iter()
        .map(|row| row[0].clone().expect("a name"))
        .collect();
    let records = called.iter().map(|name| format!("pg_finfo_{name}"));
    let expected = records
        .chain(called.iter().cloned())
        .chain(NAMED_BY_THE_SERVER.map(str::to_owned))
        .collect();
    assert_eq!(exported(), expected);
}

#[test]
fn has_each_symbol_that_a_catalog_of_2_0_names() {
    let exported = exported();
    let names = WITH_TWIN.split_whitespace().chain(WITHOUT_TWIN.split_whitespace());
    let twins = WITH_TWIN.split_whitespace().map(|name| format!("{name}_v2"));
    for name in names.map(str::to_owned).chain(twins) {
        for symbol in [
            format!("pg_background_{name}"),
            format!("pg_finfo_pg_background_{name}"),
        ] {
            assert!(exported.contains(&symbol), "{symbol}");
        }
    }
}

/// Any other library would have to be installed, found and loaded with it.
#[test]
fn needs_only_what_each_server_has_loaded() {
    let needed: Vec<_> = lines_of("readelf", &["--dynamic", "--wide"])
        .into_iter()
        .filter(|line| line.contains("(NEEDED)"))
        .collect();
    assert!(!needed.is_empty());
    for line in needed {
        assert!(
            ["[libc.so.6]", "[libgcc_s.so.1]", "[ld-linux-"]
                .iter()
                .any(|known| line.contains(known)),
            "{line}"
        );
    }
}

#[test]
fn is_stripped() {
    let sections = lines_of("readelf", &["--sections", "--wide"]).join("\n");
    assert!(sections.contains(".dynsym"), "{sections}");
    assert!(
        !sections.contains(".symtab") && !sections.contains(".debug_"),
        "{sections}"
    );
}

/// Every file that names a version names that of Cargo.toml.
#[test]
fn every_file_names_the_same_version() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let after = |text: &str, mark: &str| -> String {
        let found = text.split_once(mark).unwrap_or_else(|| panic!("no {mark}")).1;
        found.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
    };
    let version = after(&read("Cargo.toml"), "\nversion = \"");
    let (extension, _) = version.rsplit_once('.').unwrap();
    assert_eq!(after(&read("pg_background.control"), "default_version = '"), extension);
    assert_eq!(
        after(&read("pg_background_tasks.control"), "default_version = '"),
        extension
    );
    assert_eq!(after(&read("src/lib.rs"), ", version = c\""), extension);
    assert_eq!(after(&read("CHANGELOG.md"), "\n## "), extension);
    assert!(root.join(format!("sql/pg_background--{extension}.sql")).exists());
    assert!(root.join(format!("sql/pg_background_tasks--{extension}.sql")).exists());
    let meta = read("META.json");
    assert_eq!(
        meta.matches(&format!("\"version\": \"{version}\"")).count(),
        3,
        "META.json names the distribution and both extensions"
    );
}
