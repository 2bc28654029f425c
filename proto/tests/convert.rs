//! Every conversion comes back as it went, and every field is held to its bound.
#![allow(clippy::unwrap_used, reason = "a test program: helpers fail the test")]

#[path = "convert/samples.rs"]
mod samples;

use samples::*;

#[test]
fn everything_comes_back_as_it_went_at_its_largest() {
    let groups = (0..256).map(|n| format!("layer.{n}").parse().unwrap()).collect();
    for selection in [Selection::All, Selection::Groups(groups), Selection::Units((0..16_384).collect())] {
        comes_back::<_, v1::GetChallengeRequest>(challenge_request(ChallengeFor::Load(selection)));
    }
    comes_back::<_, v1::GetChallengeRequest>(challenge_request(ChallengeFor::Renew { lease_id: digest(1) }));
    comes_back::<_, v1::GetChallengeResponse>(challenge());
    comes_back::<_, v1::ReleaseKeysRequest>(ReleaseRequest {
        session: [1; 16],
        hpke_key: hpke_key(),
        lease_key: LeaseKey::try_from([2; 32].as_slice()).unwrap(),
        evidence: evidence(),
        workload: Some(workload::workload()),
    });
    comes_back::<_, v1::ReleaseKeysResponse>(grant());
    comes_back::<_, v1::RenewLeaseRequest>(RenewRequest {
        session: [1; 16],
        lease_id: digest(2),
        evidence: evidence(),
        lease: lease(),
        lease_signature: [3; 64],
        workload: Some(attestation::Workload { image: None, ..workload::workload() }),
    });
    comes_back::<_, v1::RenewLeaseResponse>(lease());
    comes_back::<_, v1::EndLeaseRequest>(EndLease { lease_id: digest(1), lease_signature: [2; 64] });
    let model = ModelName { model: "minilm".parse().unwrap(), version: "1".parse().unwrap() };
    comes_back::<_, v1::GetManifestRequest>(model.clone());
    let ranges = vec![Range { unit: 16_383, offset: u64::MAX, length: u64::MAX }; 16_384];
    comes_back::<_, v1::FetchUnitsRequest>(FetchRequest { model, ranges });
    comes_back::<_, v1::InitKeeperResponse>(keeper_identity(None));
    comes_back::<_, v1::GetKeeperIdentityResponse>(keeper_identity(Some(digest(1))));
    comes_back::<_, v1::GetKeeperEvidenceRequest>(KeeperEvidenceRequest { nonce: [1; 32], credential: credential() });
    let standing = KeeperStanding { policy: digest(1), checkpoint: "weightvault.v1/00\n".to_owned() };
    for standing in [None, Some(standing)] {
        comes_back::<_, v1::GetKeeperEvidenceResponse>(KeeperEvidence { evidence: evidence(), standing });
    }
    comes_back::<_, v1::GetUploadRequest>(UnitUpload { manifest: digest(1), sealed: digest(2), bytes: 72 });
    comes_back::<_, v1::PublishModelRequest>(Publication {
        manifest: vec![1; 8 << 20],
        dek: vec![2; limits::DEK_BYTES],
        model_signature: vec![3; 8 << 20],
    });
    comes_back::<_, v1::SubmitPolicyRequest>(PolicySubmission {
        policy: vec![1; 12 << 10],
        statement: vec![2; 1024],
        signature: "s".repeat(4096),
    });
    comes_back::<_, v1::SubmitApprovalRequest>(approval());
    comes_back::<_, v1::SubmitApprovalRequest>(Approval { witness: None, ..approval() });
    comes_back::<_, v1::SubmitKeyEpochRequest>(key_epoch());
    comes_back::<_, v1::GetKeyEpochsRequest>(KeyEpochsRequest { known: 3 });
    comes_back::<_, v1::GetKeyEpochsResponse>(key_epochs());
    comes_back::<_, v1::SubmitResealRequest>(reseal(None));
    comes_back::<_, v1::SubmitResealRequest>(reseal(Some([9; 48])));
    for next in
        [None, Some(NextSealing { pcrs: pcrs(), written: false }), Some(NextSealing { pcrs: pcrs(), written: true })]
    {
        comes_back::<_, v1::KeeperSealing>(KeeperSealing { present: pcrs(), next });
    }
    for action in ProposalAction::ALL {
        comes_back::<_, v1::Proposal>(proposal(action));
    }
    comes_back::<_, v1::SubmitRevocationRequest>(revocation());
    comes_back::<_, v1::WatchLeaseRequest>(WatchLease { lease_id: digest(1), lease_signature: [2; 64] });
    comes_back::<_, v1::WatchLeaseResponse>(WatchEvent::Watching);
    comes_back::<_, v1::WatchLeaseResponse>(WatchEvent::Notice(notice()));
}

