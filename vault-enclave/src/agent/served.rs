//! A model in its place for a command, with the lease on it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger::policy::LeaseEnd;
use ring::rand::SystemRandom;
use tempfile::TempDir;
use vault_proto::convert::ModelName;

use super::attester::AgentIdentity;
use super::child::Load;
use super::fixed::FixedDir;
use super::holder::{Lease, Lost};
use super::in_use::users_of;
use super::job::Owner;
use super::lease_signer::LeaseSigner;
use super::load::end;
use super::look::look;
use super::mount::{MountPoint, PrivateMount};
use super::numa::Numa;
use super::options::Request;
use super::report;
use super::spec::Wanted;
use crate::failure::{Failure, Kind};
use crate::open::{Destination, OpenedModel, View};
use crate::place::{Facts, judge};

/// How the models of one command are loaded.
pub(super) struct Loading {
    pub(super) identity: AgentIdentity,
    pub(super) owner: Owner,
    pub(super) numa: Option<Numa>,
    /// Where models are loaded that are to take the place of others, if any are.
    pub(super) beside: Option<Beside>,
}

/// A mount that nobody looks at, in which other versions are mounted until they are shown.
pub(super) struct Beside {
    mount: PrivateMount,
    count: AtomicU64,
    // After the mount, which lies on it.
    _directory: TempDir,
}

impl Beside {
    /// On a directory that was made for it.
    ///
    /// # Errors
    /// `mount`, `path-replaced`.
    pub(super) fn new(directory: TempDir, fixed: &FixedDir) -> Result<Self, Failure> {
        let mount = PrivateMount::for_directories(MountPoint::at(fixed)?)?;
        Ok(Self { mount, count: AtomicU64::new(0), _directory: directory })
    }

    fn point(&self) -> Result<MountPoint, Failure> {
        MountPoint::within(&self.mount, &self.count.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

/// A model that the command has.
pub(super) struct Served {
    pub(super) name: ModelName,
    /// `None` once they were dropped. Wiped before the mount goes.
    files: Option<OpenedModel>,
    mount: PrivateMount,
    lease: Lease,
    lease_end: LeaseEnd,
    /// Whether its release says what is started.
    pub(super) shows_workload: bool,
}

impl Loading {
    /// Loads a model at its path, unless `stop` comes first: `None`.
    ///
    /// # Errors
    /// Nothing is left of what failed.
    pub(super) async fn load(
        &self,
        wanted: &Wanted,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Served>, Failure> {
        let mut stop = pin!(stop);
        let Some(wanted) = self.found(wanted, stop.as_mut()).await? else { return Ok(None) };
        let (bytes, files) = size(&wanted.request).await?;
        let mount = PrivateMount::new(MountPoint::at(&wanted.at)?, bytes, files, self.numa.as_ref())?;
        self.load_into(mount, bytes, &wanted, stop).await
    }

    /// Loads a model beside the one that is at its path. [`Served::show`] lets it take the other's place.
    ///
    /// # Errors
    /// As [`Loading::load`].
    pub(super) async fn load_beside(
        &self,
        wanted: &Wanted,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Served>, Failure> {
        let mut stop = pin!(stop);
        let Some(wanted) = self.found(wanted, stop.as_mut()).await? else { return Ok(None) };
        let (bytes, files) = size(&wanted.request).await?;
        let nowhere = || Failure::new(Kind::Failed, "mount", "no other version was expected");
        let point = self.beside.as_ref().ok_or_else(nowhere)?.point()?;
        let mount = PrivateMount::new(point, bytes, files, self.numa.as_ref())?;
        self.load_into(mount, bytes, &wanted, stop).await
    }

    /// With its tensors found, where some are named.
    async fn found(&self, wanted: &Wanted, stop: impl Future<Output = ()>) -> Result<Option<Wanted>, Failure> {
        let mut wanted = wanted.clone();
        Ok(look(&mut wanted.request, &self.identity, stop).await?.map(|()| wanted))
    }

    async fn load_into(
        &self,
        mount: PrivateMount,
        bytes: u64,
        wanted: &Wanted,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Served>, Failure> {
        let request = &wanted.request;
        let directory = mount.directory()?;
        let place = judge(&Facts::of(&directory)?, bytes, false)?;
        let destination = Destination::new(directory, place)?;
        let signer = Arc::new(LeaseSigner::generate(&SystemRandom::new())?);
        let load = Load {
            request,
            identity: &self.identity,
            signer: &signer,
            into: Some(mount.path()),
            owner: Some(self.owner),
            insecure_plaintext_on_disk: false,
        };
        let Some(held) = load.run(destination, stop).await? else { return Ok(None) };
        report::loaded(&held, wanted.at.path());
        let (lease_end, shows_workload) = (held.statement.lease_end, held.release.workload.is_some());
        let (name, files, lease) = (request.model.clone(), Some(held.model), held.lease);
        let served = Served { name, files, mount, lease, lease_end, shows_workload };
        match served.mount.give(self.owner) {
            Ok(()) => Ok(Some(served)),
            Err(failure) => match served.release() {
                Ok(end) => {
                    end.await;
                    Err(failure)
                }
                Err(left) => Err(failure.beside(&left)),
            },
        }
    }
}

impl Served {
    /// Lets the command see what takes this model's place later. Before the command is started.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn make_replaceable(&self) -> Result<(), Failure> {
        self.mount.share()
    }

    /// Takes the place of `other` in one step: whoever opens a file from now on opens one of this model. Who has one of the
    /// other model open keeps it.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn show(&mut self, other: &mut Self) -> Result<(), Failure> {
        self.mount.move_over(&mut other.mount)
    }

    /// Resolves when its lease is lost.
    pub(super) async fn lost(&self) -> (Lost, LeaseEnd) {
        (self.lease.lost().await, self.lease_end)
    }

    /// Whether its lease is lost by now.
    pub(super) fn lost_by_now(&self) -> Option<Lost> {
        self.lease.lost_by_now()
    }

    /// Whether its files are there.
    pub(super) fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// Processes that have one of its files open or mapped.
    pub(super) fn users(&self) -> Vec<u32> {
        if self.has_files() { users_of(self.mount.device()) } else { Vec::new() }
    }

    /// Wipes its files and gives their memory back. The lease goes on: the command has read them.
    ///
    /// # Errors
    /// `destination-failed`.
    pub(super) fn drop_files(&mut self) -> Result<(), Failure> {
        Ok(self.files.take().map_or(Ok(()), OpenedModel::wipe)?)
    }

    /// Wipes its files, and ends its lease unless it has ended by itself.
    ///
    /// # Errors
    /// As [`Served::drop_files`].
    pub(super) fn release(mut self) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
        self.drop_files()?;
        let Self { mount, lease, .. } = self;
        drop(mount);
        Ok(end(lease))
    }
}

/// Bytes and files of what will be loaded, as the host tells them: for the size of the mount, no more. The loader checks.
pub(super) async fn size(request: &Request) -> Result<(u64, usize), Failure> {
    let manifest = request.hosts.connect().await?.manifest(request.model.clone()).await?;
    let views = request.part.views(&manifest)?;
    Ok((View::bytes_of(&views, &manifest)?, View::files_max(&views)))
}
