//! Certificate revocation lists (RFC 5280, 5).

use super::super::der;
use super::super::keys::{RsaKey, Scheme};
use super::certificate::{Extension, Name};

const DAY: i64 = 86_400;

/// A list before its signature, and who signs it how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// Who says so.
    pub issuer: Name,
    /// thisUpdate, in seconds of Unix time.
    pub this_update: i64,
    /// nextUpdate, in seconds of Unix time.
    pub next_update: Option<i64>,
    /// Serial numbers, and when each was revoked.
    pub revoked: Vec<(u64, i64)>,
    /// In this order.
    pub extensions: Vec<Extension>,
    /// Whose key signs.
    pub signer: RsaKey,
    /// How it signs.
    pub scheme: Scheme,
}

impl Crl {
    /// An empty list that was made 15 days before `now` and is good for as many after.
    pub fn new(issuer: Name, signer: RsaKey, now: i64) -> Self {
        let number = Extension::new("2.5.29.20", false, der::integer(1));
        Self {
            issuer,
            this_update: now - 15 * DAY,
            next_update: Some(now + 15 * DAY),
            revoked: Vec::new(),
            extensions: vec![Extension::authority_key(signer), number],
            signer,
            scheme: Scheme::AMD,
        }
    }

    /// The same list with one more number on it.
    pub fn revoking(mut self, serial: u64) -> Self {
        self.revoked.push((serial, self.this_update));
        self
    }

    /// CertificateList, DER.
    pub fn der(&self) -> Vec<u8> {
        let algorithm = self.scheme.identifier(true);
        let mut parts = vec![der::integer(1), algorithm.clone(), self.issuer.der(), der::time(self.this_update)];
        parts.extend(self.next_update.map(der::time));
        if !self.revoked.is_empty() {
            let entry = |&(serial, at): &(u64, i64)| der::sequence(&[der::integer(serial), der::time(at)]);
            parts.push(der::sequence(&self.revoked.iter().map(entry).collect::<Vec<_>>()));
        }
        let extensions: Vec<_> = self.extensions.iter().map(Extension::der).collect();
        parts.push(der::explicit(0, &der::sequence(&extensions)));
        let body = der::sequence(&parts);
        let signature = self.signer.sign(self.scheme, &body);
        der::sequence(&[body, algorithm, der::bit_string(&signature)])
    }
}