fn revocation() -> RevocationSubmission {
    RevocationSubmission { revocation: vec![1; 4096], statement: vec![2; 1024], signature: "s".repeat(4096) }
}

fn notice() -> RevocationNotice {
    let leases = (0..128).map(digest).collect();
    RevocationNotice { entry: vec![1; 16 << 10], log_proof: "p".repeat(64 << 10), leases, signature: [3; 96] }
}

fn pcrs() -> BTreeMap<u32, [u8; 32]> {
    [(4, [4; 32]), (11, [11; 32])].into()
}

fn reseal(measurement: Option<[u8; 48]>) -> ResealSubmission {
    let name = [[0, 0x0b].as_slice(), &[8; 32]].concat();
    let ak_name = name.as_slice().try_into().unwrap();
    let reseal = Reseal { instance: [7; 32], ak_name, pcrs: pcrs(), measurement };
    ResealSubmission { reseal, statement: vec![2; 1024], signature: "s".repeat(4096) }
}

#[test]
fn the_largest_messages_fit_their_limits() {
    let units = Selection::Units((0..16_384).collect());
    let challenge = v1::GetChallengeRequest::from(challenge_request(ChallengeFor::Load(units)));
    assert!(challenge.encoded_len() <= limits::VAULT_MESSAGE_BYTES_MAX);
    let range = Range { unit: 16_383, offset: u64::MAX, length: u64::MAX };
    let fetch = FetchRequest {
        model: ModelName { model: "m".repeat(64).parse().unwrap(), version: "1".repeat(64).parse().unwrap() },
        ranges: vec![range; limits::RANGES_MAX],
    };
    assert!(v1::FetchUnitsRequest::from(fetch).encoded_len() <= limits::VAULT_MESSAGE_BYTES_MAX);
    let chain = vec![vec![1; limits::CERTIFICATE_BYTES_MAX]; limits::CERTIFICATES_MAX];
    let crls = vec![vec![1; limits::CRL_BYTES_MAX]; limits::CRLS_MAX];
    let report = SnpEvidence { certificates: chain.clone(), crls, ..report() };
    let mut quote = quote();
    quote.identity.ek_certificates = chain;
    let event_log = Some(vec![1; limits::EVENT_LOG_BYTES_MAX]);
    let evidence = EvidenceSet { evidence: Evidence::SnpTpm { report, quote }, event_log };
    let (lease_key, workload) = (LeaseKey::try_from([2; 32].as_slice()).unwrap(), Some(workload::workload()));
    let release = ReleaseRequest { session: [1; 16], hpke_key: hpke_key(), lease_key, evidence, workload };
    let release = v1::ReleaseKeysRequest::from(release);
    assert!(release.encoded_len() <= limits::VAULT_MESSAGE_BYTES_MAX);
    let publication = v1::PublishModelRequest {
        manifest: vec![1; 8 << 20],
        dek: vec![2; limits::DEK_BYTES],
        model_signature: vec![3; limits::MODEL_SIGNATURE_BYTES_MAX],
    };
    assert!(publication.encoded_len() <= limits::PROVISION_MESSAGE_BYTES_MAX);
    let call = v1::keeper_call::Request::PublishModel(publication.clone());
    let kind = Some(v1::attach_request::Kind::Call(v1::KeeperCall { request: Some(call) }));
    assert!(v1::AttachRequest { id: u64::MAX, kind }.encoded_len() <= limits::LINK_MESSAGE_BYTES_MAX);
    let manifest =
        v1::GetManifestResponse { manifest: publication.manifest, model_signature: publication.model_signature };
    assert!(manifest.encoded_len() <= limits::VAULT_REPLY_BYTES_MAX);
    let entries = v1::store_call::Call::AppendLog(v1::AppendLog { first: u64::MAX, entries: vec![vec![7]; 8 << 20] });
    let kind = Some(v1::attach_response::Kind::StoreCall(v1::StoreCall { call: Some(entries) }));
    let one_byte_entries = v1::AttachResponse { id: u64::MAX, kind }.encoded_len();
    assert!(one_byte_entries > limits::LINK_MESSAGE_BYTES_MAX, "why entries of a call are counted too");
}

