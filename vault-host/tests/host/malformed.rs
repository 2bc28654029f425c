use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};
use vault_proto::v1::{
    EndLeaseRequest, FetchUnitsRequest, GetChallengeRequest, GetManifestRequest, GetManifestResponse, GroupList,
    ReleaseKeysRequest, RenewLeaseRequest, SignedLease, SubmitPolicyRequest, UnitList, UnitRange, UnitSelection,
    unit_selection,
};

use crate::setup::{
    Place, RunningHost, assert_refused, challenge_request, evidence_set, host_and_keeper, refusal, release_request,
};

/// Each changed message is refused as malformed by the host itself; what exactly was wrong stands in the journal.
macro_rules! refused {
    ($host:expr, $method:ident, $good:expr, $($code:literal: $change:expr),+ $(,)?) => {$({
        let mut message = $good;
        let change: fn(&mut _) = $change;
        change(&mut message);
        let refusal = assert_refused($host.vault().await.$method(message).await.map(drop), Code::InvalidArgument, "malformed");
        let request = vault_proto::v1::ExplainRequest { request_id: refusal.request_id };
        let exact = $host.provision().await.explain(request).await.unwrap().into_inner();
        assert_eq!(exact.code, $code);
    })+};
}

fn renew_request() -> RenewLeaseRequest {
    RenewLeaseRequest {
        session: vec![1; 16],
        lease_id: vec![2; 32],
        evidence: Some(evidence_set()),
        lease: Some(SignedLease { statement: vec![3; 100], signature: vec![4; 96] }),
        lease_signature: vec![5; 64],
        workload: None,
    }
}

fn units(selection: unit_selection::Selection) -> Option<UnitSelection> {
    Some(UnitSelection { selection: Some(selection) })
}

#[tokio::test]
async fn every_field_of_a_challenge_request_is_checked_before_it_is_relayed() {
    use unit_selection::Selection::{All, Groups, Units};
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |call| panic!("{call:?}")).await;
    refused!(host, get_challenge, challenge_request(),
        "malformed-action": |m: &mut GetChallengeRequest| m.action = 0,
        "malformed-action": |m: &mut GetChallengeRequest| m.action = 3,
        "malformed-rule": |m: &mut GetChallengeRequest| m.rule.clear(),
        "malformed-model": |m: &mut GetChallengeRequest| m.model = "../../etc".to_owned(),
        "malformed-model": |m: &mut GetChallengeRequest| m.model = "MiniLM".to_owned(),
        "malformed-version": |m: &mut GetChallengeRequest| m.version = "..".to_owned(),
        "malformed-version": |m: &mut GetChallengeRequest| m.version = "1".repeat(65),
        "malformed-units": |m: &mut GetChallengeRequest| m.units = None,
        "malformed-units": |m: &mut GetChallengeRequest| m.units = Some(UnitSelection::default()),
        "malformed-units": |m: &mut GetChallengeRequest| m.units = units(All(false)),
        "malformed-units": |m: &mut GetChallengeRequest| m.units = units(Groups(GroupList::default())),
        "malformed-units": |m: &mut GetChallengeRequest| {
            m.units = units(Groups(GroupList { groups: vec!["a".to_owned(); 2] }));
        },
        "malformed-units": |m: &mut GetChallengeRequest| {
            m.units = units(Groups(GroupList { groups: (0..257).map(|n| n.to_string()).collect() }));
        },
        "malformed-units": |m: &mut GetChallengeRequest| m.units = units(Units(UnitList { units: vec![2, 1] })),
        "malformed-units": |m: &mut GetChallengeRequest| {
            m.units = units(Units(UnitList { units: (0..16_385).collect() }));
        },
        "malformed-tpm-identity": |m: &mut GetChallengeRequest| m.tpm = None,
        "malformed-tpm-identity": |m: &mut GetChallengeRequest| m.forms = vec![2],
        "malformed-evidence-form": |m: &mut GetChallengeRequest| m.forms.clear(),
        "malformed-evidence-form": |m: &mut GetChallengeRequest| m.forms = vec![1, 1],
        "malformed-evidence-form": |m: &mut GetChallengeRequest| m.forms = vec![0],
        "malformed-evidence-form": |m: &mut GetChallengeRequest| m.forms = vec![5],
        "malformed-ek-certificates": |m: &mut GetChallengeRequest| m.tpm.as_mut().unwrap().ek_certificates.clear(),
        "malformed-ek-certificates": |m: &mut GetChallengeRequest| {
            m.tpm.as_mut().unwrap().ek_certificates = vec![vec![1]; 7];
        },
        "malformed-ek-certificates": |m: &mut GetChallengeRequest| {
            m.tpm.as_mut().unwrap().ek_certificates = vec![vec![1; 4097]];
        },
        "malformed-ak-public": |m: &mut GetChallengeRequest| m.tpm.as_mut().unwrap().ak_public = vec![1; 1025],
        "malformed-lease-id": |m: &mut GetChallengeRequest| m.lease_id = vec![1; 32],
        "malformed-units": |m: &mut GetChallengeRequest| {
            m.action = 2;
            m.lease_id = vec![1; 32];
        },
        "malformed-lease-id": |m: &mut GetChallengeRequest| {
            m.action = 2;
            m.units = None;
            m.lease_id = vec![1; 31];
        },
    );
    assert_eq!(keeper.calls(), 0);
}

