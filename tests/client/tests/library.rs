//! The shared library as a file: what it exports, what it needs, and the version in which all files agree.

use harness::{Cluster, pg_config};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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
    let read = |name: &str| read(&root().join(name));
    let version = after(&read("Cargo.toml"), "\nversion = \"");
    let (extension, _) = version.rsplit_once('.').unwrap();
    assert_eq!(after(&read("src/lib.rs"), ", version = c\""), extension);
    assert_eq!(after(&read("CHANGELOG.md"), "\n## "), extension);
    for name in EXTENSIONS {
        assert_eq!(
            after(&read(&format!("{name}.control")), "default_version = '"),
            extension
        );
    }
    let meta = read("META.json");
    assert_eq!(
        meta.matches(&format!("\"version\": \"{version}\"")).count(),
        1 + EXTENSIONS.len(),
        "META.json names the distribution and both extensions"
    );
    // The crates: the extension for each pgrx, and the programs. What is never installed has no version.
    let manifests = files_below(&root(), &|file| file.ends_with("Cargo.toml"));
    let mut versions: Vec<_> = manifests
        .iter()
        .map(|file| after(&self::read(file), "\nversion = \""))
        .collect();
    versions.retain(|of_crate| of_crate != "0.0.0");
    assert!(
        versions.len() > 1 && versions.iter().all(|of_crate| *of_crate == version),
        "{versions:?}"
    );
    for lock in ["Cargo.lock", "pg19/Cargo.lock"] {
        assert_eq!(after(&read(lock), "\nname = \"pg_background\"\nversion = \""), version);
    }
    // The names of packages in README and the pages: pg_background_NN-VERSION-1, postgresql-NN-pg-background_VERSION-1.
    let mut named = 0;
    for page in files_below(&root(), &|file| {
        file.extension().is_some_and(|extension| extension == "md")
    }) {
        let text = self::read(&page);
        for word in text
            .split_whitespace()
            .filter(|word| word.ends_with(".rpm") || word.ends_with(".deb"))
            .filter(|word| !word.contains('*'))
        {
            assert!(word.contains(&format!("{version}-1")), "{}: {word}", page.display());
            named += 1;
        }
    }
    assert!(named >= 2, "README names the packages");
}

/// The files that META.json, and so PGXN, refers to are there.
#[test]
fn the_entry_for_pgxn_names_files() {
    let meta = read(&root().join("META.json"));
    for extension in EXTENSIONS {
        assert!(
            meta.contains(&format!("\"{extension}\": {{")),
            "META.json has no {extension}"
        );
    }
    let paths = meta.lines().filter_map(|line| {
        let (_, path) = line.split_once("file\": \"")?;
        path.split_once('"').map(|(path, _)| path)
    });
    let missing: Vec<_> = paths.clone().filter(|path| !root().join(path).is_file()).collect();
    assert_eq!(paths.count(), 2 * EXTENSIONS.len());
    assert!(missing.is_empty(), "{missing:?}");
}

/// The files that say which major versions of PostgreSQL are supported agree with the features of the crates.
#[test]
fn every_file_names_the_same_servers() {
    let read = |name: &str| read(&root().join(name));
    let features: BTreeSet<u32> = (read("Cargo.toml") + &read("pg19/Cargo.toml"))
        .lines()
        .filter_map(|line| line.strip_prefix("pg")?.split_once(" = ")?.0.parse().ok())
        .collect();
    let (oldest, newest) = (features.first().unwrap(), features.last().unwrap());
    let numbers = |text: &str, mark: &str, end: &str| -> BTreeSet<u32> {
        let found = text.split_once(mark).unwrap_or_else(|| panic!("no {mark}")).1;
        let words = found
            .split_once(end)
            .unwrap()
            .0
            .split(|c: char| !c.is_ascii_alphanumeric());
        words.filter_map(|word| word.parse().ok()).collect()
    };
    // The last one of them is a server of the same major version with assertions.
    let of_makefile = numbers(&read("Makefile").replace("18-assertions", ""), "\nVERSIONS ?=", "\n");
    assert_eq!(of_makefile, features, "Makefile");
    let workflow = read(".github/workflows/ci.yml");
    let mut of_workflow = numbers(&workflow, "\n        pg: [", "]");
    of_workflow.insert(after(&workflow, "- { pg: ").parse().unwrap());
    assert_eq!(of_workflow, features, ".github/workflows/ci.yml");
    assert_eq!(after(&read("META.json"), "\"PostgreSQL\": \""), format!("{oldest}.0.0"));
    assert!(read("CHANGELOG.md").contains(&format!("PostgreSQL {oldest} to {newest}")));
}

const EXTENSIONS: [&str; 2] = ["pg_background", "pg_background_tasks"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Returns the number that follows a mark.
#[track_caller]
fn after(text: &str, mark: &str) -> String {
    let found = text.split_once(mark).unwrap_or_else(|| panic!("no {mark}")).1;
    found.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

/// The project's own files: without what is built, and without directories whose names begin with a dot.
fn files_below(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.path().is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            files.extend(files_below(&entry.path(), wanted));
        } else if wanted(&entry.path()) {
            files.push(entry.path());
        }
    }
    files
}
