//! Making a TPM once: swtpm_setup with EK and platform certificates from a CA that lives in a directory of its own.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directory of the TPM's own state file, below the state directory.
pub(crate) fn nvram(state: &Path) -> PathBuf {
    state.join("nvram")
}

/// PEM of the throwaway CA's root.
pub(crate) fn ca_root(ca: &Path) -> PathBuf {
    ca.join("swtpm-localca-rootca-cert.pem")
}

/// PEM of the intermediate CA that signs EK certificates.
pub(crate) fn ca_issuer(ca: &Path) -> PathBuf {
    ca.join("issuercert.pem")
}

/// Makes the TPM unless it is there. A kill in the middle leaves no half-made TPM: it is made beside its place and
/// renamed.
pub(crate) fn ensure(state: &Path, ca: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let nvram = nvram(state);
    if nvram.join("tpm2-00.permall").exists() {
        return Ok(());
    }
    let making = state.join("nvram.making");
    if making.exists() {
        fs::remove_dir_all(&making)?;
    }
    fs::create_dir(&making)?;
    let config = write_ca_configuration(ca)?;
    let output = Command::new("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--create-platform-cert", "--overwrite"])
        .args(["--pcr-banks", "sha256", "--vmid", name])
        .arg("--tpmstate")
        .arg(format!("dir://{}", making.display()))
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .map_err(missing("swtpm_setup"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().replace('\n', "\n  ");
        return Err(format!(
            "swtpm_setup cannot make a TPM in {}:\n  {said}\nOn Ubuntu AppArmor confines swtpm: try a directory under /tmp or your home.",
            state.display()
        )
        .into());
    }
    fs::rename(making, nvram)?;
    Ok(())
}

/// Maps "not found" to the fix.
pub(crate) fn missing(program: &'static str) -> impl Fn(io::Error) -> String {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{program} is not installed. Install it with: cargo xtask setup")
        }
        _ => format!("{program} does not start: {error}"),
    }
}

/// The three files that keep swtpm_setup from the system's own CA.
fn write_ca_configuration(ca: &Path) -> io::Result<PathBuf> {
    let dir = ca.display();
    write_atomically(
        &ca.join("localca.conf"),
        &format!(
            "statedir = {dir}\nsigningkey = {dir}/signkey.pem\nissuercert = {dir}/issuercert.pem\ncertserial = {dir}/certserial\n"
        ),
    )?;
    write_atomically(
        &ca.join("localca.options"),
        "--platform-manufacturer WeightVault\n--platform-version 1\n--platform-model SoftwareTPM\n",
    )?;
    let setup = ca.join("setup.conf");
    write_atomically(
        &setup,
        &format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {dir}/localca.conf\ncreate_certs_tool_options = {dir}/localca.options\n"
        ),
    )?;
    Ok(setup)
}

/// Several launchers may share the CA and start at once.
fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.{:?}", std::process::id(), std::thread::current().id()));
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}