/// Each change of a good message is refused with this code.
macro_rules! refuses {
    ($domain:ty, $wire:ty, $good:expr; $($code:literal: $change:expr),+ $(,)?) => {$({
        let mut wire = <$wire>::from($good);
        let change: fn(&mut $wire) = $change;
        change(&mut wire);
        let error = <$domain>::try_from(wire).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), $code, "{error}");
    })+};
}

#[path = "convert/challenge.rs"]
mod challenge;
#[path = "convert/escrow.rs"]
mod escrow;
#[path = "convert/join.rs"]
mod join;
#[path = "convert/permit.rs"]
mod permit;
#[path = "convert/workload.rs"]
mod workload;

fn first_tpm(set: &mut v1::EvidenceSet) -> &mut v1::TpmEvidence {
    match set.evidence.first_mut().and_then(|evidence| evidence.kind.as_mut()) {
        Some(v1::evidence::Kind::Tpm(tpm)) => tpm,
        _ => panic!("a good set has a quote"),
    }
}

fn first_snp(set: &mut v1::EvidenceSet) -> &mut v1::SnpEvidence {
    match set.evidence.first_mut().and_then(|evidence| evidence.kind.as_mut()) {
        Some(v1::evidence::Kind::Snp(snp)) => snp,
        _ => panic!("a good set has a report"),
    }
}

fn first_azure(set: &mut v1::EvidenceSet) -> &mut v1::AzureSnpVtpmEvidence {
    match set.evidence.first_mut().and_then(|evidence| evidence.kind.as_mut()) {
        Some(v1::evidence::Kind::AzureSnpVtpm(azure)) => azure,
        _ => panic!("a good set has an HCL report"),
    }
}

#[test]
fn every_form_of_evidence_has_one_blob() {
    let both = EvidenceSet { evidence: Evidence::SnpTpm { report: report(), quote: quote() }, event_log: None };
    let bare = SnpEvidence { certificates: vec![], crls: vec![], ..report() };
    for set in [
        evidence(),
        snp_evidence(),
        both,
        azure_evidence(),
        EvidenceSet { evidence: Evidence::Snp(bare), event_log: None },
    ] {
        assert_eq!(EvidenceSet::from_blob(&set.blob()), Ok(set));
    }
}

#[test]
fn reports_of_another_form_are_refused() {
    refuses!(EvidenceSet, v1::EvidenceSet, snp_evidence();
        "malformed-snp-report": |set| first_snp(set).report.push(0),
        "malformed-snp-report": |set| { first_snp(set).report.pop(); },
        "malformed-snp-certificates": |set| first_snp(set).certificates.push(vec![1]),
        "malformed-snp-certificates": |set| first_snp(set).certificates[0].push(1),
        "malformed-snp-certificates": |set| first_snp(set).certificates[5].clear(),
        "malformed-crls": |set| first_snp(set).crls.push(vec![1]),
        "malformed-crls": |set| first_snp(set).crls[1].push(1),
        "malformed-crls": |set| first_snp(set).crls[1].clear(),
        "malformed-evidence": |set| set.evidence.push(set.evidence[0].clone()),
        "malformed-evidence": |set| set.evidence.push(v1::EvidenceSet::from(azure_evidence()).evidence[0].clone()),
        "malformed-evidence": |set| set.evidence.insert(0, v1::EvidenceSet::from(evidence()).evidence[0].clone()),
        "malformed-evidence": |set| set.evidence.push(v1::Evidence { kind: None }),
    );
    refuses!(EvidenceSet, v1::EvidenceSet, azure_evidence();
        "malformed-hcl-report": |set| first_azure(set).hcl_report.push(0),
        "malformed-hcl-report": |set| first_azure(set).hcl_report.clear(),
        "malformed-ak-public": |set| first_azure(set).ak_public.push(0),
        "malformed-attest": |set| first_azure(set).attest.clear(),
        "malformed-tpm-signature": |set| first_azure(set).signature.push(0),
        "malformed-pcrs": |set| first_azure(set).pcrs.reverse(),
        "malformed-snp-certificates": |set| first_azure(set).certificates.push(vec![1]),
        "malformed-evidence": |set| set.evidence.push(v1::EvidenceSet::from(evidence()).evidence[0].clone()),
    );
}

