//! A limit on the size of messages for each method of Provision: tonic has one for a whole service, and the one large
//! message must not make all the others large.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;
use vault_proto::limits::{DATA_BYTES_MAX, PROVISION_MESSAGE_BYTES_MAX};
use vault_proto::v1::provision_server::ProvisionServer;

use super::ProvisionService;

/// Every message but units and publications: the largest is an approval with its witness.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// A piece of a unit, and what names it.
const PIECE_BYTES_MAX: usize = DATA_BYTES_MAX + 1024;

/// Provision, thrice: the same service behind three limits.
#[derive(Clone, Debug)]
pub(crate) struct ProvisionBySize {
    small: ProvisionServer<ProvisionService>,
    piece: ProvisionServer<ProvisionService>,
    large: ProvisionServer<ProvisionService>,
}

impl ProvisionBySize {
    pub(crate) fn new(service: ProvisionService) -> Self {
        let limited = |bytes| ProvisionServer::new(service.clone()).max_decoding_message_size(bytes);
        Self {
            small: limited(SMALL_BYTES_MAX),
            piece: limited(PIECE_BYTES_MAX),
            large: limited(PROVISION_MESSAGE_BYTES_MAX),
        }
    }
}

impl NamedService for ProvisionBySize {
    const NAME: &'static str = <ProvisionServer<ProvisionService> as NamedService>::NAME;
}

impl Service<Request<Body>> for ProvisionBySize {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <ProvisionServer<ProvisionService> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A generated server is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.uri().path() {
            "/weightvault.v1.Provision/PublishModel" => self.large.call(request),
            "/weightvault.v1.Provision/UploadUnit" => self.piece.call(request),
            _ => self.small.call(request),
        }
    }
}
