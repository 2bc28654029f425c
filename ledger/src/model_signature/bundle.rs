//! The Sigstore bundle around the payload. None of it is authenticated except through the signature it carries.

use attestation::Sha256Digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{ModelSignatureError, PAYLOAD_TYPE, PublisherKey};
use crate::json::{Object, parse_object};

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Payload and signature of a bundle, not verified yet.
pub(super) struct Envelope {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBundle {
    media_type: String,
    verification_material: Object<RawMaterial>,
    dsse_envelope: Object<RawEnvelope>,
}

/// One of the first three says the method; the rest is for the other methods.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<Object<RawKey>>,
    certificate: Option<IgnoredAny>,
    x509_certificate_chain: Option<IgnoredAny>,
    tlog_entries: Option<Vec<IgnoredAny>>,
    timestamp_verification_data: Option<IgnoredAny>,
}

/// Version 1.1 has `hint`, earlier ones the other two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawKey {
    hint: Option<String>,
    raw_bytes: Option<String>,
    #[serde(rename = "keyDetails")]
    _key_details: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Object<RawSignature>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    sig: String,
    keyid: Option<String>,
}

/// Reads a bundle that names this key.
pub(super) fn read(bytes: &[u8], key: &PublisherKey) -> Result<Envelope, ModelSignatureError> {
    let bundle: RawBundle = parse_object(bytes).map_err(ModelSignatureError::Bundle)?;
    if bundle.media_type != MEDIA_TYPE {
        return Err(ModelSignatureError::MediaType);
    }
    check_material(bundle.verification_material.0, key)?;
    let envelope = bundle.dsse_envelope.0;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(ModelSignatureError::PayloadType);
    }
    let [Object(signature)] = envelope.signatures.as_slice() else {
        return Err(ModelSignatureError::SignatureCount { count: envelope.signatures.len() });
    };
    if signature.keyid.as_ref().is_some_and(|id| !id.is_empty()) {
        return Err(ModelSignatureError::KeyId);
    }
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| ModelSignatureError::Base64);
    Ok(Envelope { payload: decode(&envelope.payload)?, signature: decode(&signature.sig)? })
}

/// The bundle must be of the `key` method and name this key: an honest mistake gets a clear answer.
fn check_material(material: RawMaterial, key: &PublisherKey) -> Result<(), ModelSignatureError> {
    let RawMaterial { public_key, certificate, x509_certificate_chain, tlog_entries, timestamp_verification_data } =
        material;
    let of_another_method = certificate.is_some()
        || x509_certificate_chain.is_some()
        || tlog_entries.is_some_and(|entries| !entries.is_empty())
        || timestamp_verification_data.is_some();
    let Some(Object(named)) = public_key.filter(|_| !of_another_method) else {
        return Err(ModelSignatureError::Method);
    };
    let names_this_key = match (named.hint, named.raw_bytes) {
        (Some(hint), None) => hint == key_hint(key),
        (None, Some(bytes)) => BASE64_STANDARD.decode(bytes).is_ok_and(|pem| pem == key.to_pem().as_bytes()),
        _ => return Err(ModelSignatureError::Method),
    };
    if !names_this_key {
        return Err(ModelSignatureError::OtherKey);
    }
    Ok(())
}

/// SHA-256 of the PEM text, as the reference signer has it.
fn key_hint(key: &PublisherKey) -> String {
    hex::encode(Sha256Digest::of(key.to_pem().as_bytes()).as_bytes())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BundleText {
    media_type: &'static str,
    verification_material: MaterialText,
    dsse_envelope: EnvelopeText,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MaterialText {
    public_key: KeyText,
    tlog_entries: [(); 0],
}

#[derive(Serialize)]
struct KeyText {
    hint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EnvelopeText {
    payload: String,
    payload_type: &'static str,
    signatures: [SignatureText; 1],
}

#[derive(Serialize)]
struct SignatureText {
    sig: String,
    keyid: &'static str,
}

/// The bundle of a payload and its signature.
pub(super) fn write(payload: &[u8], signature: &[u8], key: &PublisherKey) -> Vec<u8> {
    let bundle = BundleText {
        media_type: MEDIA_TYPE,
        verification_material: MaterialText { public_key: KeyText { hint: key_hint(key) }, tlog_entries: [] },
        dsse_envelope: EnvelopeText {
            payload: BASE64_STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE,
            signatures: [SignatureText { sig: BASE64_STANDARD.encode(signature), keyid: "" }],
        },
    };
    serde_json::to_vec(&bundle).expect("structs of strings always serialise")
}
