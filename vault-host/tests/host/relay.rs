use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use vault_proto::v1::{
    AttachResponse, Coarse, ExplainRequest, GetChallengeResponse, GetKeeperIdentityRequest, ReleaseKeysResponse,
    StatusRequest, StatusResponse, SubmitPolicyRequest,
};

use crate::keeper::{Call, Keeper, Reply, refusal};
use crate::setup::{
    Place, RunningHost, assert_refused, challenge_request, credential, host_and_keeper, release_request,
};

fn challenge(nonce: u8) -> GetChallengeResponse {
    GetChallengeResponse { nonce: vec![nonce; 32], credential: Some(credential()), ..GetChallengeResponse::default() }
}

/// Answers as a keeper in good health would, as far as a host can see.
fn echo(call: Call) -> Option<Reply> {
    match call {
        Call::GetChallenge(_) => Some(Reply::GetChallenge(challenge(7))),
        Call::ReleaseKeys(request) => {
            Some(Reply::ReleaseKeys(ReleaseKeysResponse { entry: request.session, ..Default::default() }))
        }
        Call::Status(_) => {
            Some(Reply::Status(StatusResponse { state: "open".to_owned(), ..StatusResponse::default() }))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_reach_the_keeper_as_they_were_made_and_replies_come_back() {
    let place = Place::new();
    let expected = challenge_request();
    let (host, _keeper) = host_and_keeper(&place, move |call| {
        assert_eq!(call, Call::GetChallenge(expected.clone()));
        echo(call)
    })
    .await;
    let reply = host.vault().await.get_challenge(challenge_request()).await.unwrap().into_inner();
    assert_eq!(reply, challenge(7));
    host.stop().await;
}

#[tokio::test]
async fn two_hundred_releases_at_once_get_their_own_answers_on_one_connection() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, echo).await;
    let client = host.vault().await;
    let mut calls = tokio::task::JoinSet::new();
    for session in 0..200u8 {
        let mut client = client.clone();
        calls.spawn(async move {
            client.get_challenge(challenge_request()).await.unwrap();
            let grant = client.release_keys(release_request(session)).await.unwrap().into_inner();
            assert_eq!(grant.entry, vec![session; 16]);
        });
    }
    assert_eq!(calls.join_all().await.len(), 200);
    assert_eq!(keeper.calls(), 400);
}

#[tokio::test]
async fn two_hundred_releases_at_once_get_their_own_answers_on_two_hundred_connections() {
    let place = Place::new();
    let (host, _keeper) = host_and_keeper(&place, echo).await;
    let mut calls = tokio::task::JoinSet::new();
    for session in 0..200u8 {
        let mut client = host.vault().await;
        calls.spawn(async move { client.release_keys(release_request(session)).await.unwrap() });
    }
    assert_eq!(calls.join_all().await.len(), 200);
}

#[tokio::test]
async fn an_agent_learns_little_and_the_operator_everything() {
    let place = Place::new();
    let (host, _keeper) =
        host_and_keeper(&place, |_| Some(refusal(Coarse::Denied, "pcr-mismatch", "PCR 11: expected aa, saw bb"))).await;
    let agent =
        assert_refused(host.vault().await.release_keys(release_request(1)).await, Code::PermissionDenied, "denied");
    assert!(!agent.message.contains("PCR"));
    let mut provision = host.provision().await;
    let told = provision.explain(ExplainRequest { request_id: agent.request_id.clone() }).await.unwrap().into_inner();
    assert_eq!((told.code.as_str(), told.message.as_str()), ("pcr-mismatch", "PCR 11: expected aa, saw bb"));
    assert_eq!(told.method, "Vault.ReleaseKeys");

    let policy = SubmitPolicyRequest { policy: vec![1], statement: vec![1], signature: "s".to_owned() };
    let engineer = assert_refused(provision.submit_policy(policy).await, Code::PermissionDenied, "pcr-mismatch");
    assert_eq!(engineer.message, "PCR 11: expected aa, saw bb");

    let unknown = provision.explain(ExplainRequest { request_id: "0".repeat(32) }).await;
    assert_refused(unknown, Code::NotFound, "request-unknown");
    let malformed = provision.explain(ExplainRequest { request_id: "../../etc/passwd".to_owned() }).await;
    assert_refused(malformed, Code::InvalidArgument, "malformed-request-id");
}

#[tokio::test]
async fn without_a_keeper_calls_fail_at_once_and_status_says_why() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let begun = Instant::now();
    let refused = host.vault().await.get_challenge(challenge_request()).await;
    assert_refused(refused, Code::Unavailable, "unavailable");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let mut provision = host.provision().await;
    let identity = provision.get_keeper_identity(GetKeeperIdentityRequest {}).await;
    assert_refused(identity, Code::Unavailable, "keeper-unreachable");
    let status = provision.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.state, "unreachable");
    assert!(status.reason.contains("keeper.sock"), "{}", status.reason);
}