#[test]
fn a_platform_comes_back_and_each_wrong_field_is_refused() {
    let submission = PlatformSubmission {
        change: PlatformChange {
            act: PlatformAct::Remove,
            platform: Sha256Digest::of(b"ek"),
            label: "gpu-7".try_into().unwrap(),
            counts_as: Trust::Hardware,
            revision: 3,
        },
        statement: vec![1; 1024],
        signature: "s".to_owned(),
    };
    comes_back::<_, v1::SubmitPlatformRequest>(submission.clone());
    refuses!(PlatformSubmission, v1::SubmitPlatformRequest, submission.clone();
        "malformed-act" : |request| request.act = "Add".to_owned(),
        "malformed-platform" : |request| request.platform.push(0),
        "malformed-label" : |request| request.label = "GPU 7".to_owned(),
        "malformed-counts-as" : |request| request.counts_as.clear(),
        "malformed-statement" : |request| request.statement.push(0),
        "malformed-signature" : |request| request.signature.clear(),
    );
}

#[test]
fn an_identity_has_a_certificate_or_the_public_area_of_its_ek() {
    let bare = TpmIdentity { ek_certificates: Vec::new(), ek_public: vec![4; 1024], ak_public: vec![3] };
    for identity in [bare.clone(), TpmIdentity { ek_certificates: vec![vec![1]], ..bare.clone() }] {
        assert_eq!(TpmIdentity::try_from(v1::TpmIdentity::from(identity.clone())), Ok(identity));
    }
    let neither = TpmIdentity { ek_public: Vec::new(), ..bare };
    let refused = TpmIdentity::try_from(v1::TpmIdentity::from(neither)).unwrap_err();
    assert_eq!(refused.code(), "malformed-ek-certificates");
}

#[test]
fn evidence_of_another_form_is_refused() {
    refuses!(EvidenceSet, v1::EvidenceSet, evidence();
        "malformed-evidence": |set| set.evidence.clear(),
        "malformed-evidence": |set| set.evidence[0].kind = None,
        "malformed-evidence": |set| set.evidence.push(set.evidence[0].clone()),
        "malformed-evidence": |set| set.evidence = vec![v1::Evidence::default(); 5],
        "malformed-tpm-identity": |set| first_tpm(set).identity = None,
        "malformed-ek-certificates": |set| first_tpm(set).identity.as_mut().unwrap().ek_certificates.clear(),
        "malformed-ek-certificates": |set| {
            first_tpm(set).identity.as_mut().unwrap().ek_certificates = vec![vec![1]; 7];
        },
        "malformed-ek-certificates": |set| {
            first_tpm(set).identity.as_mut().unwrap().ek_certificates[1].push(0);
        },
        "malformed-ek-certificates": |set| first_tpm(set).identity.as_mut().unwrap().ek_certificates[1].clear(),
        "malformed-ek-public": |set| first_tpm(set).identity.as_mut().unwrap().ek_public = vec![1; 1025],
        "malformed-ak-public": |set| first_tpm(set).identity.as_mut().unwrap().ak_public.push(0),
        "malformed-ak-public": |set| first_tpm(set).identity.as_mut().unwrap().ak_public.clear(),
        "malformed-attest": |set| first_tpm(set).attest.push(0),
        "malformed-attest": |set| first_tpm(set).attest.clear(),
        "malformed-tpm-signature": |set| first_tpm(set).signature.push(0),
        "malformed-tpm-signature": |set| first_tpm(set).signature.clear(),
        "malformed-pcrs": |set| first_tpm(set).pcrs.clear(),
        "malformed-pcrs": |set| first_tpm(set).pcrs.reverse(),
        "malformed-pcrs": |set| first_tpm(set).pcrs[3].index = 2,
        "malformed-pcrs": |set| first_tpm(set).pcrs[23].index = 24,
        "malformed-pcrs": |set| {
            let extra = v1::PcrValue { index: 24, sha256: vec![0; 32] };
            first_tpm(set).pcrs.push(extra);
        },
        "malformed-pcrs": |set| { first_tpm(set).pcrs[5].sha256.pop(); },
    );
}

