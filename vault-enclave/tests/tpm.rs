//! The TPM thread against real software TPMs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tpm_support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use attestation::{
    ActivationSecret, Anchor, AttestationKey, Credential, EndorsedTpm, GenesisChallenge, HpkePublicKey, IdentityKey,
    LogKey, PcrSelection, Sha256Digest, TpmIdentity, TpmPart, Trust, TrustAnchors, UnixTime, verify_tpm,
};
use ring::rand::SystemRandom;
use tempfile::tempdir;
use tpm_support::link::{self, Fault, Link, Then};
use tpm_support::{SoftTpm, pcrs, raw};
use vault_enclave::secret::{CounterAuth, TpmSecret};
use vault_enclave::tpm::{Counter, RunId, Tpm, TpmError, TpmName, TpmObject};

#[test]
fn the_verifier_accepts_our_identity_credential_and_quote() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    let (identity, ak) = identity(&tpm);
    let endorsed = EndorsedTpm::verify(&identity, &anchors(&soft), now()).unwrap();
    let credential = endorsed.make_credential(&ActivationSecret::from_bytes([5; 32]), &SystemRandom::new()).unwrap();

    let activated = tpm.activate(&ak, &credential).wait().unwrap();
    let ours = challenge(&identity, activated).bind();
    let theirs = challenge(&identity, ActivationSecret::from_bytes([5; 32])).bind();
    assert_eq!(ours.digest(), theirs.digest(), "the TPM gave back the very secret");

    let quote = tpm.quote(&ak, ours.tpm_extra_data(), pcrs()).wait().unwrap();
    let (clock, values) = (quote.clock, quote.pcrs.clone());
    assert_eq!(values, tpm.read_pcrs(pcrs()).wait().unwrap());
    let verified = verify_tpm(quote.into_evidence(identity), &endorsed, theirs, &pcrs()).unwrap();
    assert_eq!(verified.claims().trust(), Trust::Emulated);
    assert_eq!(verified.claims().quote().unwrap().reset_count(), clock.reset_count);
    assert_eq!(verified.claims().quote().unwrap().clock(), clock.clock);
}

#[test]
fn every_pcr_can_be_quoted_at_once() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    let all = PcrSelection::try_from(&(0..24).collect::<Vec<u32>>()[..]).unwrap();
    let ak = tpm.create_ak().wait().unwrap();
    let quote = tpm.quote(&ak, [1; 32], all).wait().unwrap();
    assert_eq!(quote.pcrs.iter().count(), 24);
    assert_eq!(quote.pcrs.selection().unwrap(), all);
}

#[test]
fn a_credential_for_another_ak_another_tpm_or_damaged_is_refused() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(&dir.path().join("one"));
    let other = SoftTpm::start(&dir.path().join("two"));
    let (tpm, stranger) = (soft.connect(), other.connect());
    let (identity, ak) = identity(&tpm);
    let endorsed = EndorsedTpm::verify(&identity, &anchors(&soft), now()).unwrap();
    let make = || endorsed.make_credential(&ActivationSecret::from_bytes([5; 32]), &SystemRandom::new()).unwrap();
    let refused = |tpm: &Tpm, ak: &TpmObject, credential: &Credential| {
        assert_eq!(tpm.activate(ak, credential).wait().err(), Some(TpmError::CredentialRefused));
    };
    refused(&tpm, &tpm.create_ak().wait().unwrap(), &make());
    refused(&stranger, &stranger.create_ak().wait().unwrap(), &make());
    for position in [0, 5, 40] {
        let mut credential = make();
        credential.id_object[position] ^= 1;
        refused(&tpm, &ak, &credential);
        let mut credential = make();
        credential.encrypted_secret[position] ^= 1;
        refused(&tpm, &ak, &credential);
    }
    let mut credential = make();
    credential.id_object.push(0);
    refused(&tpm, &ak, &credential);
    tpm.activate(&ak, &make()).wait().unwrap();
    nothing_stays_open(&soft);
}

