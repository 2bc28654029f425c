//! A host in this process, and clients for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use vault_host::{BoundHost, Config, REFUSAL_TRAILER};
use vault_proto::v1::audit_client::AuditClient;
use vault_proto::v1::provision_client::ProvisionClient;
use vault_proto::v1::vault_client::VaultClient;
use vault_proto::v1::{
    Credential, Evidence, EvidenceSet, GetChallengeRequest, PcrValue, Refusal, ReleaseKeysRequest, TpmEvidence,
    TpmIdentity, UnitSelection, evidence, unit_selection,
};

use crate::keeper::{Call, Keeper, Reply};

pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn keeper_socket(&self) -> PathBuf {
        self.path("keeper.sock")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// A configuration for this place, with more lines behind it.
    pub fn config(&self, more: &str) -> String {
        config(&self.data_dir(), &self.keeper_socket(), more)
    }
}

pub fn config(data_dir: &Path, keeper: &Path, more: &str) -> String {
    format!(
        "data_dir = {data_dir:?}\nkeeper = \"unix:{}\"\nlisten = \"127.0.0.1:0\"\nkeep_free_mib = 0\n{more}\n",
        keeper.display()
    )
}

pub struct RunningHost {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl RunningHost {
    pub async fn start(config: &str) -> Self {
        let host = BoundHost::bind(Config::parse(config).unwrap()).await.unwrap();
        let address = host.listen().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let stop = async move { drop(stopped.await) };
            host.serve(stop).await.unwrap();
        });
        Self { address, stop: Some(stop), served }
    }

    pub async fn stop(mut self) {
        self.stop.take();
        self.served.await.unwrap();
    }

    pub async fn channel(&self) -> Channel {
        channel(self.address).await
    }

    pub async fn vault(&self) -> VaultClient<Channel> {
        VaultClient::new(self.channel().await).max_decoding_message_size(32 << 20)
    }

    pub async fn provision(&self) -> ProvisionClient<Channel> {
        ProvisionClient::new(self.channel().await)
    }

    pub async fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel().await).max_decoding_message_size(32 << 20)
    }
}

pub async fn provision(address: SocketAddr) -> ProvisionClient<Channel> {
    ProvisionClient::new(channel(address).await)
}

pub async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A host with an attached keeper that answers `answer`.
pub async fn host_and_keeper(
    place: &Place,
    answer: impl Fn(Call) -> Option<Reply> + Send + Sync + 'static,
) -> (RunningHost, Keeper) {
    let mut keeper = Keeper::start(&place.keeper_socket(), answer);
    let host = RunningHost::start(&place.config("")).await;
    keeper.attached().await;
    (host, keeper)
}

pub fn refusal(status: &Status) -> Refusal {
    let trailer = status.metadata().get_bin(REFUSAL_TRAILER).unwrap_or_else(|| panic!("no refusal in {status:?}"));
    Refusal::decode(trailer.to_bytes().unwrap()).unwrap()
}

#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, refusal_code: &str) -> Refusal {
    let status = result.unwrap_err();
    let refusal = refusal(&status);
    assert_eq!((status.code(), refusal.code.as_str()), (code, refusal_code), "{status:?}");
    refusal
}

pub fn tpm_identity() -> TpmIdentity {
    TpmIdentity { ek_certificates: vec![vec![0x30; 900]], ek_public: Vec::new(), ak_public: vec![1; 90] }
}

pub fn challenge_request() -> GetChallengeRequest {
    let all = unit_selection::Selection::All(true);
    GetChallengeRequest {
        action: 1,
        rule: "minilm".to_owned(),
        model: "minilm".to_owned(),
        version: "1".to_owned(),
        units: Some(UnitSelection { selection: Some(all) }),
        tpm: Some(tpm_identity()),
        lease_id: Vec::new(),
        forms: vec![1],
    }
}

pub fn evidence_set() -> EvidenceSet {
    let tpm = TpmEvidence {
        identity: Some(tpm_identity()),
        attest: vec![2; 120],
        signature: vec![3; 72],
        pcrs: vec![PcrValue { index: 0, sha256: vec![4; 32] }, PcrValue { index: 11, sha256: vec![5; 32] }],
    };
    EvidenceSet { evidence: vec![Evidence { kind: Some(evidence::Kind::Tpm(tpm)) }], event_log: Vec::new() }
}

pub fn release_request(session: u8) -> ReleaseKeysRequest {
    ReleaseKeysRequest {
        session: vec![session; 16],
        hpke_public_key: vec![6; 1665],
        lease_public_key: vec![7; 32],
        evidence: Some(evidence_set()),
        workload: None,
    }
}

pub fn credential() -> Credential {
    Credential { id_object: vec![8; 60], encrypted_secret: vec![9; 258] }
}
