//! Certificates of a test's own authority, and credentials files made by our own command.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::binaries;
use crate::lab::Lab;

/// `openssl`-made files for one server.
#[derive(Debug)]
pub struct Keys {
    /// The authority's certificate (PEM).
    pub authority: PathBuf,
    /// The server's certificate (PEM).
    pub certificate: PathBuf,
    /// The server's key (PEM).
    pub key: PathBuf,
}

impl Keys {
    /// For `localhost` and `address`.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn make(lab: &Lab, address: IpAddr) -> Result<Self> {
        let folder = lab.folder("keys")?;
        let file = |name: &str| folder.join(name);
        let openssl = |arguments: &[&str]| crate::disk::run(Command::new("openssl").current_dir(&folder).args(arguments));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let authority = ["req", "-x509", "-subj", "/CN=Test", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&authority[..], &curve].concat())?;
        openssl(&[&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"][..], &curve].concat())?;
        std::fs::write(file("names"), format!("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{address}\n"))?;
        openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ])?;
        Ok(Self { authority: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") })
    }

    /// Signs the server's certificate anew, so that it ended yesterday.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn expire(&self) -> Result<()> {
        let folder = self.key.parent().context("a key is in a folder")?;
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"]);
        openssl.args(["-CAcreateserial", "-days", "-1", "-extfile", "names", "-out", "server.pem"]);
        crate::disk::run(&mut openssl)?;
        Ok(())
    }
}

/// Sets a user's password in a credentials file with `godwit passwd`.
///
/// # Errors
/// When the command fails.
pub fn password(file: &Path, user: &str, password: &str) -> Result<()> {
    let mut child =
        Command::new(binaries::path("godwit")).arg("passwd").arg(file).arg(user).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("its input")?.write_all(format!("{password}\n").as_bytes())?;
    ensure!(child.wait()?.success(), "godwit passwd failed");
    Ok(())
}

/// Makes a token for `user` with `godwit token`.
///
/// # Errors
/// When the command fails.
pub fn token(file: &Path, user: &str) -> Result<String> {
    let printed = crate::disk::run(Command::new(binaries::path("godwit")).arg("token").arg(file).arg(user))?;
    Ok(printed.trim().to_owned())
}
