//! Evidence of one machine in the hands of another, and machines in another state.

use attestation::{ActivationSecret, Evidence, LoadChallenge, Sha256Digest, TpmPart};
use vault_proto::convert::{Challenge, ReleaseRequest};

use super::{Report, code_of};
use crate::forge::authority::Authority;
use crate::world::PCRS;
use crate::{Guest, World};

pub(super) async fn play(world: &World, report: &mut Report) {
    let (mut guest, other) = (Guest::new(world).await, Guest::new(world).await);
    report.attack("relay");
    let good = redeemed(&mut guest, |_, _, _| {}).await;
    report.works("a guest's own evidence, its own keys", good);

    let stolen = redeemed(&mut guest, |_, _, request| request.hpke_key = other.hpke_key()).await;
    report.refused("a guest's evidence, the thief's key to wrap to", "binding-mismatch", stolen);
    let stolen = redeemed(&mut guest, |_, _, request| request.lease_key = other.lease_key()).await;
    report.refused("a guest's evidence, the lease key of another guest", "binding-mismatch", stolen);
    let relayed = redeemed(&mut guest, |guest, challenge, request| {
        let extra = guest.bind(challenge).tpm_extra_data();
        request.evidence.evidence = Evidence::Tpm(other.tpm.quote(&other.identity, &PCRS, &extra));
    });
    report.refused("the quote of another TPM", "identity-changed", relayed.await);
    let mut stranger = Guest::endorsed_by(world, &Authority::root("stranger")).await;
    let ask = stranger.ask();
    let asked = stranger.challenge(ask).await;
    report.refused("a TPM that nobody endorses", "ek-anchor-unknown", code_of(&mut stranger, asked).await);
    for (what, change) in STATEMENTS {
        let bound = redeemed(&mut guest, |guest, challenge, request| {
            let extra = guest.bind_as(challenge, change).tpm_extra_data();
            *request = guest.redemption_over(challenge, &extra);
        });
        report.refused(&format!("evidence for another {what}"), "binding-mismatch", bound.await);
    }

    report.attack("changed boot");
    let partial = redeemed(&mut guest, |guest, challenge, request| {
        let extra = guest.bind(challenge).tpm_extra_data();
        request.evidence.evidence = Evidence::Tpm(guest.tpm.quote(&guest.identity, &PCRS[..5], &extra));
    });
    report.refused("a quote that leaves a PCR out", "pcr-selection-mismatch", partial.await);
    guest.tpm.pcrs[11][0] ^= 1;
    let changed = redeemed(&mut guest, |_, _, _| {}).await;
    report.refused("a guest that booted another program", "pcr-not-allowed", changed);
    guest.tpm.pcrs[11][0] ^= 1;
    let good = redeemed(&mut guest, |_, _, _| {}).await;
    report.works("the same guest, booted as the rule says", good);
}

type Change = fn(&mut LoadChallenge);

/// What a statement says that the challenge did not.
const STATEMENTS: [(&str, Change); 7] = [
    ("rule", |bound| bound.rule = "first-layer".to_owned()),
    ("nonce", |bound| bound.nonce[0] ^= 1),
    ("session", |bound| bound.session[0] ^= 1),
    ("vault", |bound| bound.vault = Sha256Digest::of(b"another vault")),
    ("policy", |bound| bound.policy = Sha256Digest::of(b"another policy")),
    ("manifest", |bound| bound.manifest = Sha256Digest::of(b"another manifest")),
    ("TPM's credential", |bound| {
        let ak_name = *bound.tpm.ak_name().expect("a TPM takes part");
        bound.tpm = TpmPart::Activated { ak_name, secret: ActivationSecret::from_bytes([0; 32]) };
    }),
];

/// A challenge, redeemed with one thing changed.
async fn redeemed(guest: &mut Guest, change: impl FnOnce(&Guest, &Challenge, &mut ReleaseRequest)) -> super::Seen {
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let mut request = guest.redemption(&challenge);
    change(guest, &challenge, &mut request);
    let answer = guest.redeem(request).await;
    code_of(guest, answer).await
}
