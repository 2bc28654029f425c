//! The attestation key of this machine, kept between loads: a file of blobs that only this machine's TPM can use.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attester::{AgentIdentity, ChipAgent, TpmAgent};
use super::job::Base64;
use super::options::Devices;
use crate::failure::{Failure, Kind};
use crate::keeper_dir::KeeperDir;
use crate::tpm::{TctiConfig, TpmObject};

const FILE: &str = "ak.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u32,
    public: Base64,
    private: Base64,
}

/// The identity of this machine.
pub(super) fn identity(devices: &Devices, state: Option<&Path>) -> Result<AgentIdentity, Failure> {
    let chip = ChipAgent::find(&devices.snp, devices.tpm.as_ref(), &devices.collateral)?;
    // The virtual TPM of an Azure guest has no EK that an anchor endorses: its report does.
    let is_azure = chip.as_ref().is_some_and(|chip| chip.azure_tcti.is_some());
    let tpm = match &devices.tpm {
        Some(tcti) if !is_azure => Some(tpm(tcti.clone(), state)?),
        Some(_) | None => None,
    };
    if tpm.is_none() && chip.is_none() {
        let next =
            "give the machine a TPM, or name the SNP device with --snp; `vault-enclave doctor` shows what there is";
        return Err(Failure::new(Kind::Failed, "no-hardware", "this machine has nothing to attest with").next(next));
    }
    Ok(AgentIdentity { tpm, chip, event_log: devices.event_log.clone() })
}

/// The TPM with a new AK, or with the one that is kept in `state`.
fn tpm(tcti: TctiConfig, state: Option<&Path>) -> Result<TpmAgent, Failure> {
    let Some(path) = state else { return Ok(TpmAgent::establish(tcti, None)?) };
    let failed = |error: crate::keeper_dir::KeeperDirError| Failure::new(Kind::Failed, "state-dir", error);
    let directory = KeeperDir::open(path).map_err(failed)?;
    if let Some(bytes) = directory.read(FILE).map_err(failed)? {
        return Ok(TpmAgent::establish(tcti, Some(parse(&bytes, path)?))?);
    }
    let identity = TpmAgent::establish(tcti, None)?;
    let TpmObject { public, private } = identity.ak.clone();
    let stored = Stored { v: 1, public: Base64(public), private: Base64(private) };
    let bytes = serde_json::to_vec(&stored).map_err(|error| Failure::new(Kind::Failed, "state-dir", error))?;
    directory.replace(FILE, &bytes).map_err(failed)?;
    Ok(identity)
}

fn parse(bytes: &[u8], path: &Path) -> Result<TpmObject, Failure> {
    let malformed = |why: String| {
        Failure::new(Kind::Failed, "state-malformed", format!("{}: {why}", path.join(FILE).display()))
            .next("remove the file: a new attestation key is made")
    };
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if stored.v != 1 {
        return Err(malformed(format!("version {} is unknown", stored.v)));
    }
    Ok(TpmObject { public: stored.public.0, private: stored.private.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_form_is_refused() {
        let good = r#"{"v":1,"public":"AAE=","private":"Ag=="}"#;
        let object = parse(good.as_bytes(), Path::new("/state")).unwrap();
        assert_eq!(object, TpmObject { public: vec![0, 1], private: vec![2] });
        let bad = [good.replace(":1", ":2"), good.replace("AAE=", "A"), good.replace("}", ",\"x\":1}"), String::new()];
        for bad in bad {
            assert_eq!(parse(bad.as_bytes(), Path::new("/state")).unwrap_err().code(), "state-malformed", "{bad}");
        }
    }
}
