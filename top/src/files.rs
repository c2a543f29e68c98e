//! The files that libpq reads: services, and passwords.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::conninfo::{Parameters, insert};

/// The parameters of a service in one file. Returns None if the file is not there, or does not have it.
pub fn service(path: &Path, name: &str) -> Result<Option<Parameters>, String> {
    match fs::read_to_string(path) {
        Ok(text) => service_in(&text, name).map_err(|error| format!("service file \"{}\": {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("service file \"{}\": {error}", path.display())),
    }
}

fn service_in(text: &str, name: &str) -> Result<Option<Parameters>, String> {
    let mut found: Option<Parameters> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Parameters::new());
            }
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        let wrong = |what: String| format!("line {}: {what}", number + 1);
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("syntax error".to_owned()))?;
        if key == "service" {
            return Err(wrong("nested service specifications not supported".to_owned()));
        }
        // The first value of a name counts.
        if !parameters.contains_key(key) {
            insert(parameters, key, value).map_err(wrong)?;
        }
    }
    Ok(found)
}

/// The password for a connection from a password file. Returns None if the file is not there or has none; a warning if others may read it,
/// since then it is not used.
pub fn password(path: &Path, host: &str, port: &str, database: &str, user: &str) -> Result<Option<String>, String> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(None);
    };
    if !metadata.is_file() {
        return Err(format!("password file \"{}\" is not a plain file", path.display()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            path.display()
        ));
    }
    let Ok(bytes) = fs::read(path) else {
        return Ok(None);
    };
    Ok(password_in(
        &String::from_utf8_lossy(&bytes),
        [host, port, database, user],
    ))
}

fn password_in(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.strip_suffix('\r').unwrap_or(line);
        for value in wanted {
            let (field, after) = next_field(rest)?;
            if field.as_deref() != Some(value) && rest.get(..2) != Some("*:") {
                return None;
            }
            rest = after;
        }
        Some(unescape(rest))
    })
}

/// The first field of a line, without its escapes, and what follows its colon.
fn next_field(line: &str) -> Option<(Option<String>, &str)> {
    let mut escaped = false;
    let end = line.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((Some(unescape(&line[..end])), &line[end + 1..]))
}

fn unescape(text: &str) -> String {
    let mut characters = text.chars();
    let mut plain = String::new();
    while let Some(c) = characters.next() {
        plain.push(if c == '\\' {
            characters.next().unwrap_or('\\')
        } else {
            c
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a comment\n\
                        #:5432:*:*:no\n\
                        db.example:5432:app:ann:one\n\
                        db.example:*:*:ann:t\\:w\\\\o\n\
                        a\\:b:5432:*:*:three:and:more\r\n\
                        *:*:*:*:last\n";

    #[track_caller]
    fn check(wanted: [&str; 4], password: Option<&str>) {
        assert_eq!(password_in(FILE, wanted).as_deref(), password);
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        check(["db.example", "5432", "app", "ann"], Some("one"));
        check(["db.example", "5433", "app", "ann"], Some("t:w\\o"));
        check(["a:b", "5432", "x", "y"], Some("three:and:more"));
        check(["#", "5432", "x", "y"], Some("last"));
        assert_eq!(password_in("a:1:b:c", ["a", "1", "b", "c"]), None);
        assert_eq!(password_in("", ["a", "1", "b", "c"]), None);
        assert_eq!(password_in("\\*:1:b:c:x", ["z", "1", "b", "c"]), None);
    }

    #[test]
    fn a_password_file_that_others_may_read_is_not_used() {
        let path = std::env::temp_dir().join(format!("pg_background_top.{}", std::process::id()));
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        let mut answers = Vec::new();
        for mode in [0o600, 0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            answers.push(password(&path, "h", "1", "d", "u"));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(answers[0], Ok(Some("secret".to_owned())));
        assert!(answers[1].as_ref().unwrap_err().contains("group or world access"));
        assert!(answers[2].is_err());
        assert_eq!(password(&path, "h", "1", "d", "u"), Ok(None));
    }

    #[test]
    fn services() {
        let file = "# services\n[one]\nhost=a\nport=1\nhost=b\n\n[two]\n  dbname=x y\n[wrong]\nhots=a\n[nested]\nservice=one\n";
        let one = service_in(file, "one").unwrap().unwrap();
        assert_eq!(one["host"], "a");
        assert_eq!(one["port"], "1");
        assert_eq!(one.len(), 2);
        assert_eq!(service_in(file, "two").unwrap().unwrap()["dbname"], "x y");
        assert_eq!(service_in(file, "three"), Ok(None));
        assert!(
            service_in(file, "wrong")
                .unwrap_err()
                .contains("line 10: invalid connection option")
        );
        assert!(service_in(file, "nested").unwrap_err().contains("nested"));
        assert!(
            service_in("[a]\nhost\n", "a")
                .unwrap_err()
                .contains("line 2: syntax error")
        );
    }
}
