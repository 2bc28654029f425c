//! `root.json` (FORMAT.md §5).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ledger::genesis::SealTo;
use serde::{Deserialize, Serialize};

use crate::snp::SnpSealing;
use crate::tpm::{SealedSecret, TpmName, TpmObject};

const fn seal_to(snp: Option<&SnpSealing>) -> SealTo {
    match snp {
        None => SealTo::Tpm,
        Some(_) => SealTo::SnpTpm,
    }
}

/// Longest public or private area, in bytes: those of the kinds used have some 200.
const AREA_BYTES_MAX: usize = 2048;

#[derive(Clone)]
pub(super) struct RootRecord {
    /// Name of the storage root key that everything here lies under.
    pub(super) srk_name: TpmName,
    pub(super) sealed: SealedSecret,
    pub(super) ak: TpmObject,
    /// What the chip's part was derived with, where there is one.
    pub(super) snp: Option<SnpSealing>,
    /// Of the epoch that the root was made for; the first root of a keeper has none.
    pub(super) epoch: Option<EpochRecord>,
}

/// The sealed secrets of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochRecord {
    /// Its number.
    pub(crate) number: u32,
    /// See [`seal_epoch_secrets`](crate::record::seal_epoch_secrets).
    pub(crate) secrets: Vec<u8>,
}

impl RootRecord {
    /// What the root is sealed to.
    pub(super) const fn seal_to(&self) -> SealTo {
        seal_to(self.snp.as_ref())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let file = File {
            v: 1,
            seal_to: self.seal_to().as_str().to_owned(),
            srk_name: STANDARD.encode(self.srk_name.as_bytes()),
            secret: (&self.sealed.object).into(),
            pcrs: self.sealed.pcrs.iter().map(|(index, value)| (index, hex::encode(value))).collect(),
            ak: (&self.ak).into(),
            snp: self.snp.clone(),
            epoch: self.epoch.as_ref().map(Epoch::from),
        };
        serde_json::to_vec_pretty(&file).expect("strings and numbers are JSON")
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(bytes).ok().filter(|file: &File| file.v == 1)?;
        if file.seal_to != seal_to(file.snp.as_ref()).as_str() {
            return None;
        }
        let values = file.pcrs.iter().map(|(index, value)| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(value, &mut bytes).ok().map(|()| (*index, bytes))
        });
        let pcrs = values.collect::<Option<_>>()?;
        Some(Self {
            srk_name: STANDARD.decode(&file.srk_name).ok()?[..].try_into().ok()?,
            sealed: SealedSecret { object: file.secret.decode()?, pcrs },
            ak: file.ak.decode()?,
            snp: file.snp,
            epoch: file.epoch.map_or(Some(None), |epoch| epoch.decode().map(Some))?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    v: u32,
    seal_to: String,
    srk_name: String,
    secret: Areas,
    pcrs: BTreeMap<u32, String>,
    ak: Areas,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snp: Option<SnpSealing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epoch {
    number: u32,
    secrets: String,
}

impl Epoch {
    fn decode(self) -> Option<EpochRecord> {
        let secrets = STANDARD.decode(&self.secrets).ok().filter(|bytes| bytes.len() <= AREA_BYTES_MAX)?;
        Some(EpochRecord { number: self.number, secrets })
    }
}

impl From<&EpochRecord> for Epoch {
    fn from(epoch: &EpochRecord) -> Self {
        Self { number: epoch.number, secrets: STANDARD.encode(&epoch.secrets) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Areas {
    public: String,
    private: String,
}

impl Areas {
    fn decode(&self) -> Option<TpmObject> {
        let area = |text: &str| STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= AREA_BYTES_MAX);
        Some(TpmObject { public: area(&self.public)?, private: area(&self.private)? })
    }
}

impl From<&TpmObject> for Areas {
    fn from(object: &TpmObject) -> Self {
        Self { public: STANDARD.encode(&object.public), private: STANDARD.encode(&object.private) }
    }
}