#[test]
fn there_is_one_blob_of_a_set_of_evidence() {
    let blob = evidence().blob();
    assert_eq!(EvidenceSet::from_blob(&blob), Ok(evidence()));
    let unknown_field = [blob.as_slice(), &[0x78, 0x01]].concat();
    let twice = [blob.as_slice(), blob.as_slice()].concat();
    for bytes in [&blob[..blob.len() - 1], &unknown_field, &twice, &[], &[0xff; 9]] {
        EvidenceSet::from_blob(bytes).unwrap_err();
    }
    // The same fields, the inner ones in another order.
    let v1::EvidenceSet { evidence: list, event_log } = evidence().into();
    assert!(event_log.is_empty());
    let Some(v1::evidence::Kind::Tpm(tpm)) = list.into_iter().next().unwrap().kind else { panic!() };
    let (mut late, mut early) = (tpm.clone(), tpm);
    (late.attest, early.identity, early.signature, early.pcrs) = (Vec::new(), None, Vec::new(), Vec::new());
    let swapped = [early.encode_to_vec(), late.encode_to_vec()].concat();
    let field = |bytes: Vec<u8>| {
        let mut out = vec![0x0a];
        prost::encode_length_delimiter(bytes.len(), &mut out).unwrap();
        out.extend(bytes);
        out
    };
    let reordered = field(field(swapped));
    let decoded = v1::EvidenceSet::decode(reordered.as_slice()).unwrap();
    assert_eq!(EvidenceSet::try_from(decoded), Ok(evidence()));
    assert_eq!(EvidenceSet::from_blob(&reordered).unwrap_err().code(), "malformed-evidence-blob");
}

#[test]
fn an_event_log_is_in_the_blob_and_no_longer_than_allowed() {
    let with = |length: usize| EvidenceSet { event_log: Some(vec![1; length]), ..evidence() };
    let set = with(limits::EVENT_LOG_BYTES_MAX);
    assert_eq!(EvidenceSet::from_blob(&set.blob()), Ok(set));
    let too_long = v1::EvidenceSet::from(with(limits::EVENT_LOG_BYTES_MAX + 1));
    assert_eq!(EvidenceSet::try_from(too_long).unwrap_err().code(), "malformed-event-log");
    // An empty log is none, and is not written.
    let empty = [evidence().blob().as_slice(), &[0x12, 0x00]].concat();
    assert_eq!(EvidenceSet::from_blob(&empty).unwrap_err().code(), "malformed-evidence-blob");
}

#[test]
fn a_blob_with_any_bit_changed_is_refused_or_is_the_blob_of_another_set() {
    let bare = SnpEvidence { certificates: vec![vec![7; 9]], crls: vec![vec![8; 9]], ..report() };
    let set = EvidenceSet { evidence: Evidence::Snp(bare), event_log: None };
    let blob = set.blob();
    for bit in 0..blob.len() * 8 {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = EvidenceSet::from_blob(&changed) {
            assert_ne!(other, set, "bit {bit}");
            assert_eq!(other.blob(), changed, "bit {bit}");
        }
    }
}

#[test]
fn a_grant_of_another_form_is_refused() {
    refuses!(Grant, v1::ReleaseKeysResponse, grant();
        "malformed-entry": |m| m.entry.push(0),
        "malformed-entry": |m| m.entry.clear(),
        "malformed-enc": |m| m.enc.push(0),
        "malformed-wrapped-keys": |m| m.wrapped_keys.clear(),
        "malformed-wrapped-keys": |m| m.wrapped_keys.truncate(16),
        "malformed-wrapped-keys": |m| m.wrapped_keys.truncate(63),
        "malformed-wrapped-keys": |m| m.wrapped_keys.extend([0; 32]),
        "malformed-log-proof": |m| m.log_proof.clear(),
        "malformed-log-proof": |m| m.log_proof = "p".repeat((64 << 10) + 1),
        "malformed-grant-signature": |m| { m.signature.pop(); },
        "malformed-lease": |m| m.lease = None,
        "malformed-lease-statement": |m| m.lease.as_mut().unwrap().statement.push(0),
        "malformed-lease-statement": |m| m.lease.as_mut().unwrap().statement.clear(),
        "malformed-lease-statement-signature": |m| m.lease.as_mut().unwrap().signature.push(0),
    );
}

