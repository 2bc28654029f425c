//! The tree through which Linux hands out reports: `/sys/kernel/config/tsm/report` (`drivers/virt/coco/tsm.c`, and for SNP
//! `drivers/virt/coco/sev-guest`), as of Linux 6.11.
//!
//! `mkdir` makes an entry with its attributes, `rmdir` takes it away. What is written to `inblob` takes effect on close; each
//! write raises `generation`; `outblob`, `auxblob` and `manifestblob` come from one report, which is made on the first read
//! after a write. Below VMPL 0 there are the attributes of an SVSM too. What an attribute does not allow is refused to root as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA512, digest};
use rustix::io::Errno;

use super::fuse::{Kind, Node, ROOT, Tree};
use super::platform::{SoftGuest, SoftPlatform};

/// The most that `inblob` takes.
const INBLOB_MAX: usize = 64;
/// The most that a text takes.
const TEXT_MAX: usize = 4096;
const PRIVLEVEL_MAX: u32 = 3;
/// Bits of an inode that say which attribute it is; the rest says which entry.
const ATTRIBUTE_BITS: u32 = 8;

/// A platform, the guest that reads the tree, and what the host does to it. A test may change it at any time.
#[derive(Clone, Debug)]
pub struct SoftMachine {
    /// The chip.
    pub platform: SoftPlatform,
    /// The guest.
    pub guest: SoftGuest,
    /// What the host passes along with a report: `None` is [`SoftPlatform::certificate_table`].
    pub certificates: Option<Vec<u8>>,
    /// What the SVSM says about its services, for guests below VMPL 0.
    pub manifest: Vec<u8>,
    /// What each request for a report fails with, as when the host throttles.
    pub failure: Option<Errno>,
}

impl SoftMachine {
    /// A good one, to be shared with those who change it.
    pub fn new(platform: SoftPlatform, guest: SoftGuest) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { platform, guest, certificates: None, manifest: Vec::new(), failure: None }))
    }

    /// `SNP_GET_EXT_REPORT` for this privilege level.
    fn report(&self, request: &Request) -> Result<Blobs, Errno> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let certificates = self.certificates.clone().unwrap_or_else(|| self.platform.certificate_table());
        let (vmpl, report_data, manifest) = match request.service_provider.as_deref() {
            None => {
                let report_data = request.inblob.as_slice().try_into().map_err(|_| Errno::INVAL)?;
                (request.privlevel, report_data, Vec::new())
            }
            // SVSM_ATTEST_SERVICES: the SVSM answers at its own level, over nonce and manifest.
            Some("svsm") if self.guest.vmpl > 0 => {
                let hash = digest(&SHA512, &[request.inblob.as_slice(), &self.manifest].concat());
                (0, hash.as_ref().try_into().map_err(|_| Errno::INVAL)?, self.manifest.clone())
            }
            Some(_) => return Err(Errno::INVAL),
        };
        // The firmware gives no one a report of a level above his own.
        if request.service_provider.is_none() && vmpl < self.guest.vmpl {
            return Err(Errno::IO);
        }
        let guest = self.guest.clone().with(|guest| guest.vmpl = vmpl);
        let report = self.platform.signed_report(&guest, report_data).to_vec();
        Ok(Blobs { report, certificates, manifest })
    }
}

/// The tree, over a machine.
pub struct TsmTree {
    machine: Arc<Mutex<SoftMachine>>,
    entries: BTreeMap<u64, Entry>,
    next_entry: u64,
}

impl TsmTree {
    /// An empty one.
    pub fn new(machine: Arc<Mutex<SoftMachine>>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { machine, entries: BTreeMap::new(), next_entry: 1 }))
    }

    fn vmpl(&self) -> u32 {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).guest.vmpl
    }
}

#[derive(Default)]
struct Entry {
    name: String,
    request: Request,
    generation: u64,
    /// The last report, and the generation that it answers.
    report: Option<(u64, Blobs)>,
}

#[derive(Default)]
struct Request {
    inblob: Vec<u8>,
    privlevel: u32,
    service_provider: Option<String>,
}

