use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::io::Errno;

use super::*;
use crate::snp::{Pace, SnpDevice, Way};

type Files = BTreeMap<&'static str, Vec<u8>>;

/// A tree in a plain directory, which a thread of the test fills as the kernel fills one of configfs.
struct Tree {
    root: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Files>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a new entry has at first, and what it has once it was asked: changed by each test.
#[derive(Clone)]
struct Content {
    first: Files,
    then: Files,
    /// Writes of others, in the first entry, the second, …
    others: Vec<u32>,
    /// Whether the report is over what was written.
    honest: bool,
}

const INPUTS: [&str; 5] = ["privlevel", "service_provider", "service_guid", "service_manifest_version", "inblob"];

impl Content {
    fn good() -> Self {
        let inputs = INPUTS.map(|name| (name, Vec::new()));
        let first: [(_, &[u8]); 3] =
            [("provider", b"sev_guest\n"), ("generation", b"0\n"), ("privlevel_floor", b"0\n")];
        let first = first.map(|(name, value)| (name, value.to_vec()));
        let then = [("auxblob", b"table".to_vec()), ("outblob", vec![7; REPORT_BYTES])];
        Self {
            first: inputs.into_iter().chain(first).chain([("outblob", Vec::new())]).collect(),
            then: then.into_iter().collect(),
            others: Vec::new(),
            honest: true,
        }
    }

    fn first(mut self, name: &'static str, value: &[u8]) -> Self {
        self.first.insert(name, value.to_vec());
        self
    }

    fn then(mut self, name: &'static str, value: &[u8]) -> Self {
        self.then.insert(name, value.to_vec());
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.first.remove(name);
        self.then.remove(name);
        self
    }
}

impl Tree {
    fn start(content: Content) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (requests, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let server = Server { root: root.path().into(), stage: tempfile::tempdir().unwrap(), content };
        let (log, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || server.run(&log, &stopped));
        Self { root, requests, stop, thread: Some(thread) }
    }

    fn tsm(&self) -> ConfigfsTsm {
        let patience = Patience { tries: 2000, pause: Duration::from_millis(2) };
        ConfigfsTsm { patience, ..ConfigfsTsm::new(self.root.path().into()) }
    }

    fn device(&self) -> SnpDevice {
        SnpDevice { way: Way::ConfigfsTsm(self.tsm()), pace: Pace::none() }
    }

