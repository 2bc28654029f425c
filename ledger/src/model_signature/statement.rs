//! The signed payload: an in-toto statement that lists the files.

use std::collections::BTreeMap;

use attestation::Sha256Digest;
use serde::{Deserialize, Serialize};

use super::ModelSignatureError;
use crate::json::{Object, parse_object, quoted};
use crate::manifest::SIGNATURE_NAME;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
const METHOD: &str = "files";
const ALGORITHM: &str = "sha256";
/// What a signer leaves out of the directory: the specification's list, and the signature itself.
const IGNORED: [&str; 5] = [".git", ".gitattributes", ".github", ".gitignore", SIGNATURE_NAME];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Object<Subject>>,
    predicate_type: String,
    predicate: Object<Predicate>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: Object<SubjectDigest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    resources: Vec<Object<Resource>>,
    serialization: Object<Serialization>,
}

/// The specification wants unknown fields here to be ignored (5.2.1).
#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    digest: String,
    algorithm: String,
}

/// How the signer listed and hashed files. What it left out does not matter here, where the list must be exact.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

/// Checks a payload whose signature has been verified.
pub(super) fn check(payload: &[u8], files: &BTreeMap<String, Sha256Digest>) -> Result<(), ModelSignatureError> {
    let statement: Statement = parse_object(payload).map_err(ModelSignatureError::Statement)?;
    if statement.statement_type != STATEMENT_TYPE {
        return Err(ModelSignatureError::StatementType);
    }
    if statement.predicate_type != PREDICATE_TYPE {
        return Err(ModelSignatureError::PredicateType);
    }
    let Object(Predicate { resources, serialization: Object(serialization) }) = statement.predicate;
    if serialization.method != METHOD {
        return Err(ModelSignatureError::Method);
    }
    if serialization.hash_type != ALGORITHM {
        return Err(ModelSignatureError::Algorithm);
    }
    if resources.is_empty() {
        return Err(ModelSignatureError::NoFiles);
    }
    let signed = read_resources(&resources)?;
    let [Object(subject)] = statement.subject.as_slice() else {
        return Err(ModelSignatureError::Subject);
    };
    let root = hex::encode(root_digest(signed.iter().map(|(_, digest)| digest)).as_bytes());
    if subject.name.is_empty() || subject.digest.0.sha256 != root {
        return Err(ModelSignatureError::Subject);
    }
    check_same_files(&signed, files)
}

/// Names and digests, in strictly ascending order of the names.
fn read_resources(resources: &[Object<Resource>]) -> Result<Vec<(&str, Sha256Digest)>, ModelSignatureError> {
    let mut signed: Vec<(&str, Sha256Digest)> = Vec::with_capacity(resources.len());
    for Object(resource) in resources {
        let name = resource.name.as_str();
        if resource.algorithm != ALGORITHM {
            return Err(ModelSignatureError::Algorithm);
        }
        if signed.last().is_some_and(|(last, _)| *last >= name) {
            return Err(ModelSignatureError::Unordered { name: quoted(name) });
        }
        let digest = format!("sha256:{}", resource.digest);
        let digest = digest.parse().map_err(|_| ModelSignatureError::Digest { name: quoted(name) })?;
        signed.push((name, digest));
    }
    Ok(signed)
}

fn check_same_files(
    signed: &[(&str, Sha256Digest)],
    files: &BTreeMap<String, Sha256Digest>,
) -> Result<(), ModelSignatureError> {
    for (name, digest) in signed {
        match files.get(*name) {
            None => return Err(ModelSignatureError::ExtraFile { name: quoted(name) }),
            Some(expected) if expected != digest => {
                return Err(ModelSignatureError::OtherContent { name: quoted(name) });
            }
            Some(_) => {}
        }
    }
    let is_signed = |name: &&String| signed.binary_search_by_key(&name.as_str(), |(name, _)| name).is_ok();
    match files.keys().find(|name| !is_signed(name)) {
        Some(name) => Err(ModelSignatureError::MissingFile { name: quoted(name) }),
        None => Ok(()),
    }
}

/// SHA-256 over the raw digests in the order of the names (6.5).
fn root_digest<'a>(digests: impl Iterator<Item = &'a Sha256Digest>) -> Sha256Digest {
    Sha256Digest::of(&digests.flat_map(|digest| *digest.as_bytes()).collect::<Vec<u8>>())
}

/// The payload for these files.
pub(super) fn write(subject: &str, files: &BTreeMap<String, Sha256Digest>) -> Vec<u8> {
    let hex = |digest: &Sha256Digest| hex::encode(digest.as_bytes());
    let resource = |(name, digest): (&String, &Sha256Digest)| {
        Object(Resource { name: name.clone(), digest: hex(digest), algorithm: ALGORITHM.to_owned() })
    };
    let root = hex(&root_digest(files.values()));
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![Object(Subject { name: subject.to_owned(), digest: Object(SubjectDigest { sha256: root }) })],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Object(Predicate {
            resources: files.iter().map(resource).collect(),
            serialization: Object(Serialization {
                method: METHOD.to_owned(),
                hash_type: ALGORITHM.to_owned(),
                allow_symlinks: false,
                ignore_paths: IGNORED.map(str::to_owned).to_vec(),
            }),
        }),
    };
    serde_json::to_vec(&statement).expect("structs of strings always serialise")
}