#[tokio::test]
async fn every_field_of_releases_renewals_and_ends_is_checked_before_it_is_relayed() {
    use vault_proto::v1::evidence::Kind;
    fn tpm(message: &mut ReleaseKeysRequest) -> &mut vault_proto::v1::TpmEvidence {
        let Some(Kind::Tpm(tpm)) = &mut message.evidence.as_mut().unwrap().evidence[0].kind else { panic!() };
        tpm
    }
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |call| panic!("{call:?}")).await;
    refused!(host, release_keys, release_request(1),
        "malformed-session": |m: &mut ReleaseKeysRequest| m.session.push(0),
        "malformed-hpke-public-key": |m: &mut ReleaseKeysRequest| { m.hpke_public_key.pop(); },
        "malformed-lease-public-key": |m: &mut ReleaseKeysRequest| m.lease_public_key.clear(),
        "malformed-evidence": |m: &mut ReleaseKeysRequest| m.evidence = None,
        "malformed-evidence": |m: &mut ReleaseKeysRequest| m.evidence.as_mut().unwrap().evidence.clear(),
        "malformed-evidence": |m: &mut ReleaseKeysRequest| m.evidence.as_mut().unwrap().evidence[0].kind = None,
        "malformed-evidence": |m: &mut ReleaseKeysRequest| {
            let evidence = m.evidence.as_mut().unwrap();
            evidence.evidence.push(evidence.evidence[0].clone());
        },
        "malformed-tpm-identity": |m: &mut ReleaseKeysRequest| tpm(m).identity = None,
        "malformed-attest": |m: &mut ReleaseKeysRequest| tpm(m).attest = vec![1; 1025],
        "malformed-tpm-signature": |m: &mut ReleaseKeysRequest| tpm(m).signature = vec![1; 601],
        "malformed-pcrs": |m: &mut ReleaseKeysRequest| tpm(m).pcrs.clear(),
        "malformed-pcrs": |m: &mut ReleaseKeysRequest| tpm(m).pcrs.reverse(),
        "malformed-pcrs": |m: &mut ReleaseKeysRequest| tpm(m).pcrs[1].index = 24,
        "malformed-pcrs": |m: &mut ReleaseKeysRequest| tpm(m).pcrs[1].sha256.push(0),
    );
    refused!(host, renew_lease, renew_request(),
        "malformed-session": |m: &mut RenewLeaseRequest| m.session.clear(),
        "malformed-lease-id": |m: &mut RenewLeaseRequest| m.lease_id.push(0),
        "malformed-evidence": |m: &mut RenewLeaseRequest| m.evidence = None,
        "malformed-lease": |m: &mut RenewLeaseRequest| m.lease = None,
        "malformed-lease-statement": |m: &mut RenewLeaseRequest| m.lease.as_mut().unwrap().statement = vec![1; 2049],
        "malformed-lease-statement-signature": |m: &mut RenewLeaseRequest| m.lease.as_mut().unwrap().signature.clear(),
        "malformed-lease-signature": |m: &mut RenewLeaseRequest| m.lease_signature.push(0),
    );
    refused!(host, end_lease, EndLeaseRequest { lease_id: vec![1; 32], lease_signature: vec![1; 64] },
        "malformed-lease-id": |m: &mut EndLeaseRequest| m.lease_id.clear(),
        "malformed-lease-signature": |m: &mut EndLeaseRequest| m.lease_signature.clear(),
    );
    assert_eq!(keeper.calls(), 0);
}