#[test]
fn an_object_of_another_tpm_or_damaged_is_refused() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(&dir.path().join("one"));
    let other = SoftTpm::start(&dir.path().join("two"));
    let (tpm, stranger) = (soft.connect(), other.connect());
    let ak = tpm.create_ak().wait().unwrap();
    let sealed = tpm.seal(secret(), pcrs()).wait().unwrap();
    let quote = |tpm: &Tpm, ak: &TpmObject| tpm.quote(ak, [0; 32], pcrs()).wait().err();
    assert_eq!(quote(&stranger, &ak), Some(TpmError::ObjectRefused));
    assert_eq!(stranger.unseal(&sealed).wait().err(), Some(TpmError::ObjectRefused));

    let mut private = ak.clone();
    private.private[20] ^= 1;
    assert_eq!(quote(&tpm, &private), Some(TpmError::ObjectRefused));
    let mut public = ak.clone();
    public.public.push(0);
    assert_eq!(quote(&tpm, &public), Some(TpmError::ObjectMalformed));
    assert_eq!(
        tpm.unseal(&{
            let mut s = sealed.clone();
            s.object = ak.clone();
            s
        })
        .wait()
        .err(),
        Some(TpmError::ObjectMalformed)
    );
    let mut values = sealed.clone();
    values.pcrs = values.pcrs.iter().map(|(index, value)| (index + 1, *value)).collect();
    assert_eq!(tpm.unseal(&values).wait().err(), Some(TpmError::ObjectMalformed));

    tpm.unseal(&sealed).wait().unwrap();
    assert_eq!(quote(&tpm, &ak), None);
    nothing_stays_open(&soft);
}

#[test]
fn a_secret_opens_after_a_reboot_but_not_after_a_pcr_changed() {
    let dir = tempdir().unwrap();
    let state = dir.path().join("tpm");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    std::fs::write(&one, "program").unwrap();
    std::fs::write(&two, "another").unwrap();
    let soft = SoftTpm::start_measuring(&state, &one);
    let sealed = soft.connect().seal(secret(), pcrs()).wait().unwrap();
    drop(soft);
    let soft = SoftTpm::start_measuring(&state, &one);
    let tpm = soft.connect();
    tpm.unseal(&sealed).wait().unwrap();
    raw::extend(soft.port(), 7);
    assert_eq!(tpm.unseal(&sealed).wait().err(), Some(TpmError::PcrsChanged(vec![7])));
    drop(soft);
    let soft = SoftTpm::start_measuring(&state, &two);
    assert_eq!(soft.connect().unseal(&sealed).wait().err(), Some(TpmError::PcrsChanged(vec![11])));
    nothing_stays_open(&soft);
}

#[test]
fn a_reboot_under_a_running_program_is_survived() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let port = soft.port();
    let tpm = soft.connect();
    let (ak, srk) = (tpm.create_ak().wait().unwrap(), tpm.srk_name().wait().unwrap());
    let before = tpm.quote(&ak, [0; 32], pcrs()).wait().unwrap();
    drop(soft);
    assert!(matches!(tpm.properties().wait(), Err(TpmError::Unavailable(_))));
    let _soft = SoftTpm::start_at(dir.path(), port);
    let after = tpm.quote(&ak, [0; 32], pcrs()).wait().unwrap();
    assert_eq!(after.clock.reset_count, before.clock.reset_count + 1);
    assert_eq!(after.pcrs, before.pcrs);
    assert_eq!(tpm.srk_name().wait().unwrap(), srk);
}

