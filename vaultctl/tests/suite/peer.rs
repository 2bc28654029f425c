//! The other end of the network: a host and its keeper in this process. It keeps a real log, folded and signed; it does
//! not decide anything that a test is about. A test can make it lie in any answer.

mod keeper;
mod services;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use vault_proto::v1;
use vault_proto::v1::audit_server::AuditServer;
use vault_proto::v1::provision_server::ProvisionServer;
use vault_proto::v1::vault_server::VaultServer;

pub(crate) use keeper::{Keeper, now};
pub(crate) use services::Shared;

use crate::forge::authority::Authority;
use crate::forge::tpm::SoftTpm;

/// Changes entries that begin at an index.
pub(crate) type ChangeEntries = fn(u64, &mut Vec<Vec<u8>>);

/// What a test makes the host say in the place of the truth.
#[derive(Default)]
pub(crate) struct Lies {
    pub(crate) identity: Option<fn(&mut v1::GetKeeperIdentityResponse)>,
    pub(crate) evidence: Option<fn(&mut v1::GetKeeperEvidenceResponse)>,
    pub(crate) genesis_answer: Option<fn(&mut v1::SubmitGenesisResponse)>,
    pub(crate) status: Option<fn(&mut v1::StatusResponse)>,
    pub(crate) checkpoint: Option<String>,
    pub(crate) entries: Option<ChangeEntries>,
    pub(crate) blob: Option<fn(&mut Vec<u8>)>,
    pub(crate) refusal: Option<v1::Refusal>,
}

/// A host that serves on TCP.
pub(crate) struct Peer {
    keeper: Arc<Shared>,
    address: String,
    socket: PathBuf,
    _runtime: Runtime,
}

impl Peer {
    /// Serves on a free port of this machine, and on a socket in `directory`.
    pub(crate) fn start(tpm: SoftTpm, authority: &Authority, directory: &Path) -> Self {
        let keeper = Arc::new(Shared(Mutex::new(Keeper::new(tpm, authority))));
        let runtime = Runtime::new().unwrap();
        let socket = directory.join("host.socket");
        let (tcp, unix) = runtime.block_on(async {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            (tcp, tokio::net::UnixListener::bind(&socket).unwrap())
        });
        let address = format!("http://{}", tcp.local_addr().unwrap());
        let server = || {
            Server::builder()
                .add_service(ProvisionServer::from_arc(Arc::clone(&keeper)))
                .add_service(AuditServer::from_arc(Arc::clone(&keeper)))
                .add_service(VaultServer::from_arc(Arc::clone(&keeper)))
        };
        runtime.spawn(server().serve_with_incoming(tonic::transport::server::TcpIncoming::from(tcp)));
        runtime.spawn(server().serve_with_incoming(UnixListenerStream::new(unix)));
        Self { keeper, address, socket, _runtime: runtime }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    pub(crate) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.0.lock().unwrap()
    }

    /// From now on the host lies so.
    pub(crate) fn lie(&self, lies: Lies) {
        self.keeper().lies = lies;
    }

    pub(crate) fn tpm_pcrs(&self) -> [[u8; 32]; 24] {
        self.keeper().tpm.pcrs
    }
}