#[tokio::test]
async fn names_that_would_leave_the_directory_are_refused() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let bad = ["..", "../..", "/etc", "a/b", ".hidden", "a\0b", "", "a\\..\\b"];
    for name in bad {
        for (model, version) in [(name, "1"), ("minilm", name)] {
            let (model, version) = (model.to_owned(), version.to_owned());
            let request = GetManifestRequest { model: model.clone(), version: version.clone() };
            let refused = host.vault().await.get_manifest(request).await;
            assert_refused(refused, Code::InvalidArgument, "malformed");
            let ranges = vec![UnitRange { unit: 0, offset: 0, length: 1 }];
            let refused = host.vault().await.fetch_units(FetchUnitsRequest { model, version, ranges }).await.map(drop);
            assert_refused(refused, Code::InvalidArgument, "malformed");
        }
    }
    let request = |ranges| FetchUnitsRequest { model: "minilm".to_owned(), version: "1".to_owned(), ranges };
    let range = UnitRange { unit: 0, offset: 0, length: 1 };
    for ranges in [vec![], vec![range; 16_385], vec![UnitRange { unit: 16_384, ..range }]] {
        let refused = host.vault().await.fetch_units(request(ranges)).await.map(drop);
        assert_refused(refused, Code::InvalidArgument, "malformed");
    }
}

#[tokio::test]
async fn messages_beyond_their_limit_are_refused_unread() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |call| panic!("{call:?}")).await;
    let mut large = challenge_request();
    large.tpm.as_mut().unwrap().ak_public = vec![1; 1 << 20];
    let status = host.vault().await.get_challenge(large).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let policy = SubmitPolicyRequest { policy: vec![1; 100 << 10], statement: vec![1], signature: "s".to_owned() };
    let status = host.provision().await.submit_policy(policy).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let policy = SubmitPolicyRequest { policy: vec![1; (12 << 10) + 1], statement: vec![1], signature: "s".to_owned() };
    let status = host.provision().await.submit_policy(policy).await.unwrap_err();
    assert_eq!(refusal(&status).code, "malformed-policy");
    assert_eq!(keeper.calls(), 0);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |call| panic!("{call:?}")).await;
    let good = challenge_request().encode_to_vec();
    let truncated = good[..good.len() - 1].to_vec();
    for bytes in [truncated, vec![0xff; 40], b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut client = tonic::client::Grpc::new(host.channel().await);
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/weightvault.v1.Vault/GetChallenge");
        let codec = RawCodec::<GetManifestResponse>(PhantomData);
        let status = client.unary(tonic::Request::new(Bytes::from(bytes)), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status:?}");
    }
    // The connection and the host live on.
    assert_refused(
        host.vault().await.get_challenge(GetChallengeRequest::default()).await,
        Code::InvalidArgument,
        "malformed",
    );
    assert_eq!(keeper.calls(), 0);
}

/// Sends bytes as they are.
struct RawCodec<T>(PhantomData<T>);

impl<T: Message + Default + 'static> Codec for RawCodec<T> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = RawEncoder;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<T> {
        ProstDecoder(PhantomData)
    }
}

struct RawEncoder;

impl Encoder for RawEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

struct ProstDecoder<T>(PhantomData<T>);

impl<T: Message + Default> Decoder for ProstDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        T::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