#[test]
fn a_keeper_that_describes_itself_wrongly_is_refused() {
    refuses!(KeeperIdentity, v1::GetKeeperIdentityResponse, keeper_identity(Some(digest(1)));
        "malformed-tpm-identity": |m| m.tpm = None,
        "malformed-instance": |m| m.instance.push(0),
        "malformed-core-digest": |m| m.core_digest.clear(),
        "malformed-wrap-key": |m| m.wrap_key.push(0),
        "malformed-identity-key": |m| m.identity_key[0] = 2,
        "malformed-log-key": |m| m.log_key.clear(),
        "malformed-vault-id": |m| m.vault_id.push(0),
    );
    assert_eq!(KeeperIdentity::try_from(v1::InitKeeperResponse::default()).unwrap_err().code(), "malformed-identity");
    let request = KeeperEvidenceRequest { nonce: [1; 32], credential: credential() };
    refuses!(KeeperEvidenceRequest, v1::GetKeeperEvidenceRequest, request.clone();
        "malformed-nonce": |m| m.nonce.clear(),
        "malformed-credential": |m| m.credential = None,
    );
    let standing = KeeperStanding { policy: digest(1), checkpoint: "c".to_owned() };
    let good = KeeperEvidence { evidence: evidence(), standing: Some(standing) };
    refuses!(KeeperEvidence, v1::GetKeeperEvidenceResponse, good.clone();
        "malformed-evidence": |m| m.evidence = None,
        "malformed-policy-digest": |m| m.policy_digest.push(0),
        "malformed-checkpoint": |m| m.policy_digest.clear(),
        "malformed-checkpoint": |m| m.checkpoint.clear(),
        "malformed-checkpoint": |m| m.checkpoint = "c".repeat((32 << 10) + 1),
    );
}