struct Blobs {
    report: Vec<u8>,
    certificates: Vec<u8>,
    manifest: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    Inblob,
    Outblob,
    Auxblob,
    Provider,
    Generation,
    Privlevel,
    PrivlevelFloor,
    Manifestblob,
    ServiceProvider,
    ServiceGuid,
    ServiceManifestVersion,
}

impl Attribute {
    const ALL: [Self; 11] = [
        Self::Inblob,
        Self::Outblob,
        Self::Auxblob,
        Self::Provider,
        Self::Generation,
        Self::Privlevel,
        Self::PrivlevelFloor,
        Self::Manifestblob,
        Self::ServiceProvider,
        Self::ServiceGuid,
        Self::ServiceManifestVersion,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Inblob => "inblob",
            Self::Outblob => "outblob",
            Self::Auxblob => "auxblob",
            Self::Provider => "provider",
            Self::Generation => "generation",
            Self::Privlevel => "privlevel",
            Self::PrivlevelFloor => "privlevel_floor",
            Self::Manifestblob => "manifestblob",
            Self::ServiceProvider => "service_provider",
            Self::ServiceGuid => "service_guid",
            Self::ServiceManifestVersion => "service_manifest_version",
        }
    }

    /// The attributes that a guest at this level sees.
    fn visible(vmpl: u32) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |attribute| vmpl > 0 || !attribute.is_of_svsm())
    }

    fn is_of_svsm(self) -> bool {
        match self {
            Self::Manifestblob | Self::ServiceProvider | Self::ServiceGuid | Self::ServiceManifestVersion => true,
            Self::Inblob | Self::Outblob | Self::Auxblob | Self::Provider => false,
            Self::Generation | Self::Privlevel | Self::PrivlevelFloor => false,
        }
    }

    fn kind(self) -> Kind {
        let limit = if self == Self::Inblob { INBLOB_MAX } else { TEXT_MAX };
        let (readable, immediate) = match self {
            Self::Inblob => (false, false),
            Self::Privlevel | Self::ServiceProvider | Self::ServiceGuid | Self::ServiceManifestVersion => (false, true),
            Self::Outblob | Self::Auxblob | Self::Manifestblob => (true, false),
            Self::Provider | Self::Generation | Self::PrivlevelFloor => (true, false),
        };
        Kind::File { readable, writable: !readable, immediate, limit }
    }

    fn node(self, entry: u64) -> Node {
        Node { inode: entry << ATTRIBUTE_BITS | (self as u64 + 1), kind: self.kind() }
    }
}

fn directory(entry: u64) -> Node {
    Node { inode: entry << ATTRIBUTE_BITS, kind: Kind::Directory }
}

/// The entry that an inode belongs to, and its attribute if it is one.
fn parts(inode: u64) -> (u64, Option<Attribute>) {
    let attribute = (inode & ((1 << ATTRIBUTE_BITS) - 1)) as usize;
    (inode >> ATTRIBUTE_BITS, attribute.checked_sub(1).and_then(|index| Attribute::ALL.get(index).copied()))
}

impl Tree for TsmTree {
    fn node(&self, inode: u64) -> Option<Node> {
        if inode == ROOT {
            return Some(Node { inode, kind: Kind::Directory });
        }
        let (entry, attribute) = parts(inode);
        self.entries.contains_key(&entry).then(|| attribute.map_or(directory(entry), |attribute| attribute.node(entry)))
    }

    fn list(&self, inode: u64) -> Vec<(String, Node)> {
        if inode == ROOT {
            return self.entries.iter().map(|(&id, entry)| (entry.name.clone(), directory(id))).collect();
        }
        match parts(inode) {
            (entry, None) if self.entries.contains_key(&entry) => {
                let node = |attribute: Attribute| (attribute.name().to_owned(), attribute.node(entry));
                Attribute::visible(self.vmpl()).map(node).collect()
            }
            _ => Vec::new(),
        }
    }

