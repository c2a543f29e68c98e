//! Names the server's version in `cfg(since_NN)`, and gives the build a number of its own: what two processes share in memory is laid out by the build, and a library can be
//! replaced while a server runs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::{env, fs};

/// The major versions of PostgreSQL that are supported.
const OLDEST: u32 = 14;
const NEWEST: u32 = 19;

fn main() {
    // The manifest of version 19 is in a directory of its own.
    let src = if Path::new("src").exists() { "src" } else { "../src" };
    let mut hasher = DefaultHasher::new();
    for path in [src, "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
        add(Path::new(path), &mut hasher);
    }
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_FEATURE_")) {
        name.hash(&mut hasher);
    }
    let major = (OLDEST..=NEWEST).find(|version| env::var_os(format!("CARGO_FEATURE_PG{version}")).is_some());
    for version in OLDEST..=NEWEST {
        println!("cargo::rustc-check-cfg=cfg(since_{version})");
        if major.is_some_and(|major| version <= major) {
            println!("cargo::rustc-cfg=since_{version}");
        }
    }
    println!("cargo::rustc-env=PG_BACKGROUND_BUILD={}", hasher.finish());
}

fn add(path: &Path, hasher: &mut DefaultHasher) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        entries.iter().for_each(|entry| add(entry, hasher));
    } else {
        path.to_string_lossy().hash(hasher);
        fs::read(path).unwrap_or_default().hash(hasher);
    }
}
