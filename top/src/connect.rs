//! From what the user said to a connection: the parameters as libpq completes them, then host after host.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};
use postgres::{Client, Config};

use crate::args::Ask;
use crate::conninfo::{Parameters, insert};
use crate::{files, tls};

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
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
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

fn home(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
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
    fn is_socket(&self) -> bool {
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

/// Everything that a connection needs, also the next one after this one is lost.
pub struct Connector {
    parameters: Parameters,
    servers: Vec<Server>,
    home: Option<PathBuf>,
    /// What the user typed.
    typed: Option<String>,
    /// The server of the last connection.
    chosen: AtomicUsize,
}

/// Why there is no connection.
pub struct Failure {
    pub message: String,
    /// Whether another password may help.
    pub wants_password: bool,
    /// Whether another `sslmode` cannot help.
    settled: bool,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self {
            message,
            wants_password: false,
            settled: true,
        }
    }
}

impl Connector {
    pub fn new(parameters: Parameters, environment: Environment) -> Result<Self, String> {
        let parameters = complete(parameters, environment)?;
        let servers = servers(&parameters)?;
        let home = home(&|name| environment(name).filter(|value| !value.is_empty()));
        Ok(Self {
            parameters,
            servers,
            home,
            typed: None,
            chosen: AtomicUsize::new(0),
        })
    }

    /// Connects, and asks for a password if that is wanted or needed.
    pub fn connect_asking(&mut self, ask: Ask) -> Result<Client, String> {
        let prompt = format!("Password for user {}: ", self.parameters["user"]);
        if ask == Ask::Always {
            self.typed = Some(crate::terminal::read_password(&prompt)?);
        }
        match self.connect() {
            Err(failure) if failure.wants_password && ask == Ask::IfNeeded => {
                self.typed = Some(crate::terminal::read_password(&prompt).map_err(|_| failure.message)?);
                self.connect().map_err(|failure| failure.message)
            }
            answer => answer.map_err(|failure| failure.message),
        }
    }

    /// Connects to the first of the servers that accepts.
    pub fn connect(&self) -> Result<Client, Failure> {
        let mut failures = Vec::new();
        let mut wants_password = false;
        let kinds: &[&str] = match self.get("target_session_attrs") {
            Some("prefer-standby") => &["standby", "any"],
            Some(kind) => &[kind],
            None => &["any"],
        };
        let candidates = kinds
            .iter()
            .flat_map(|kind| self.servers.iter().enumerate().map(move |server| (kind, server)));
        for (kind, (n, server)) in candidates {
            match self.connect_to(server, kind) {
                Ok(client) => {
                    self.chosen.store(n, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(failure) => {
                    wants_password |= failure.wants_password;
                    let place = if server.host.is_empty() {
                        &server.address
                    } else {
                        &server.host
                    };
                    failures.push(format!(
                        "connection to server at \"{place}\", port {} failed: {}",
                        server.port, failure.message
                    ));
                }
            }
        }
        failures.dedup();
        Err(Failure {
            message: failures.join("\n"),
            wants_password,
            settled: true,
        })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.parameters
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn connect_to(&self, server: &Server, kind: &str) -> Result<Client, Failure> {
        let (password, warning) = self.password(server);
        let mode = if server.is_socket() {
            "disable"
        } else {
            self.get("sslmode").unwrap_or("prefer")
        };
        let attempts: &[SslMode] = match mode {
            "disable" => &[SslMode::Disable],
            "allow" => &[SslMode::Disable, SslMode::Require],
            "prefer" => &[SslMode::Prefer, SslMode::Disable],
            "require" | "verify-ca" | "verify-full" => &[SslMode::Require],
            _ => return Err(format!("invalid sslmode value: \"{mode}\"").into()),
        };
        let mut config = self.config(server, kind)?;
        if let Some(password) = &password {
            config.password(password);
        }
        let mut failures = Vec::new();
        let mut answer = Err(Failure::from(String::new()));
        for attempt in attempts {
            config.ssl_mode(*attempt);
            answer = match attempt {
                SslMode::Disable => config.connect(postgres::NoTls),
                _ => config.connect(tls::connector(mode, &self.parameters, self.home.as_deref())?),
            }
            .map_err(|error| {
                let code = error.code().map(postgres::error::SqlState::code);
                let missing = describe(&error).contains("password missing");
                let mut message = if missing {
                    "fe_sendauth: no password supplied".to_owned()
                } else {
                    describe(&error)
                };
                if let (Some(warning), true) = (&warning, missing || code == Some("28P01")) {
                    message = format!("{message}\n{warning}");
                }
                // An error of the server that TLS has nothing to do with.
                let settled = missing || (code.is_some() && code != Some("28000"));
                Failure {
                    message,
                    wants_password: missing,
                    settled,
                }
            });
            match &mut answer {
                Err(failure) => {
                    failures.push(failure.message.clone());
                    failures.dedup();
                    failure.message = failures.join("\n");
                    if failure.settled {
                        break;
                    }
                }
                Ok(_) => break,
            }
        }
        answer
    }

    /// The password for a server, and why a password file was not used.
    fn password(&self, server: &Server) -> (Option<String>, Option<String>) {
        if let Some(password) = self.typed.clone().or_else(|| self.get("password").map(str::to_owned)) {
            return (Some(password), None);
        }
        let file = match (self.get("passfile"), &self.home) {
            (Some(file), _) => PathBuf::from(file),
            (None, Some(home)) => home.join(".pgpass"),
            (None, None) => return (None, None),
        };
        let default_socket = SOCKET_DIRECTORIES.contains(&server.host.as_str());
        let host = match server.host.as_str() {
            "" => &server.address,
            _ if default_socket => "localhost",
            host => host,
        };
        match files::password(
            &file,
            host,
            &server.port,
            &self.parameters["dbname"],
            &self.parameters["user"],
        ) {
            Ok(password) => (password, None),
            Err(warning) => (None, Some(warning)),
        }
    }

    fn config(&self, server: &Server, kind: &str) -> Result<Config, String> {
        let mut config = Config::new();
        if !server.host.is_empty() {
            config.host(&server.host);
        }
        if !server.address.is_empty() {
            config.hostaddr(
                server
                    .address
                    .parse()
                    .map_err(|_| format!("could not parse network address \"{}\"", server.address))?,
            );
        }
        config.port(server.port.parse().unwrap_or(5432));
        config.user(&self.parameters["user"]).dbname(&self.parameters["dbname"]);
        if let Some(name) = self
            .get("application_name")
            .or_else(|| self.get("fallback_application_name"))
        {
            config.application_name(name);
        }
        if let Some(options) = self.get("options") {
            config.options(options);
        }
        let seconds = |key: &str, default: u64| -> Result<u64, String> {
            match self.get(key) {
                Some(text) => {
                    let number: i64 = text
                        .trim()
                        .parse()
                        .map_err(|_| format!("invalid integer value \"{text}\" for connection option \"{key}\""))?;
                    Ok(u64::try_from(number).unwrap_or(0))
                }
                None => Ok(default),
            }
        };
        let timeout = seconds("connect_timeout", 0)?;
        if timeout > 0 {
            // As in libpq, which never waits for less than two seconds.
            config.connect_timeout(Duration::from_secs(timeout.max(2)));
        }
        // A server that is gone without a word is noticed within a minute.
        config.keepalives(seconds("keepalives", 1)? != 0);
        config.keepalives_idle(Duration::from_secs(seconds("keepalives_idle", 30)?.max(1)));
        config.keepalives_interval(Duration::from_secs(seconds("keepalives_interval", 10)?.max(1)));
        config.keepalives_retries(u32::try_from(seconds("keepalives_count", 3)?.max(1)).unwrap_or(3));
        config.tcp_user_timeout(Duration::from_millis(seconds("tcp_user_timeout", 30_000)?));
        let choice = |key: &str| self.get(key).unwrap_or_default();
        let invalid = |key: &str| format!("invalid {key} value: \"{}\"", choice(key));
        config.target_session_attrs(match kind {
            "any" => TargetSessionAttrs::Any,
            "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
            "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
            _ => return Err(invalid("target_session_attrs")),
        });
        config.channel_binding(match choice("channel_binding") {
            "" | "prefer" => ChannelBinding::Prefer,
            "disable" => ChannelBinding::Disable,
            "require" => ChannelBinding::Require,
            _ => return Err(invalid("channel_binding")),
        });
        config.ssl_negotiation(match choice("sslnegotiation") {
            "" | "postgres" => SslNegotiation::Postgres,
            "direct" => SslNegotiation::Direct,
            _ => return Err(invalid("sslnegotiation")),
        });
        Ok(config)
    }

    /// Where the connection goes, for the screen.
    pub fn place(&self) -> String {
        let server = &self.servers[self.chosen.load(Ordering::Relaxed)];
        let host = if server.host.is_empty() {
            &server.address
        } else {
            &server.host
        };
        format!("{host}:{}", server.port)
    }
}

/// An error in one line: the server's message with its SQLSTATE, or what failed and why.
pub fn describe(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let more = error
            .detail()
            .or(error.hint())
            .map_or(String::new(), |text| format!(" ({text})"));
        return format!(
            "{}: {} {}{more}",
            error.severity(),
            error.code().code(),
            error.message()
        );
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
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