    fn make_directory(&mut self, parent: u64, name: &str) -> Result<Node, Errno> {
        if parent != ROOT {
            return Err(Errno::PERM);
        }
        if self.entries.values().any(|entry| entry.name == name) {
            return Err(Errno::EXIST);
        }
        let id = self.next_entry;
        self.next_entry += 1;
        self.entries.insert(id, Entry { name: name.to_owned(), ..Entry::default() });
        Ok(directory(id))
    }

    fn remove_directory(&mut self, parent: u64, name: &str) -> Result<(), Errno> {
        let found = self.entries.iter().find(|(_, entry)| parent == ROOT && entry.name == name);
        let id = *found.ok_or(Errno::NOENT)?.0;
        self.entries.remove(&id);
        Ok(())
    }

    fn read(&mut self, inode: u64) -> Result<Vec<u8>, Errno> {
        let floor = self.vmpl();
        let (id, attribute) = parts(inode);
        let entry = self.entries.get_mut(&id).ok_or(Errno::NOENT)?;
        match attribute.ok_or(Errno::ISDIR)? {
            Attribute::Provider => Ok(b"sev_guest\n".to_vec()),
            Attribute::Generation => Ok(format!("{}\n", entry.generation).into_bytes()),
            Attribute::PrivlevelFloor => Ok(format!("{floor}\n").into_bytes()),
            Attribute::Outblob => entry.blobs(&self.machine).map(|blobs| blobs.report.clone()),
            Attribute::Auxblob => entry.blobs(&self.machine).map(|blobs| blobs.certificates.clone()),
            Attribute::Manifestblob => entry.blobs(&self.machine).map(|blobs| blobs.manifest.clone()),
            Attribute::Inblob | Attribute::Privlevel | Attribute::ServiceProvider => Err(Errno::ACCESS),
            Attribute::ServiceGuid | Attribute::ServiceManifestVersion => Err(Errno::ACCESS),
        }
    }

    fn write(&mut self, inode: u64, content: &[u8]) -> Result<(), Errno> {
        let floor = self.vmpl();
        let (id, attribute) = parts(inode);
        let entry = self.entries.get_mut(&id).ok_or(Errno::NOENT)?;
        match attribute.ok_or(Errno::ISDIR)? {
            Attribute::Inblob => entry.request.inblob = content.to_vec(),
            Attribute::Privlevel => entry.request.privlevel = privlevel(text(content)?, floor)?,
            Attribute::ServiceProvider => entry.request.service_provider = Some(text(content)?.to_owned()),
            // One manifest is all that this SVSM has.
            Attribute::ServiceGuid => text(content).map(drop)?,
            Attribute::ServiceManifestVersion => text(content)?.parse::<u32>().map(drop).map_err(|_| Errno::INVAL)?,
            Attribute::Outblob | Attribute::Auxblob | Attribute::Manifestblob => return Err(Errno::ACCESS),
            Attribute::Provider | Attribute::Generation | Attribute::PrivlevelFloor => return Err(Errno::ACCESS),
        }
        entry.generation += 1;
        Ok(())
    }
}

impl Entry {
    /// The report that answers what was last written.
    fn blobs(&mut self, machine: &Mutex<SoftMachine>) -> Result<&Blobs, Errno> {
        if self.request.inblob.is_empty() {
            return Err(Errno::INVAL);
        }
        let current = self.report.take().filter(|(generation, _)| *generation == self.generation);
        let blobs = match current {
            Some((_, blobs)) => blobs,
            None => machine.lock().unwrap_or_else(PoisonError::into_inner).report(&self.request)?,
        };
        Ok(&self.report.insert((self.generation, blobs)).1)
    }
}

fn text(content: &[u8]) -> Result<&str, Errno> {
    let text = std::str::from_utf8(content).map_err(|_| Errno::INVAL)?;
    Ok(text.strip_suffix('\n').unwrap_or(text))
}

fn privlevel(text: &str, floor: u32) -> Result<u32, Errno> {
    let level = text.parse().map_err(|_| Errno::INVAL)?;
    if (floor..=PRIVLEVEL_MAX).contains(&level) { Ok(level) } else { Err(Errno::INVAL) }
}