#[test]
fn what_a_killed_process_left_is_flushed() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    for _ in 0..4 {
        let link = Link::to(soft.port());
        let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap();
        let sealed = tpm.seal(secret(), pcrs()).wait().unwrap();
        link.arm(link::UNSEAL, 0, Fault::AnswerLost, Then::Dead);
        assert!(matches!(tpm.unseal(&sealed).wait().err(), Some(TpmError::Unavailable(_))));
        drop(tpm);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(raw::handles(soft.port(), raw::TRANSIENT).len(), 2, "the SRK and the sealed object");
        assert_eq!(raw::handles(soft.port(), raw::LOADED_SESSIONS).len(), 1);
    }
    drop(soft.connect());
    nothing_stays_open(&soft);
}

#[test]
fn one_lost_message_is_asked_again() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let link = Link::to(soft.port());
    let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap();
    let ak = tpm.create_ak().wait().unwrap();
    let sealed = tpm.seal(secret(), pcrs()).wait().unwrap();
    for fault in [Fault::CommandLost, Fault::AnswerLost] {
        link.arm(link::QUOTE, 0, fault, Then::Works);
        tpm.quote(&ak, [0; 32], pcrs()).wait().unwrap();
        link.arm(link::UNSEAL, 0, fault, Then::Works);
        tpm.unseal(&sealed).wait().unwrap();
        link.arm(link::START_SESSION, 0, fault, Then::Works);
        tpm.seal(secret(), pcrs()).wait().unwrap();
    }
    drop(tpm);
    nothing_stays_open(&soft);
}

#[test]
fn a_tpm_that_hangs_costs_its_callers_their_deadline_and_no_more() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let link = Link::to(soft.port());
    let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap().with_deadline(Duration::from_millis(300));
    let ak = tpm.create_ak().wait().unwrap();
    link.arm(link::QUOTE, 0, Fault::AnswerHangs, Then::Works);
    let start = Instant::now();
    assert_eq!(tpm.quote(&ak, [0; 32], pcrs()).wait().err(), Some(TpmError::Timeout));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(runtime.block_on(async { tpm.srk_name().await }).err(), Some(TpmError::Timeout));
    assert!(start.elapsed() < Duration::from_secs(2));
    let waiting: Vec<_> = (0..64).map(|_| tpm.properties()).collect();
    assert_eq!(tpm.properties().wait(), Err(TpmError::Busy));
    drop(waiting);
}

#[test]
fn a_reply_can_be_awaited_and_a_dropped_one_withdraws_its_request() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let link = Link::to(soft.port());
    let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let ak = runtime.block_on(async { tpm.create_ak().await }).unwrap();
    // Queued behind one that takes its time, so that they are still waiting when their callers leave.
    let first = tpm.create_ak();
    for _ in 0..8 {
        drop(tpm.quote(&ak, [0; 32], pcrs()));
    }
    first.wait().unwrap();
    tpm.srk_name().wait().unwrap();
    assert_eq!(link.sent(link::QUOTE), 0);
}

const RUN: RunId = [1; 32];

#[test]
fn a_counter_counts_by_one_and_only_for_who_knows_its_authorisation() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    let (auth, other) = (auth(), auth());
    let (counter, first) = tpm.define_counter(Arc::clone(&auth), RUN).wait().unwrap();
    let claim = |counter: &Counter, auth: &Arc<CounterAuth>| tpm.claim_counter(counter, Arc::clone(auth), RUN).wait();
    let increment = |from| tpm.increment_counter(&counter, Arc::clone(&auth), RUN, from).wait();
    assert_eq!(increment(first), Ok(first + 1));
    assert_eq!(claim(&counter, &auth), Ok(first + 1));
    assert_eq!(increment(first), Err(TpmError::CounterMoved { expected: first, found: first + 1 }));

    assert_eq!(claim(&counter, &other), Err(TpmError::CounterReplaced));
    let name = TpmName::of(b"another");
    for renamed in [Counter { name, ..counter }, Counter { run_name: name, ..counter }] {
        assert_eq!(claim(&renamed, &auth), Err(TpmError::CounterReplaced));
    }
    let (second, _) = tpm.define_counter(Arc::clone(&other), RUN).wait().unwrap();
    assert!(![counter.index, counter.run_index].contains(&second.index));

    for index in [counter.index, counter.run_index] {
        raw::undefine(soft.port(), raw::OWNER, index);
        assert_eq!(claim(&counter, &auth), Err(TpmError::CounterMissing));
    }
    let (again, value) = tpm.define_counter(Arc::clone(&other), RUN).wait().unwrap();
    assert_eq!((again, value), (counter, first + 2), "the same places and names, but a higher value");
    assert_eq!(claim(&counter, &auth), Err(TpmError::CounterReplaced));
    nothing_stays_open(&soft);
}

