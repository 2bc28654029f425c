//! `vaultctl collateral …`: a store of what SNP evidence needs beside the report, filled ahead and looked at.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use attestation::{ChainId, CollateralKey, HclReport, SNP_REPORT_BYTES, SnpProduct, UnixTime, VcekId};
use serde::Serialize;
use vault_proto::collateral::{
    AtHand, Collateral, CollateralFailure, CollateralOptions, CollateralStore, FetchError, KdsChoice, Limits,
    SourceError,
};

use crate::cli::PrefetchArgs;
use crate::failure::{Failure, Kind};
use crate::print::{Form, Plain, count_of, distance, moment};
use crate::session::{Session, read, read_text};

const HOSTS_BYTES_MAX: usize = 16 << 20;
const HOSTS_MAX: usize = 100_000;
/// A report, or an HCL report with its runtime data.
const CAPTURED_BYTES_MAX: usize = 16 << 10;

/// What a run of `prefetch` did.
#[derive(Debug, Serialize)]
pub(crate) struct PrefetchReport {
    store: PathBuf,
    hosts: usize,
    present: usize,
    fetched: usize,
    missing: Vec<Missing>,
}

/// What the store still has not got.
#[derive(Debug, Serialize)]
struct Missing {
    what: String,
    code: String,
    why: String,
}

/// What is in a store.
#[derive(Debug, Serialize)]
pub(crate) struct ListReport {
    store: PathBuf,
    objects: Vec<Object>,
    #[serde(skip)]
    now: UnixTime,
}

#[derive(Debug, Serialize)]
struct Object {
    path: PathBuf,
    what: String,
    /// Whether it belongs to its name and to the chain beside it. That AMD signed it, a verifier sees.
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    this_update: Option<UnixTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<UnixTime>,
}