#[tokio::test]
async fn calls_under_way_fail_when_the_keeper_dies_and_work_again_when_it_is_back() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let mut client = host.vault().await;
    let waiting = tokio::spawn(async move { client.release_keys(release_request(1)).await });
    keeper.called().await;
    keeper.kill().await;
    assert_refused(waiting.await.unwrap(), Code::Unavailable, "unavailable");

    let mut keeper = Keeper::start(&place.keeper_socket(), echo);
    keeper.attached().await;
    host.vault().await.get_challenge(challenge_request()).await.unwrap();
}

#[tokio::test]
async fn the_host_attaches_again_when_only_the_stream_ends() {
    let place = Place::new();
    let (host, mut keeper) = host_and_keeper(&place, echo).await;
    for times in 2..4 {
        keeper.end_stream();
        keeper.attached_times(times).await;
        host.vault().await.get_challenge(challenge_request()).await.unwrap();
    }
}

#[tokio::test]
async fn replies_that_belong_to_no_call_or_to_another_harm_nobody() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |call| match call {
        Call::GetChallenge(_) => Some(Reply::Status(StatusResponse::default())),
        call => echo(call),
    })
    .await;
    let stray = vault_proto::v1::KeeperReply { response: Some(Reply::GetChallenge(challenge(1))) };
    for id in [0, 999, u64::MAX] {
        let kind = Some(vault_proto::v1::attach_response::Kind::Reply(stray.clone()));
        keeper.send(AttachResponse { id, kind }).await;
    }
    let mut client = host.vault().await;
    assert_refused(client.get_challenge(challenge_request()).await, Code::Unavailable, "unavailable");
    client.release_keys(release_request(1)).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_others_alone() {
    let place = Place::new();
    let answered = Arc::new(AtomicU64::new(0));
    let counted = answered.clone();
    let (host, keeper) = host_and_keeper(&place, move |call| match call {
        Call::GetChallenge(_) => None,
        call => {
            counted.fetch_add(1, Ordering::SeqCst);
            echo(call)
        }
    })
    .await;
    let mut client = host.vault().await;
    for _ in 0..20 {
        let mut request = tonic::Request::new(challenge_request());
        request.set_timeout(Duration::from_millis(50));
        let given_up = client.get_challenge(request).await.unwrap_err();
        assert!(matches!(given_up.code(), Code::Cancelled | Code::DeadlineExceeded), "{given_up:?}");
    }
    client.release_keys(release_request(1)).await.unwrap();
    assert_eq!((keeper.calls(), answered.load(Ordering::SeqCst)), (21, 1));
}

#[tokio::test]
async fn health_follows_the_keeper() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("")).await;
    let mut health = HealthClient::new(host.channel().await);
    let mut status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.unwrap().into_inner().status().as_str_name().to_owned()
    };
    assert_eq!(status("").await, "SERVING");
    assert_eq!(status("weightvault.v1.Vault").await, "NOT_SERVING");
    let mut keeper = Keeper::start(&place.keeper_socket(), echo);
    keeper.attached().await;
    let begun = Instant::now();
    while status("weightvault.v1.Vault").await != "SERVING" {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