#[test]
fn an_increment_counts_only_for_the_run_that_has_the_counter() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    let auth = auth();
    let (counter, first) = tpm.define_counter(Arc::clone(&auth), RUN).wait().unwrap();
    assert_eq!(tpm.claim_counter(&counter, Arc::clone(&auth), [2; 32]).wait(), Ok(first));
    let increment = |run, from| tpm.increment_counter(&counter, Arc::clone(&auth), run, from).wait();
    assert_eq!(increment(RUN, first), Err(TpmError::CounterClaimed));
    assert_eq!(increment([2; 32], first + 1), Ok(first + 2));
}

#[test]
fn an_increment_is_never_sent_twice() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let link = Link::to(soft.port());
    let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap();
    let auth = auth();
    let (counter, mut value) = tpm.define_counter(Arc::clone(&auth), RUN).wait().unwrap();
    let sent = link.sent(link::NV_INCREMENT);
    for (fault, counted) in [(Fault::CommandLost, 0), (Fault::AnswerLost, 1)] {
        link.arm(link::NV_INCREMENT, 0, fault, Then::Works);
        let answer = tpm.increment_counter(&counter, Arc::clone(&auth), RUN, value).wait();
        assert_eq!(answer, Err(TpmError::CounterUncertain), "{fault:?}");
        value += counted;
        assert_eq!(tpm.claim_counter(&counter, Arc::clone(&auth), RUN).wait(), Ok(value), "{fault:?}");
    }
    assert_eq!(link.sent(link::NV_INCREMENT), sent + 1);
    // Before the TPM may have counted, everything may be asked again.
    link.arm(link::NV_READ, 0, Fault::AnswerLost, Then::Works);
    assert_eq!(tpm.increment_counter(&counter, auth, RUN, value).wait(), Ok(value + 1));
}

#[test]
fn a_lockout_stops_nothing_that_a_vault_does() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    assert_eq!(tpm.properties().wait().unwrap().lockout_max, 3);
    raw::lock_out(soft.port());
    let properties = tpm.properties().wait().unwrap();
    assert_eq!((properties.lockout_counter, properties.lockout_max), (0, 0));
    let (identity, ak) = identity(&tpm);
    let endorsed = EndorsedTpm::verify(&identity, &anchors(&soft), now()).unwrap();
    let credential = endorsed.make_credential(&ActivationSecret::from_bytes([5; 32]), &SystemRandom::new()).unwrap();
    tpm.activate(&ak, &credential).wait().unwrap();
    tpm.quote(&ak, [0; 32], pcrs()).wait().unwrap();
    let sealed = tpm.seal(secret(), pcrs()).wait().unwrap();
    tpm.unseal(&sealed).wait().unwrap();
    let (counter, value) = tpm.define_counter(auth(), RUN).wait().unwrap();
    assert_eq!(tpm.claim_counter(&counter, auth(), RUN).wait(), Err(TpmError::CounterReplaced));
    assert!(value > 0);
}

