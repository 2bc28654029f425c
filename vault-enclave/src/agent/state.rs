//! The attestation key of this machine, kept between loads: a file of blobs that only this machine's TPM can use.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attester::AgentIdentity;
use super::job::Base64;
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

/// The identity of this machine: with a new AK, or with the one that is kept in `state`.
pub(super) fn identity(tcti: TctiConfig, state: Option<&Path>) -> Result<AgentIdentity, Failure> {
    let Some(path) = state else { return Ok(AgentIdentity::establish(tcti, None)?) };
    let failed = |error: crate::keeper_dir::KeeperDirError| Failure::new(Kind::Failed, "state-dir", error);
    let directory = KeeperDir::open(path).map_err(failed)?;
    if let Some(bytes) = directory.read(FILE).map_err(failed)? {
        return Ok(AgentIdentity::establish(tcti, Some(parse(&bytes, path)?))?);
    }
    let identity = AgentIdentity::establish(tcti, None)?;
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
