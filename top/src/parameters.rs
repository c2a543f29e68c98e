//! The parameters of a connection as libpq completes them: from the service, the environment and the defaults.

use std::path::{Path, PathBuf};

use crate::conninfo::{Parameters, insert};
use crate::files;

/// The environment variable of each parameter.
const ENVIRONMENT: [(&str, &str); 18] = [
    ("PGAPPNAME", "application_name"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGDATABASE", "dbname"),
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGOPTIONS", "options"),
    ("PGPASSFILE", "passfile"),
    ("PGPASSWORD", "password"),
    ("PGPORT", "port"),
    ("PGSERVICE", "service"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGUSER", "user"),
];

/// Where sockets are: the directories of Debian's and Red Hat's packages, and of PostgreSQL itself.
pub const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// Where a service file of the whole system may be.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"];

/// A lookup of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Completes what the command line says with the service, then the environment, then the defaults.
pub fn complete(mut parameters: Parameters, environment: Environment) -> Result<Parameters, String> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(name) = parameters.get("service").cloned().or_else(|| variable("PGSERVICE")) {
        let file = parameters
            .get("servicefile")
            .cloned()
            .or_else(|| variable("PGSERVICEFILE"));
        for (key, value) in service(&name, file, &variable)? {
            parameters.entry(key).or_insert(value);
        }
    }
    for (name, key) in ENVIRONMENT {
        if let (Some(value), false) = (variable(name), parameters.contains_key(key)) {
            insert(&mut parameters, key, &value)?;
        }
    }
    let mut default = |key: &str, value: String| {
        let entry = parameters.entry(key.to_owned()).or_default();
        if entry.is_empty() {
            *entry = value;
        }
        entry.clone()
    };
    let user = default("user", whoami::username().unwrap_or_default());
    default("dbname", user);
    default("application_name", "pg_background_top".to_owned());
    Ok(parameters)
}

fn service(name: &str, file: Option<String>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Parameters, String> {
    let own = match file {
        Some(file) => Some(PathBuf::from(file)),
        None => home(variable).map(|home| home.join(".pg_service.conf")),
    };
    let system = match variable("PGSYSCONFDIR") {
        Some(directory) => vec![PathBuf::from(directory)],
        None => SYSTEM_DIRECTORIES.iter().map(PathBuf::from).collect(),
    };
    for file in own
        .into_iter()
        .chain(system.into_iter().map(|directory| directory.join("pg_service.conf")))
    {
        if let Some(parameters) = files::service(&file, name)? {
            return Ok(parameters);
        }
    }
    Err(format!("definition of service \"{name}\" not found"))
}

/// The user's directory.
pub fn home(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from)
}

/// One server of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub address: String,
    pub port: String,
}

impl Server {
    pub fn is_socket(&self) -> bool {
        self.address.is_empty() && (self.host.starts_with('/') || self.host.starts_with('@'))
    }
}

/// The servers that `host`, `hostaddr` and `port` name.
pub fn servers(parameters: &Parameters) -> Result<Vec<Server>, String> {
    let list = |key: &str| -> Vec<String> {
        let text = parameters.get(key).map_or("", String::as_str);
        if text.is_empty() {
            Vec::new()
        } else {
            text.split(',').map(str::to_owned).collect()
        }
    };
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(format!(
            "could not match {} host names to {} hostaddr values",
            hosts.len(),
            addresses.len()
        ));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(format!("could not match {} port numbers to {count} hosts", ports.len()));
    }
    (0..count)
        .map(|n| {
            let of = |list: &[String]| list.get(n).cloned().unwrap_or_default();
            let mut port = if ports.len() == 1 { ports[0].clone() } else { of(&ports) };
            if port.is_empty() {
                port = "5432".to_owned();
            }
            if !port.parse::<u16>().is_ok_and(|number| number > 0) {
                return Err(format!("invalid port number: \"{port}\""));
            }
            let (mut host, address) = (of(&hosts), of(&addresses));
            if host.is_empty() && address.is_empty() {
                host = default_host(&port);
            }
            Ok(Server { host, address, port })
        })
        .collect()
}

fn default_host(port: &str) -> String {
    let has_socket = |directory: &&&str| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists();
    (*SOCKET_DIRECTORIES.iter().find(has_socket).unwrap_or(&"localhost")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_command_line_precedes_the_service_and_that_the_environment() {
        let directory = std::env::temp_dir().join(format!("pg_background_top.service.{}", std::process::id()));
        std::fs::write(&directory, "[s]\nhost=service\nuser=service\n").unwrap();
        let file = directory.to_str().unwrap().to_owned();
        let environment = move |name: &str| match name {
            "PGSERVICE" => Some("s".to_owned()),
            "PGSERVICEFILE" => Some(file.clone()),
            "PGUSER" | "PGHOST" | "PGPORT" | "PGPASSWORD" => Some("7".to_owned()),
            "PGOPTIONS" => Some(String::new()),
            _ => None,
        };
        let answer = complete(parameters(&[("host", "line")]), &environment);
        std::fs::remove_file(&directory).unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer["host"], "line");
        assert_eq!(answer["user"], "service");
        assert_eq!(answer["dbname"], "service");
        assert_eq!((answer["port"].as_str(), answer["password"].as_str()), ("7", "7"));
        assert!(!answer.contains_key("options"));
        let unknown = complete(parameters(&[("service", "x"), ("servicefile", "/nowhere")]), &|_| None);
        assert_eq!(unknown.unwrap_err(), "definition of service \"x\" not found");
    }

    #[test]
    fn hosts_and_ports_are_matched() {
        let of = |pairs: &[(&str, &str)]| {
            servers(&parameters(pairs)).map(|list| {
                list.into_iter()
                    .map(|server| format!("{}/{}/{}", server.host, server.address, server.port))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(of(&[("host", "a,b"), ("port", "1,2")]).unwrap(), ["a//1", "b//2"]);
        assert_eq!(of(&[("host", "a,b"), ("port", "3")]).unwrap(), ["a//3", "b//3"]);
        assert_eq!(of(&[("host", "a,b"), ("port", ",2")]).unwrap(), ["a//5432", "b//2"]);
        assert_eq!(of(&[("host", "a"), ("hostaddr", "::1")]).unwrap(), ["a/::1/5432"]);
        for wrong in [
            [("host", "a,b"), ("port", "1,2,3")],
            [("host", "a,b"), ("hostaddr", "::1")],
            [("host", "a"), ("port", "0")],
            [("host", "a"), ("port", "65536")],
        ] {
            assert!(of(&wrong).is_err(), "{wrong:?}");
        }
    }
}