    /// What was written to each entry.
    fn requests(&self) -> Vec<Files> {
        self.requests.lock().unwrap().clone()
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.root.path()).unwrap().next().is_none()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Server {
    root: PathBuf,
    stage: tempfile::TempDir,
    content: Content,
}

impl Server {
    fn run(self, requests: &Mutex<Vec<Files>>, stop: &AtomicBool) {
        let (mut filled, mut answered) = (Vec::new(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            for entry in fs::read_dir(&self.root).unwrap().flatten().map(|entry| entry.path()) {
                if !filled.contains(&entry) {
                    self.fill(&entry);
                    filled.push(entry);
                } else if !answered.contains(&entry) && fs::read(entry.join("inblob")).is_ok_and(|b| b.len() == 64) {
                    let read = |name| fs::read(entry.join(name)).unwrap_or_default();
                    let request: Files = INPUTS.map(|name| (name, read(name))).into_iter().collect();
                    let writes = request.values().filter(|value| !value.is_empty()).count();
                    self.answer(&entry, &request["inblob"], writes, answered.len());
                    requests.lock().unwrap().push(request);
                    answered.push(entry);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn fill(&self, entry: &Path) {
        for (name, value) in self.content.first.iter().filter(|(name, _)| **name != "provider") {
            self.put(entry, name, value);
        }
        // Last: it is what a guest looks for.
        if let Some(provider) = self.content.first.get("provider") {
            self.put(entry, "provider", provider);
        }
    }

    fn answer(&self, entry: &Path, inblob: &[u8], writes: usize, count: usize) {
        let others = self.content.others.get(count).copied().unwrap_or(0);
        if self.content.first.get("generation").is_some_and(|first| first == b"0\n") {
            self.put(entry, "generation", format!("{}\n", writes as u32 + others).as_bytes());
        }
        let mut then = self.content.then.clone();
        let mut outblob = then.remove("outblob");
        if let Some(field) = outblob.as_mut().and_then(|report| report.get_mut(REPORT_DATA)) {
            field.copy_from_slice(inblob);
            field[0] ^= u8::from(!self.content.honest);
        }
        then.iter().for_each(|(name, value)| self.put(entry, name, value));
        if let Some(report) = outblob {
            self.put(entry, "outblob", &report);
        }
    }

    /// At once. A guest that refused what it saw has removed the entry already.
    fn put(&self, entry: &Path, name: &str, value: &[u8]) {
        let staged = self.stage.path().join(name);
        fs::write(&staged, value).unwrap();
        let _ = fs::rename(&staged, entry.join(name));
    }
}

/// What the one thing that the test changed comes to; nothing is left behind.
fn refusal(content: Content) -> SnpDeviceError {
    let tree = Tree::start(content);
    let error = tree.tsm().report(&[1; 64], None).expect_err("refused");
    assert!(tree.is_empty(), "an entry is left behind");
    error
}

#[test]
fn a_report_is_over_the_data_given_and_its_entry_is_removed() {
    let tree = Tree::start(Content::good());
    for data in [[1; 64], [2; 64]] {
        let raw = tree.tsm().report(&data, None).unwrap();
        assert_eq!((raw.report.len(), &raw.report[REPORT_DATA]), (REPORT_BYTES, &data[..]));
        assert_eq!((raw.certificate_table.as_slice(), raw.manifest), (&b"table"[..], None));
        assert!(tree.is_empty());
    }
    let requests = tree.requests();
    assert_eq!(requests.iter().map(|request| &request["inblob"][..]).collect::<Vec<_>>(), [[1; 64], [2; 64]]);
    assert_eq!(requests[0]["privlevel"], b"");
    tree.tsm().probe().unwrap();
    assert!(tree.is_empty());
}

#[test]
fn a_tree_without_certificates_gives_none() {
    for content in [Content::good().then("auxblob", b""), Content::good().without("auxblob")] {
        let tree = Tree::start(content);
        assert_eq!(tree.tsm().report(&[1; 64], None).unwrap().certificate_table, b"");
    }
}

#[test]
fn what_a_tree_gives_is_refused_for_its_own_reason() {
    use SnpDeviceError as E;
    let good = Content::good;
    assert_eq!(refusal(good().first("provider", b"tdx_guest\n")), E::OtherProvider("tdx_guest".into()));
    assert_eq!(refusal(good().first("provider", b"\x1b[2J")), E::AttributeMalformed("provider"));
    assert_eq!(refusal(good().first("provider", &[b'a'; 65])), E::Oversize { what: "provider", max: 64 });
    assert_eq!(refusal(good().first("generation", b"x\n")), E::AttributeMalformed("generation"));
    assert_eq!(refusal(good().without("generation")), E::AttributeMissing("generation"));
    assert_eq!(refusal(good().without("inblob")), E::AttributeMissing("inblob"));
    assert_eq!(refusal(good().first("privlevel_floor", b"256\n")), E::AttributeMalformed("privlevel_floor"));
    assert_eq!(refusal(good().then("outblob", &[7; REPORT_BYTES - 1])), E::ReportLength(REPORT_BYTES - 1));
    assert_eq!(refusal(good().then("outblob", &[7; REPORT_BYTES + 1])), E::ReportLength(REPORT_BYTES + 1));
    assert_eq!(refusal(good().then("outblob", &[7; 4096])), E::Oversize { what: "outblob", max: REPORT_BYTES + 1 });
    assert_eq!(refusal(good().then("auxblob", &[7; (64 << 10) + 1])), E::Oversize { what: "auxblob", max: 64 << 10 });
    assert_eq!(refusal(Content { honest: false, ..good() }), E::ReportOfOtherData);
    assert_eq!(refusal(Content { others: vec![1], ..good() }), E::Raced);
}

#[test]
fn what_never_comes_is_not_waited_for_without_end() {
    let impatient = |content| {
        let tree = Tree::start(content);
        let tsm = ConfigfsTsm { patience: Patience { tries: 100, ..tree.tsm().patience }, ..tree.tsm() };
        let error = tsm.report(&[1; 64], None).err();
        assert!(tree.is_empty());
        error
    };
    assert_eq!(impatient(Content::good().then("outblob", b"")), Some(SnpDeviceError::ReportLength(0)));
    let missing = SnpDeviceError::AttributeMissing("provider");
    assert_eq!(impatient(Content::good().without("provider")), Some(missing));
}

#[test]
fn a_race_is_tried_again_and_one_without_end_is_refused() {
    let tree = Tree::start(Content { others: vec![1, 7], ..Content::good() });
    assert_eq!(tree.device().report(&[3; 64], None).unwrap().report[REPORT_DATA], [3; 64]);
    assert_eq!(tree.requests().len(), 3);

    let tree = Tree::start(Content { others: vec![1; 100], ..Content::good() });
    assert_eq!(tree.device().report(&[3; 64], None), Err(SnpDeviceError::Raced));
    assert_eq!(tree.requests().len(), 5);
    assert!(tree.is_empty());
}

#[test]
fn a_level_is_asked_for_as_given_or_as_the_guest_has_it() {
    let tree = Tree::start(Content::good().first("privlevel_floor", b"2\n"));
    for vmpl in [None, Some(2), Some(3)] {
        tree.tsm().report(&[1; 64], vmpl).unwrap();
    }
    let asked: Vec<Vec<u8>> =
        tree.requests().into_iter().map(|mut request| request.remove("privlevel").unwrap()).collect();
    assert_eq!(asked, [b"2", b"2", b"3"]);
    let below = SnpDeviceError::VmplBelowFloor { asked: 1, floor: 2 };
    assert_eq!(tree.tsm().report(&[1; 64], Some(1)), Err(below));
    assert_eq!(tree.tsm().report(&[1; 64], Some(4)), Err(SnpDeviceError::Vmpl(4)));

    let older = Tree::start(Content::good().without("privlevel_floor"));
    older.tsm().report(&[1; 64], Some(1)).unwrap();
    older.tsm().report(&[1; 64], None).unwrap();
    assert_eq!(older.requests().iter().map(|request| &request["privlevel"][..]).collect::<Vec<_>>(), [&b"1"[..], b""]);
}

#[test]
fn an_svsm_is_asked_for_its_services_and_gives_its_manifest() {
    let guid: ServiceGuid = "63849ebb-3d92-4670-a1ff-58f9c94b87bb".parse().unwrap();
    let content = Content { honest: false, ..Content::good().then("manifestblob", b"services") };
    let tree = Tree::start(content);
    let whole = tree.tsm().with_service(SvsmService::default()).report(&[1; 64], None).unwrap();
    assert_eq!(whole.manifest.as_deref(), Some(&b"services"[..]));
    let one = SvsmService { guid: Some(guid), manifest_version: Some(1) };
    tree.tsm().with_service(one).report(&[1; 64], None).unwrap();
    let written = |request: &Files| INPUTS[1..4].iter().map(|name| request[name].clone()).collect::<Vec<_>>();
    let requests = tree.requests();
    assert_eq!(written(&requests[0]), [b"svsm".to_vec(), vec![], vec![]]);
    let expected: [&[u8]; 3] = [b"svsm", b"63849ebb-3d92-4670-a1ff-58f9c94b87bb", b"1"];
    assert_eq!(written(&requests[1]), expected);

    let refused = |content| {
        let tree = Tree::start(content);
        tree.tsm().with_service(SvsmService::default()).report(&[1; 64], None).err()
    };
    let good = || Content::good().then("manifestblob", b"services");
    assert_eq!(refused(Content::good()), Some(SnpDeviceError::AttributeMissing("manifestblob")));
    let older = refused(good().without("service_provider"));
    assert_eq!(older, Some(SnpDeviceError::AttributeMissing("service_provider")));
    let oversize = SnpDeviceError::Oversize { what: "manifestblob", max: 64 << 10 };
    assert_eq!(refused(good().then("manifestblob", &[0; (64 << 10) + 1])), Some(oversize));
}

#[test]
fn a_service_has_the_form_of_a_guid() {
    for wrong in ["", "63849ebb", "63849EBB-3d92-4670-a1ff-58f9c94b87bb", "63849ebb-3d92-4670-a1ff-58f9c94b87b\n"] {
        let refused = wrong.parse::<ServiceGuid>().err();
        assert_eq!(refused, Some(SnpDeviceError::AttributeMalformed("service_guid")), "{wrong:?}");
    }
}

#[test]
fn a_tree_that_is_absent_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for root in [Path::new("/nonexistent/tsm"), file.path()] {
        let refused = ConfigfsTsm::new(root.into()).report(&[1; 64], None);
        assert_eq!(refused, Err(SnpDeviceError::Absent(root.into())));
    }
}

#[test]
fn each_error_of_the_system_has_its_meaning() {
    let at = Path::new("/tsm/entry");
    let meaning = |errno| SnpDeviceError::at(at, "outblob", &io::Error::from(errno));
    assert_eq!([Errno::ACCESS, Errno::PERM].map(meaning), [(); 2].map(|()| SnpDeviceError::Denied(at.into())));
    assert_eq!([Errno::BUSY, Errno::AGAIN].map(meaning), [SnpDeviceError::Busy, SnpDeviceError::Busy]);
    assert_eq!(meaning(Errno::NXIO), SnpDeviceError::NoProvider);
    assert_eq!(meaning(Errno::NOENT), SnpDeviceError::Absent(at.into()));
    assert_eq!(meaning(Errno::INVAL), SnpDeviceError::System { what: "outblob", errno: Errno::INVAL });
    assert_eq!(refused(at, "outblob", &io::Error::from(Errno::NOENT)), SnpDeviceError::AttributeMissing("outblob"));
    assert_eq!(refused(at, "outblob", &io::Error::from(Errno::BUSY)), SnpDeviceError::Busy);
}
