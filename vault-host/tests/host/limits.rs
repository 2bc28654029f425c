use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;
use vault_proto::v1::{ListModelsRequest, StatusRequest};

use crate::setup::{Place, RunningHost, assert_refused};

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_and_the_others_live_on() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("[limits]\nconnections = 2")).await;
    let (mut first, mut second) = (host.vault().await, host.vault().await);
    first.list_models(ListModelsRequest {}).await.unwrap();
    second.list_models(ListModelsRequest {}).await.unwrap();
    let mut third = TcpStream::connect(host.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), third.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    first.list_models(ListModelsRequest {}).await.unwrap();
    drop(first);
    for _ in 0..100 {
        let answered = async {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", host.address)).unwrap();
            let channel = endpoint.connect().await.ok()?;
            let mut client = vault_proto::v1::vault_client::VaultClient::new(channel);
            client.list_models(ListModelsRequest {}).await.ok()
        };
        if answered.await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a place that was given back is taken by nobody");
}

#[tokio::test]
async fn a_greedy_connection_is_slowed_down_alone() {
    let place = Place::new();
    let host = RunningHost::start(&place.config("[limits]\nrequests_per_second_per_connection = 5")).await;
    let (mut greedy, mut modest) = (host.vault().await, host.vault().await);
    let mut refused = 0;
    for _ in 0..30 {
        if let Err(status) = greedy.list_models(ListModelsRequest {}).await {
            assert_refused::<()>(Err(status), Code::ResourceExhausted, "busy");
            refused += 1;
        }
    }
    assert!(refused >= 10, "{refused}");
    modest.list_models(ListModelsRequest {}).await.unwrap();
}

#[tokio::test]
async fn provisioning_can_be_kept_off_the_public_address() {
    let place = Place::new();
    let config = place.config("provision_listen = \"127.0.0.2:0\"");
    let host = vault_host::BoundHost::bind(vault_host::Config::parse(&config).unwrap()).await.unwrap();
    let (public, private) = (host.listen().unwrap(), host.provision_listen().unwrap());
    tokio::spawn(host.serve(std::future::pending()));
    let status = async |address| {
        let channel = crate::setup::channel(address).await;
        let mut client = vault_proto::v1::provision_client::ProvisionClient::new(channel);
        client.status(StatusRequest {}).await
    };
    assert_eq!(status(public).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(status(private).await.unwrap().into_inner().state, "unreachable");
}