impl PrefetchReport {
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Fetches what is not there yet. An object that is there, whole, is not asked for again; a revocation list is, once half of
/// its time has passed.
pub(crate) async fn prefetch(session: &Session, args: &PrefetchArgs) -> Result<PrefetchReport, Failure> {
    let wanted = read_hosts(&args.hosts)?;
    let limits = Limits { total: std::time::Duration::from_secs(args.within), ..Limits::default() };
    let collateral = open(Some(&args.out), &args.kds, args.kds_ca.as_deref(), limits)?;
    let total = wanted.objects.len();
    let mut report =
        PrefetchReport { store: args.out.clone(), hosts: wanted.hosts, present: 0, fetched: 0, missing: Vec::new() };
    let mut is_throttled = false;
    for (index, keys) in wanted.objects.iter().enumerate() {
        let Some(first) = keys.first() else { continue };
        let say = |what: &str| {
            if session.form() == Form::Text {
                eprintln!("[{}/{total}] {what}: {}", index + 1, Plain(first.to_string()));
            }
        };
        let is_there =
            |key: &CollateralKey| collateral.at_hand_now(key).is_some_and(|found| !found.is_due(session.now()));
        if keys.iter().any(is_there) {
            report.present += 1;
            continue;
        }
        if is_throttled {
            report.missing.push(Missing::not_asked(first));
            continue;
        }
        match fetch_any(&collateral, keys).await {
            // What could not be written is not there for the next one.
            Ok(()) if keys.iter().any(|key| collateral.store_has(key)) => {
                say("fetched");
                report.fetched += 1;
            }
            Ok(()) => report.missing.push(Missing::not_written(first, &args.out)),
            Err(failure) => {
                say("missing");
                is_throttled = failure.is_throttled();
                let throttled = FetchError::Throttled { retry_after: None };
                let code = if is_throttled { throttled.code() } else { failure.code() };
                let (what, code, why) = (first.to_string(), code.to_owned(), failure.to_string());
                report.missing.push(Missing { what, code, why });
            }
        }
    }
    Ok(report)
}

pub(crate) fn list(session: &Session, dir: &Path) -> Result<ListReport, Failure> {
    let stored = CollateralStore::new(dir.to_owned()).list().map_err(|error| {
        Failure::new(Kind::Failed, "file", format!("could not read {}", dir.display()))
            .why(error)
            .next("`vaultctl collateral prefetch --hosts FILE --out DIR` makes a store")
    })?;
    let collateral = open(Some(dir), &[], None, Limits::default())?;
    let object = |stored: vault_proto::collateral::Stored| {
        let found = collateral.at_hand_now(&stored.key);
        let (this_update, until) = match found {
            Some(AtHand { this_update, until }) => (this_update, Some(until)),
            None => (None, None),
        };
        Object { path: stored.path, what: stored.key.to_string(), usable: until.is_some(), this_update, until }
    };
    let objects = stored.into_iter().map(object).collect();
    Ok(ListReport { store: dir.to_owned(), objects, now: session.now() })
}

fn open(store: Option<&Path>, kds: &[KdsChoice], ca: Option<&Path>, limits: Limits) -> Result<Collateral, Failure> {
    let warn: fn(&str) = |text| eprintln!("warning: {}", Plain(text));
    let (store, ca) = (store.map(Path::to_owned), ca.map(Path::to_owned));
    let options = CollateralOptions { store, kds: kds.to_vec(), ca, limits, warn };
    Collateral::new(options).map_err(|error: SourceError| {
        Failure::new(Kind::Usage, error.code(), "the key service can't be used").why(error)
    })
}

async fn fetch_any(collateral: &Collateral, keys: &[CollateralKey]) -> Result<(), CollateralFailure> {
    let mut first = None;
    for key in keys {
        match collateral.fetch(key).await {
            Ok(_) => return Ok(()),
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    first.map_or(Ok(()), Err)
}

/// Any one of the keys of each object does.
struct Wanted {
    hosts: usize,
    objects: Vec<Vec<CollateralKey>>,
}

/// `Milan CHIP_ID bootloader=3 tee=0 snp=8 microcode=115`, or the path of a captured report, relative to the list. Empty lines
/// and what follows `#` are left out.
fn read_hosts(file: &Path) -> Result<Wanted, Failure> {
    let text = read_text(file, HOSTS_BYTES_MAX)?;
    let mut chains = BTreeSet::new();
    let mut leaves: Vec<Vec<CollateralKey>> = Vec::new();
    let mut hosts = 0;
    for (index, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
        if line.is_empty() {
            continue;
        }
        hosts += 1;
        let malformed = |code: &str, why: &dyn fmt::Display| {
            Failure::new(Kind::Usage, code, format!("{}, line {}: names no host", file.display(), index + 1))
                .why(why)
                .next("write PRODUCT CHIP_ID bootloader=N tee=N snp=N microcode=N (Turin: fmc=N too), or the path of a report")
        };
        if hosts > HOSTS_MAX {
            return Err(malformed("too-many-hosts", &format!("a list has at most {HOSTS_MAX}")));
        }
        let ids = ids_of(line, file).map_err(|(code, why)| malformed(code, &why))?;
        chains.extend(ids.iter().map(VcekId::chain));
        let keys = ids.into_iter().map(CollateralKey::Vcek).collect();
        if !leaves.contains(&keys) {
            leaves.push(keys);
        }
    }
    let of_chains = chains.iter().flat_map(|id: &ChainId| [CollateralKey::Chain(*id), CollateralKey::Crl(*id)]);
    let objects = of_chains.map(|key| vec![key]).chain(leaves).collect();
    Ok(Wanted { hosts, objects })
}

fn ids_of(line: &str, list: &Path) -> Result<Vec<VcekId>, (&'static str, String)> {
    let first = line.split_ascii_whitespace().next().unwrap_or_default();
    if first.parse::<SnpProduct>().is_ok() {
        let id: VcekId =
            line.parse().map_err(|error: attestation::CollateralError| (error.code(), error.to_string()))?;
        return Ok(vec![id]);
    }
    let path = list.parent().unwrap_or(Path::new("")).join(line);
    let captured = read(&path, CAPTURED_BYTES_MAX).map_err(|failure| ("report-unreadable", failure.to_string()))?;
    let report = if captured.len() == SNP_REPORT_BYTES {
        captured
    } else {
        let hcl = HclReport::parse(&captured);
        hcl.map_err(|_| ("report-unreadable", format!("{} is no report", path.display())))?.report().to_vec()
    };
    VcekId::of_report(&report).map_err(|error| (error.code(), error.to_string()))
}

impl Missing {
    fn not_asked(key: &CollateralKey) -> Self {
        let throttled = FetchError::Throttled { retry_after: None };
        let why = "not asked: the service wants fewer requests. Run the command again later: it goes on where it was";
        Self { what: key.to_string(), code: throttled.code().to_owned(), why: why.to_owned() }
    }

    fn not_written(key: &CollateralKey, dir: &Path) -> Self {
        let why = format!("it was fetched and could not be written below {}", dir.display());
        Self { what: key.to_string(), code: "store-not-written".to_owned(), why }
    }
}

impl fmt::Display for PrefetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hosts, store) = (count_of(self.hosts as u64, "host"), self.store.display());
        let (present, fetched, missing) = (self.present, self.fetched, self.missing.len());
        writeln!(f, "{hosts}: {fetched} fetched, {present} there before, {missing} missing, in {store}")?;
        self.missing.iter().try_for_each(|one| writeln!(f, "  missing: {} [{}]\n    {}", one.what, one.code, one.why))
    }
}

impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.store.display(), count_of(self.objects.len() as u64, "object"))?;
        for object in &self.objects {
            match object.until {
                Some(until) => {
                    writeln!(f, "  {}\n    until {} ({})", object.what, moment(until), distance(until, self.now))?;
                }
                None => writeln!(f, "  {}\n    NOT USABLE: {}", object.what, object.path.display())?,
            }
        }
        Ok(())
    }
}