#[test]
fn a_tpm_without_certificate_or_with_a_password_says_so() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    tpm.ek_certificates().wait().unwrap();
    raw::overwrite(soft.port(), raw::EK_CERTIFICATE, &[0xff; 4]);
    assert_eq!(tpm.ek_certificates().wait(), Err(TpmError::EkCertificateMalformed));
    raw::undefine(soft.port(), raw::PLATFORM, raw::EK_CERTIFICATE);
    assert_eq!(tpm.ek_certificates().wait(), Err(TpmError::EkCertificateMissing));
    raw::change_auth(soft.port(), raw::ENDORSEMENT, b"password");
    assert_eq!(tpm.create_ak().wait(), Err(TpmError::HierarchyAuth));
    raw::change_auth(soft.port(), raw::OWNER, b"password");
    thread::sleep(Duration::from_millis(400)); // the SRK is unloaded
    assert_eq!(tpm.srk_name().wait(), Err(TpmError::HierarchyAuth));
    nothing_stays_open(&soft);
}

#[test]
fn a_tpm_that_is_full_of_counters_says_so() {
    let dir = tempdir().unwrap();
    let soft = SoftTpm::start(dir.path());
    let tpm = soft.connect();
    let auth = auth();
    // Each takes two of the 64 indices, and a TPM may have room for fewer.
    let refused = (0..33).find_map(|_| tpm.define_counter(Arc::clone(&auth), [1; 32]).wait().err());
    assert_eq!(refused, Some(TpmError::CounterSpace));
    nothing_stays_open(&soft);
}

#[test]
fn where_no_tpm_is_the_error_says_where_it_was_looked_for() {
    let unavailable = |tcti: &str| match Tpm::open(tcti.parse().unwrap()).err() {
        Some(TpmError::Unavailable(what)) => what,
        other => panic!("{other:?}"),
    };
    assert!(unavailable("swtpm:host=127.0.0.1,port=1").contains("swtpm:host=127.0.0.1,port=1"));
    assert!(unavailable("device:/nowhere/tpmrm0").contains("/nowhere/tpmrm0"));
}

fn identity(tpm: &Tpm) -> (TpmIdentity, TpmObject) {
    let ak = tpm.create_ak().wait().unwrap();
    let ek_certificates = tpm.ek_certificates().wait().unwrap();
    (TpmIdentity { ek_certificates, ek_public: Vec::new(), ak_public: ak.public.clone() }, ak)
}

fn anchors(soft: &SoftTpm) -> TrustAnchors {
    let pem = std::fs::read_to_string(soft.ca_issuer()).unwrap();
    TrustAnchors::built_in().with(Anchor::from_pem("ci", Trust::Emulated, &pem).unwrap()).unwrap()
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

/// A challenge whose binding depends on the secret; the keys in it are of no use.
fn challenge(identity: &TpmIdentity, secret: ActivationSecret) -> GenesisChallenge {
    GenesisChallenge {
        nonce: [1; 32],
        instance: [2; 32],
        core: Sha256Digest::of(b"core"),
        wrap_key: HpkePublicKey::try_from(&[3; 1665][..]).unwrap(),
        identity_key: IdentityKey::try_from(&[&[4][..], &[5; 96]].concat()[..]).unwrap(),
        log_key: LogKey::try_from(&[6; 32][..]).unwrap(),
        tpm: TpmPart::Activated { ak_name: *AttestationKey::parse(&identity.ak_public).unwrap().name(), secret },
    }
}

fn secret() -> Arc<TpmSecret> {
    Arc::new(TpmSecret::generate(&SystemRandom::new()).unwrap())
}

fn auth() -> Arc<CounterAuth> {
    Arc::new(CounterAuth::generate(&SystemRandom::new()).unwrap())
}

/// Once the thread has been idle for a moment, the TPM holds nothing of ours.
fn nothing_stays_open(soft: &SoftTpm) {
    thread::sleep(Duration::from_millis(400));
    assert_eq!(raw::handles(soft.port(), raw::TRANSIENT), Vec::<u32>::new());
    assert_eq!(raw::handles(soft.port(), raw::LOADED_SESSIONS), Vec::<u32>::new());
}
