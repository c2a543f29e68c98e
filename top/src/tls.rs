//! TLS as libpq does it, by its `ssl…` parameters.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;

use crate::conninfo::Parameters;

/// A connector for an `sslmode` with TLS. `require` does not verify the server unless there is a root certificate, `verify-ca` does,
/// `verify-full` also compares the host's name.
pub fn connector(mode: &str, parameters: &Parameters, home: Option<&Path>) -> Result<MakeTlsConnector, String> {
    let failed = |error: ErrorStack| format!("could not set up TLS: {error}");
    let given = |key: &str| parameters.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = |name: &str| home.map(|home| home.join(".postgresql").join(name));
    // Without OpenSSL's default certificates: only those that the user names are trusted.
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed)?;
    let (verify, full) = match given("sslrootcert").or_else(|| own("root.crt")) {
        Some(path) if path.as_os_str() == "system" => {
            if mode != "verify-full" {
                return Err(format!(
                    "weak sslmode \"{mode}\" may not be used with sslrootcert=system (use \"verify-full\")"
                ));
            }
            (true, true)
        }
        root => {
            let store = openssl::x509::store::X509StoreBuilder::new().map_err(failed)?;
            builder.set_cert_store(store.build());
            match root.filter(|path| path.exists()) {
                Some(path) => {
                    builder.set_ca_file(&path).map_err(|error| {
                        format!("could not read root certificate file \"{}\": {error}", path.display())
                    })?;
                    (mode != "prefer" && mode != "allow", mode == "verify-full")
                }
                None if mode.starts_with("verify") => {
                    return Err("root certificate file does not exist: give sslrootcert, or change sslmode to disable verification".to_owned());
                }
                None => (false, false),
            }
        }
    };
    builder.set_verify(if verify {
        SslVerifyMode::PEER
    } else {
        SslVerifyMode::NONE
    });
    if let Some(certificate) = given("sslcert")
        .or_else(|| own("postgresql.crt"))
        .filter(|path| path.exists())
    {
        let key = given("sslkey").or_else(|| own("postgresql.key")).unwrap_or_default();
        check_key(&key)?;
        builder
            .set_certificate_chain_file(&certificate)
            .map_err(|error| format!("could not read certificate file \"{}\": {error}", certificate.display()))?;
        let unread = |error: String| format!("could not load private key file \"{}\": {error}", key.display());
        let text = std::fs::read(&key).map_err(|error| unread(error.to_string()))?;
        // Without a password that OpenSSL could use, it must not ask on the terminal.
        let password = parameters.get("sslpassword").map_or("", String::as_str);
        let private = PKey::private_key_from_pem_passphrase(&text, password.as_bytes())
            .map_err(|error| unread(error.to_string()))?;
        builder
            .set_private_key(&private)
            .map_err(|error| unread(error.to_string()))?;
    }
    let mut connector = MakeTlsConnector::new(builder.build());
    connector.set_callback(move |connection, _| {
        connection.set_verify_hostname(full);
        Ok(())
    });
    Ok(connector)
}

fn check_key(key: &Path) -> Result<(), String> {
    let metadata = key.metadata().map_err(|error| {
        format!(
            "certificate present, but not private key file \"{}\": {error}",
            key.display()
        )
    })?;
    // As in libpq, a key of root may be read by a group.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.permissions().mode() & others != 0 {
        return Err(format!(
            "private key file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            key.display()
        ));
    }
    Ok(())
}