#[test]
fn submissions_of_another_form_are_refused() {
    for (bytes, good) in [(0, false), (1, true), (14 << 10, true), ((14 << 10) + 1, false)] {
        assert_eq!(core(v1::InitKeeperRequest { core: vec![1; bytes] }).is_ok(), good);
    }
    for (bytes, good) in [(0, false), (1, true), (64 << 10, true), ((64 << 10) + 1, false)] {
        assert_eq!(extension(v1::SubmitExtensionRequest { extension: vec![1; bytes] }).is_ok(), good);
    }
    for (bytes, good) in [(0, false), (1, true), (16 << 10, true), ((16 << 10) + 1, false)] {
        assert_eq!(genesis(v1::SubmitGenesisRequest { genesis: vec![1; bytes] }).is_ok(), good);
    }
    let policy = PolicySubmission { policy: vec![1; 12 << 10], statement: vec![2], signature: "s".to_owned() };
    refuses!(PolicySubmission, v1::SubmitPolicyRequest, policy.clone();
        "malformed-policy": |m| m.policy.push(0),
        "malformed-policy": |m| m.policy.clear(),
        "malformed-statement": |m| m.statement = vec![1; 1025],
        "malformed-signature": |m| m.signature = "s".repeat(4097),
        "malformed-signature": |m| m.signature.clear(),
    );
    refuses!(KeyEpochSubmission, v1::SubmitKeyEpochRequest, key_epoch();
        "malformed-statement": |m| m.statement.clear(),
        "malformed-signature": |m| m.signature.clear(),
    );
    refuses!(KeyEpochsRequest, v1::GetKeyEpochsRequest, KeyEpochsRequest { known: 3 };
        "malformed-epoch": |m| m.known = 0,
    );
    refuses!(KeyEpochLinks, v1::GetKeyEpochsResponse, key_epochs();
        "malformed-entry": |m| m.links[0].entry.clear(),
        "malformed-log-proof": |m| m.links[0].log_proof.clear(),
        "malformed-links": |m| m.links = vec![m.links[0].clone(); 65],
    );
    refuses!(ResealSubmission, v1::SubmitResealRequest, reseal(Some([9; 48]));
        "malformed-instance": |m| m.instance.clear(),
        "malformed-ak-name": |m| m.ak_name.push(0),
        "malformed-pcrs": |m| m.pcrs.clear(),
        "malformed-pcrs": |m| m.pcrs.reverse(),
        "malformed-pcrs": |m| m.pcrs[1].index = 24,
        "malformed-pcrs": |m| m.pcrs[1].sha256.clear(),
        "malformed-measurement": |m| m.measurement.push(0),
        "malformed-statement": |m| m.statement.clear(),
        "malformed-signature": |m| m.signature.clear(),
    );
    let sealing = KeeperSealing { present: pcrs(), next: Some(NextSealing { pcrs: pcrs(), written: true }) };
    refuses!(KeeperSealing, v1::KeeperSealing, sealing.clone();
        "malformed-pcrs": |m| m.present.clear(),
        "malformed-pcrs": |m| m.next.reverse(),
        "malformed-next-written": |m| m.next.clear(),
    );
    refuses!(Approval, v1::SubmitApprovalRequest, approval();
        "malformed-statement": |m| m.statement.push(0),
        "malformed-signature": |m| m.signature.push('s'),
        "malformed-evidence": |m| m.witness.as_mut().unwrap().evidence = None,
        "malformed-nonce": |m| m.witness.as_mut().unwrap().nonce.clear(),
        "malformed-activation-secret": |m| m.witness.as_mut().unwrap().activation_secret.push(0),
    );
    refuses!(Proposal, v1::Proposal, proposal(ProposalAction::Model);
        "malformed-action": |m| m.action = "Model".to_owned(),
        "malformed-object": |m| m.object.clear(),
        "malformed-previous": |m| m.previous.clear(),
        "malformed-approved-by": |m| m.approved_by = vec!["alice".to_owned(); 257],
        "malformed-approved-by": |m| m.approved_by.push("a b".to_owned()),
        "malformed-summary": |m| m.summary = "s".repeat(1025),
    );
}

#[test]
fn pieces_of_an_upload_are_checked() {
    let unit = UnitUpload { manifest: digest(1), sealed: digest(2), bytes: 100 };
    let first = v1::UploadUnitRequest { unit: Some(unit.into()), offset: 5, data: vec![7; 4 << 20].into() };
    assert_eq!(first_piece(first.clone()).unwrap(), (unit, 5, vec![7; 4 << 20].into()));
    let long = v1::UploadUnitRequest { data: vec![7; (4 << 20) + 1].into(), ..first.clone() };
    assert_eq!(first_piece(long.clone()).unwrap_err().code(), "malformed-data");
    assert_eq!(first_piece(Default::default()).unwrap_err().code(), "malformed-unit");
    assert_eq!(next_piece(first).unwrap_err().code(), "malformed-unit");
    assert_eq!(
        next_piece(v1::UploadUnitRequest { unit: None, offset: 0, ..long }).unwrap_err().code(),
        "malformed-data"
    );
    let offset = v1::UploadUnitRequest { offset: 1, ..Default::default() };
    assert_eq!(next_piece(offset).unwrap_err().code(), "malformed-offset");
}

#[test]
fn a_refusal_names_the_field_and_what_is_wrong_with_it() {
    let mut wire = v1::ReleaseKeysResponse::from(grant());
    wire.signature.pop();
    let error = Grant::try_from(wire).unwrap_err();
    assert_eq!(error.to_string(), "grant-signature: 95 bytes, not 96");
    assert_eq!(error.fault(), Fault::Length { expected: 96, found: 95 });
}

fn raise() -> ProposedRaise {
    let (budget, until) = ("b".repeat(64).parse().unwrap(), UnixTime(u64::MAX));
    let amounts = RaiseAmounts { bytes: u64::MAX, releases: 1, platforms: 2, leases: 3 };
    ProposedRaise {
        object: raise_object(&budget, amounts, until),
        budget,
        bytes: u64::MAX,
        releases: 1,
        platforms: 2,
        leases: 3,
        until,
        statement: "s".repeat(1024),
        signature: "s".repeat(4096),
    }
}

