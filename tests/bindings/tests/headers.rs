//! All declarations made by hand in `src/pg` agree with the headers of the server in use.

use bindings::Program;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn pg_config(option: &str) -> String {
    let program = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned());
    let output = Command::new(&program).arg(option).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns the declarations that do not agree with the headers.
fn differences(program: &Program) -> Vec<String> {
    let includes = pg_config("--includedir-server");
    let mut compiler = Command::new("c++")
        .args([
            "-std=c++14",
            "-fsyntax-only",
            "-w",
            "-fmax-errors=0",
            "-x",
            "c++",
            "-D_GNU_SOURCE",
            "-",
        ])
        .arg(format!("-I{includes}"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a C++ compiler is installed as c++");
    compiler
        .stdin
        .take()
        .unwrap()
        .write_all(program.text().as_bytes())
        .unwrap();
    let output = compiler.wait_with_output().unwrap();
    let mut messages: Vec<_> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains("error"))
        .map(str::to_owned)
        .collect();
    // Further errors in a line follow from the first one.
    messages.dedup_by_key(|message| message.split(':').nth(1).map(str::to_owned));
    assert_eq!(output.status.success(), messages.is_empty());
    messages
}

fn major() -> u32 {
    let version = pg_config("--version");
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap()
}

#[test]
fn declarations_are_those_of_the_headers() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/pg");
    let mut program = Program::new(major());
    let mut folders = vec![sources];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            program.add(&name, &std::fs::read_to_string(&path).unwrap()).unwrap();
        }
    }
    assert!(program.len() > 150, "only {} declarations found", program.len());
    let differences = differences(&program);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Tests the check itself: it finds each kind of mistake, and accepts correct declarations.
#[test]
fn mistakes_are_found() {
    let source = |body: &str| {
        let mut program = Program::new(15);
        program
            .add(
                "source",
                &format!("// utils/palloc.h, utils/portal.h, utils/timeout.h, libpq/libpq.h\n{body}"),
            )
            .unwrap();
        assert!(!program.is_empty());
        differences(&program).len()
    };
    let foreign = |item: &str| source(&format!("unsafe extern \"C-unwind\" {{ {item} }}"));
    assert_eq!(foreign("fn palloc(size: usize) -> *mut c_void;"), 0);
    assert_eq!(source("may_raise! { fn palloc(size: c_int) -> *mut c_void; }"), 1);
    assert_eq!(
        foreign("fn palloc(size: c_int) -> *mut c_void;"),
        1,
        "a parameter's type"
    );
    assert_eq!(foreign("fn palloc(size: usize);"), 1, "the result");
    assert_eq!(
        foreign("fn palloc(size: usize, zero: bool) -> *mut c_void;"),
        1,
        "one too many"
    );
    assert_eq!(
        foreign("#[cfg(not(since_15))] fn palloc(); fn pfree(p: *mut c_void);"),
        0,
        "another version's"
    );
    assert_eq!(foreign("#[cfg(since_15)] fn palloc();"), 1, "this version's");
    assert_eq!(foreign("fn PortalDrop(portal: Portal, top: bool);"), 0);
    assert_eq!(
        foreign("fn PortalDrop(portal: *mut Portal, top: bool);"),
        1,
        "one pointer more"
    );
    assert_eq!(foreign("static mut PqCommMethods: *const PQcommMethods;"), 0);
    assert_eq!(
        foreign("static mut PqCommMethods: PQcommMethods;"),
        1,
        "a variable's type"
    );
    assert_eq!(
        source("/// `STATEMENT_TIMEOUT` of `utils/timeout.h`.\nconst A: u32 = 3;"),
        0
    );
    assert_eq!(
        source("/// `STATEMENT_TIMEOUT` of `utils/timeout.h`.\nconst A: u32 = 4;"),
        1,
        "a constant"
    );
    assert_eq!(
        source("/// At or above `STATEMENT_TIMEOUT` of `utils/timeout.h`.\nconst A: u32 = 2;"),
        1
    );
    assert_eq!(source("// catalog/pg_type_d.h\nconst TEXT: u32 = 25;"), 0);
    assert_eq!(
        source("// catalog/pg_type_d.h\nconst TEXT: u32 = 26;"),
        1,
        "a type's number"
    );
    let methods = "/// `PQcommMethods` of `libpq/libpq.h`.\nstruct Methods { FIRST: extern \"C\" fn(), flush: extern \"C\" fn() -> c_int, \
        flush_if_writable: extern \"C\" fn() -> c_int, is_send_pending: extern \"C\" fn() -> bool, \
        putmessage: extern \"C\" fn(c_char, *const c_char, usize) -> c_int, LAST }";
    let last = "putmessage_noblock: extern \"C\" fn(c_char, *const c_char, usize)";
    let methods = |first: &str, last: &str| source(&methods.replace("FIRST", first).replace("LAST", last));
    assert_eq!(methods("comm_reset", last), 0);
    assert!(methods("another", last) > 0, "a field's name");
    assert!(methods("comm_reset", "") > 0, "a field too few");
    assert!(
        methods("comm_reset", &last.replace("usize", "i16")) > 0,
        "a field's type"
    );
}
