//! Connection strings as libpq reads them: `name=value …` or a URI.

use std::collections::BTreeMap;

/// Connection parameters by libpq's names. Of a URI or a string with several hosts, `host` and `port` are lists with commas.
pub type Parameters = BTreeMap<String, String>;

/// The parameters that the program acts on.
const KNOWN: [&str; 26] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "servicefile",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Those of libpq that make no difference here.
const IGNORED: [&str; 8] = [
    "client_encoding",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "load_balance_hosts",
    "replication",
    "sslcompression",
    "sslsni",
];

/// Adds a parameter. Returns an error for one that libpq does not have, or that would be required and cannot be kept.
pub fn insert(parameters: &mut Parameters, name: &str, value: &str) -> Result<(), String> {
    let name = match name {
        "ssl" if value == "true" => return insert(parameters, "sslmode", "require"),
        "requiressl" if value == "1" => return insert(parameters, "sslmode", "require"),
        name => name,
    };
    if KNOWN.contains(&name) {
        parameters.insert(name.to_owned(), value.to_owned());
        return Ok(());
    }
    if IGNORED.contains(&name) || (name == "gssencmode" && value != "require") {
        return Ok(());
    }
    match name {
        "gssencmode"
        | "requirepeer"
        | "require_auth"
        | "sslcrl"
        | "sslcrldir"
        | "sslcertmode"
        | "ssl_min_protocol_version"
        | "ssl_max_protocol_version"
        | "min_protocol_version"
        | "max_protocol_version" => Err(format!("connection option \"{name}\" is not supported")),
        _ => Err(format!("invalid connection option \"{name}\"")),
    }
}

/// Whether a database's name is a connection string.
pub fn is_conninfo(text: &str) -> bool {
    is_uri(text) || text.contains('=')
}

fn is_uri(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// Parses either form.
pub fn parse(text: &str) -> Result<Parameters, String> {
    if is_uri(text) {
        parse_uri(text)
    } else {
        parse_pairs(text)
    }
}

fn parse_pairs(text: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c.is_ascii_whitespace())
            .unwrap_or(rest.len());
        let name = &rest[..end];
        rest = rest[end..]
            .trim_start()
            .strip_prefix('=')
            .ok_or_else(|| format!("missing \"=\" after \"{name}\" in connection string"))?;
        rest = rest.trim_start();
        let quoted = rest.starts_with('\'');
        let mut characters = rest.char_indices().skip(usize::from(quoted));
        let mut value = String::new();
        let mut end = rest.len();
        let mut closed = !quoted;
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => value.extend(characters.next().map(|(_, c)| c)),
                '\'' if quoted => {
                    end = at + 1;
                    closed = true;
                    break;
                }
                c if !quoted && c.is_ascii_whitespace() => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        if !closed {
            return Err("unterminated quoted string in connection string".to_owned());
        }
        insert(&mut parameters, name, &value)?;
        rest = rest[end..].trim_start();
    }
    Ok(parameters)
}

fn parse_uri(uri: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::new();
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = match authority.split_once('@') {
        Some((user, hosts)) => {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            for (name, value) in [("user", user), ("password", password)] {
                if !value.is_empty() {
                    insert(&mut parameters, name, &decode(value)?)?;
                }
            }
            hosts
        }
        None => authority,
    };
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(address) => {
                let (name, after) = address
                    .split_once(']')
                    .ok_or("end of string reached when looking for matching \"]\" in IPv6 host address in URI")?;
                match after.strip_prefix(':') {
                    Some(port) => (name, port),
                    None if after.is_empty() => (name, ""),
                    None => return Err(format!("unexpected \"{after}\" after the host \"[{name}]\" in URI")),
                }
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    for (name, list) in [("host", names), ("port", ports)] {
        if list.iter().any(|item| !item.is_empty()) {
            insert(&mut parameters, name, &list.join(","))?;
        }
    }
    if !database.is_empty() {
        insert(&mut parameters, "dbname", &decode(database)?)?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("missing key/value separator \"=\" in URI query parameter: \"{pair}\""))?;
        insert(&mut parameters, &decode(name)?, &decode(value)?)?;
    }
    Ok(parameters)
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits
            .filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|two| u8::from_str_radix(two, 16).ok())
        {
            Some(0) => return Err(format!("forbidden value %00 in percent-encoded value: \"{text}\"")),
            Some(value) => bytes.push(value),
            None => return Err(format!("invalid percent-encoded token: \"{text}\"")),
        }
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("\"{text}\" in URI is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Parameters = expected
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn pairs() {
        check("", &[]);
        check(
            "host=a port = 5433  dbname=''",
            &[("host", "a"), ("port", "5433"), ("dbname", "")],
        );
        check(
            r"password='it\'s \\ x' user=a\ b",
            &[("password", r"it's \ x"), ("user", "a b")],
        );
        check("user=é dbname='ü x'", &[("user", "é"), ("dbname", "ü x")]);
        for (wrong, message) in [
            ("host", "missing \"=\""),
            ("host a=b", "missing \"=\""),
            ("host='a", "unterminated"),
            ("hots=a", "invalid connection option \"hots\""),
            ("sslcrl=a", "not supported"),
        ] {
            assert!(parse(wrong).unwrap_err().contains(message), "{wrong}");
        }
    }

    #[test]
    fn uris() {
        check("postgresql://", &[]);
        check("postgres://h", &[("host", "h")]);
        check(
            "postgresql://u%20x:p%40@h:5433/d%2Fb?sslmode=require&connect_timeout=3",
            &[
                ("user", "u x"),
                ("password", "p@"),
                ("host", "h"),
                ("port", "5433"),
                ("dbname", "d/b"),
                ("sslmode", "require"),
                ("connect_timeout", "3"),
            ],
        );
        check("postgresql://[::1]:5/", &[("host", "::1"), ("port", "5")]);
        check(
            "postgresql://a:1,b/x",
            &[("host", "a,b"), ("port", "1,"), ("dbname", "x")],
        );
        check(
            "postgresql:///x?host=/run/pg&ssl=true",
            &[("host", "/run/pg"), ("dbname", "x"), ("sslmode", "require")],
        );
        check("postgresql://%2Frun%2Fpg/x", &[("host", "/run/pg"), ("dbname", "x")]);
        for wrong in [
            "postgresql://[::1",
            "postgresql://[::1]x",
            "postgresql://a%2",
            "postgresql://a%zz",
            "postgresql://a%00",
            "postgres://h?x",
            "postgres://h?x=1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