fn budget_use(of: BudgetOf) -> BudgetUse {
    BudgetUse {
        budget: "daily".parse().unwrap(),
        of,
        unit: BudgetUnit::Bytes,
        limit: u64::MAX,
        used: 2,
        raised: 3,
        frees_at: Some(UnixTime(4)),
    }
}

fn alarm() -> Alarm {
    Alarm {
        entry: 9,
        time: UnixTime(4),
        rules: vec!["night".parse().unwrap(); 17],
        model: "llama".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        platform: digest(5),
    }
}

#[test]
fn raises_uses_and_alarms_come_back_as_they_went() {
    comes_back::<_, v1::SubmitRaiseRequest>(raise());
    for of in [BudgetOf::Vault, BudgetOf::Model("llama".parse().unwrap()), BudgetOf::Platform(digest(7))] {
        comes_back::<_, v1::BudgetUse>(budget_use(of));
    }
    for unit in BudgetUnit::ALL {
        comes_back::<_, v1::BudgetUse>(BudgetUse { unit, frees_at: None, ..budget_use(BudgetOf::Vault) });
    }
    comes_back::<_, v1::AlarmSummary>(alarm());
}

#[test]
fn a_raise_a_use_and_an_alarm_are_held_to_their_bounds() {
    refuses!(ProposedRaise, v1::SubmitRaiseRequest, raise();
        "malformed-budget": |m| m.budget.push('b'),
        "malformed-budget": |m| m.budget.clear(),
        "malformed-statement": |m| m.statement.push(b's'),
        "malformed-statement": |m| m.statement = vec![0xff],
        "malformed-statement": |m| m.statement.clear(),
        "malformed-signature": |m| m.signature.push('s'),
    );
    refuses!(BudgetUse, v1::BudgetUse, budget_use(BudgetOf::Vault);
        "malformed-budget": |m| m.budget.clear(),
        "malformed-model": |m| m.model = "A B".to_owned(),
        "malformed-platform": |m| m.platform = vec![1; 31],
        "malformed-platform": |m| { m.platform = vec![1; 32]; m.model = "llama".to_owned() },
        "malformed-unit": |m| m.unit = "bytes".to_owned(),
    );
    refuses!(Alarm, v1::AlarmSummary, alarm();
        "malformed-rules": |m| m.rules.push("night".to_owned()),
        "malformed-rules": |m| m.rules[0].clear(),
        "malformed-model": |m| m.model.clear(),
        "malformed-version": |m| m.version.clear(),
        "malformed-platform": |m| m.platform.clear(),
    );
}

#[test]
fn revocations_watches_and_notices_of_another_form_are_refused() {
    refuses!(RevocationSubmission, v1::SubmitRevocationRequest, revocation();
        "malformed-revocation": |m| m.revocation.push(0),
        "malformed-revocation": |m| m.revocation.clear(),
        "malformed-statement": |m| m.statement.push(0),
        "malformed-signature": |m| m.signature.push('s'),
    );
    refuses!(WatchLease, v1::WatchLeaseRequest, WatchLease { lease_id: digest(1), lease_signature: [2; 64] };
        "malformed-lease-id": |m| m.lease_id.push(0),
        "malformed-lease-signature": |m| m.lease_signature.clear(),
    );
    refuses!(RevocationNotice, v1::RevocationNotice, notice();
        "malformed-entry": |m| m.entry.push(0),
        "malformed-log-proof": |m| m.log_proof.push('p'),
        "malformed-leases": |m| m.leases.clear(),
        "malformed-leases": |m| m.leases.push(vec![200; 32]),
        "malformed-leases": |m| m.leases[0].push(0),
        "malformed-leases": |m| m.leases.swap(0, 1),
        "malformed-leases": |m| m.leases[1] = m.leases[0].clone(),
        "malformed-signature": |m| m.signature.clear(),
    );
    refuses!(WatchEvent, v1::WatchLeaseResponse, WatchEvent::Notice(notice());
        "malformed-event": |m| m.event = None,
        "malformed-event": |m| m.event = Some(v1::watch_lease_response::Event::Watching(false)),
        "malformed-leases": |m| m.event = Some(v1::watch_lease_response::Event::Notice(v1::RevocationNotice {
            leases: Vec::new(), ..notice().into()
        })),
    );
}
