//! Challenges: each form has what it takes to show it, and nothing else.

use super::*;

#[test]
fn a_challenge_of_each_form_comes_back_as_it_went() {
    let quote = AskedQuote { pcrs: PcrSelection::try_from([4].as_slice()).unwrap(), event_log: false };
    for asked in [
        AskedEvidence::Snp,
        AskedEvidence::SnpTpm { credential: credential(), quote },
        AskedEvidence::AzureSnpVtpm { quote },
    ] {
        comes_back::<_, v1::GetChallengeResponse>(Challenge { asked, ..challenge() });
    }
}

#[test]
fn a_challenge_of_another_form_is_refused() {
    refuses!(Challenge, v1::GetChallengeResponse, challenge();
        "malformed-session": |m| m.session.push(0),
        "malformed-nonce": |m| { m.nonce.pop(); },
        "malformed-evidence-form": |m| m.form = 0,
        "malformed-evidence-form": |m| m.form = 5,
        "malformed-id-object": |m| m.credential.as_mut().unwrap().id_object.push(0),
        "malformed-id-object": |m| m.credential.as_mut().unwrap().id_object.clear(),
        "malformed-encrypted-secret": |m| m.credential.as_mut().unwrap().encrypted_secret.push(0),
        "malformed-encrypted-secret": |m| m.credential.as_mut().unwrap().encrypted_secret.clear(),
        "malformed-vault-id": |m| m.vault_id.clear(),
        "malformed-policy-digest": |m| m.policy_digest.clear(),
        "malformed-manifest-digest": |m| m.manifest_digest.clear(),
        "malformed-units": |m| m.units.clear(),
        "malformed-units": |m| m.units.reverse(),
        "malformed-units": |m| m.units = vec![1; 2],
        "malformed-units": |m| m.units = (0..16_385).collect(),
        "malformed-pcrs": |m| m.pcrs.reverse(),
        "malformed-pcrs": |m| m.pcrs = vec![7, 7],
        "malformed-pcrs": |m| m.pcrs = vec![24],
        "malformed-credential": |m| m.credential = None,
        "malformed-pcrs": |m| m.pcrs.clear(),
        "malformed-credential": |m| m.form = v1::EvidenceForm::AzureSnpVtpm.into(),
    );
    // A report alone has nothing else beside it.
    refuses!(Challenge, v1::GetChallengeResponse, Challenge { asked: AskedEvidence::Snp, ..challenge() };
        "malformed-credential": |m| m.credential = Some(credential().into()),
        "malformed-pcrs": |m| m.pcrs = vec![0],
        "malformed-event-log": |m| m.event_log = true,
        "malformed-credential": |m| m.form = v1::EvidenceForm::Tpm.into(),
        "malformed-pcrs": |m| m.form = v1::EvidenceForm::AzureSnpVtpm.into(),
    );
}
