use attestation::{AkName, HpkePublicKey, IdentityKey, LogKey, Sha256Digest, UnixTime};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ledger::entry::{Entry, PolicyInForce, Proposal, Propose, ProposedPolicy};
use ledger::genesis::{AntiRollback, Core, Genesis, KeeperIdentity, SealTo};
use ledger::log_reader::ReadStatement;
use ledger::merkle::{Tree, leaf_hash};
use ledger::tiles::{decode_bundle, encode_bundle};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tonic::Code;
use tonic::transport::Channel;
use vault_proto::v1::audit_client::AuditClient;
use vault_proto::v1::{GetBlobRequest, GetCheckpointRequest, GetEntriesRequest, GetTileRequest, ReaderCredential};

use crate::setup::{Place, RunningHost, assert_refused, host_and_keeper};

/// Entries that say nothing.
pub fn entries(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(|n| format!("entry {n}").into_bytes()).collect()
}

/// A checkpoint of these entries. A host looks at no signature.
pub fn checkpoint(entries: &[Vec<u8>]) -> String {
    let mut tree = Tree::new();
    entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
    let root = tree.root(tree.len()).unwrap();
    format!("weightvault.v1/00\n{}\n{}\n\n— weightvault.v1/00 sig\n", tree.len(), STANDARD.encode(root))
}

fn approver(seed: u8) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let blob = attestation::lv(&[b"ssh-ed25519", pair.public_key().as_ref()]);
    format!("ssh-ed25519 {}", STANDARD.encode(blob))
}

fn policy(head: &str, readers: &str) -> String {
    let (alice, bob) = (approver(1), approver(2));
    let pcr = "11".repeat(32);
    format!(
        r#"format = 1
{head}
not_after = "2037-03-01T00:00:00Z"
[approval]
threshold = 2
proposer_may_approve = false
approvers = [ {{ id = "alice", key = "{alice}" }}, {{ id = "bob", key = "{bob}" }}, {{ id = "carol", key = "{carol}" }} ]
[keeper]
require = ["tpm"]
pcrs = {{ 0 = ["{pcr}"] }}
eks = "any"
[audit]
readers = {readers}
"#,
        carol = approver(3)
    )
}

fn named_readers() -> String {
    format!("[ {{ id = \"alice\", key = \"{}\" }} ]", approver(1))
}

/// The first entry of a log whose readers are these.
pub fn genesis(readers: &str) -> Vec<u8> {
    let policy = policy("vault = \"genesis\"\nserial = 1\nprev = \"none\"", readers);
    let keeper = KeeperIdentity {
        instance: [7; 32],
        wrap_key: HpkePublicKey::try_from([1; 1665].as_slice()).unwrap(),
        identity_key: IdentityKey::try_from([4; 97].as_slice()).unwrap(),
        log_key: LogKey::try_from([3; 32].as_slice()).unwrap(),
        platform: Sha256Digest::of(b"EK"),
        ak_name: AkName::try_from([[0, 0x0b].as_slice(), &[9; 32]].concat().as_slice()).unwrap(),
    };
    let core = Core::new(AntiRollback::None, SealTo::Tpm, &policy).unwrap();
    Genesis::build(UnixTime(7), &core, keeper).unwrap().bytes().to_vec()
}

/// A log that anybody may read.
fn open_log(size: u64) -> Vec<Vec<u8>> {
    std::iter::once(genesis("\"any\"")).chain(entries(1..size)).collect()
}

async fn tile(client: &mut AuditClient<Channel>, path: &str) -> Result<Vec<u8>, tonic::Status> {
    Ok(client.get_tile(GetTileRequest { path: path.to_owned() }).await?.into_inner().tile)
}

#[tokio::test]
async fn an_auditor_reads_what_is_under_the_checkpoint_and_nothing_above() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let mut client = host.audit().await;
    assert_refused(client.get_checkpoint(GetCheckpointRequest {}).await, Code::NotFound, "not-found");

    let log = open_log(700);
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log[..600]), 600).await.unwrap();
    let text = client.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().checkpoint;
    assert_eq!(text, checkpoint(&log[..600]));

    let mut seen = Vec::new();
    loop {
        let request = GetEntriesRequest { first: seen.len() as u64, count: 100 };
        let more = client.get_entries(request).await.unwrap().into_inner().entries;
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    assert_eq!(seen, log[..600]);

    let leaves: Vec<u8> = log[..256].iter().flat_map(|entry| leaf_hash(entry)).collect();
    assert_eq!(tile(&mut client, "tile/0/000").await.unwrap(), leaves);
    let bundle = tile(&mut client, "tile/entries/002.p/88").await.unwrap();
    assert_eq!(decode_bundle(&bundle, 88).unwrap(), log[512..600]);
    assert_eq!(std::fs::read(place.data_dir().join("log/tile/entries/002.p/88")).unwrap(), bundle);
    assert_eq!(encode_bundle(&log[512..600]).unwrap(), bundle);
    assert_refused(tile(&mut client, "tile/entries/002.p/89").await, Code::NotFound, "not-found");
    assert_refused(tile(&mut client, "tile/0/003").await, Code::NotFound, "not-found");
}

#[tokio::test]
async fn requests_that_name_no_tile_are_refused_whatever_they_name() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let log = open_log(3);
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 3).await.unwrap();
    let mut client = host.audit().await;
    let paths = [
        "",
        "/etc/passwd",
        "../checkpoint",
        "tile/../checkpoint",
        "tile/0/../../checkpoint",
        "tile/0/000/../000.p/3",
        "tile/0/0",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/x000/000",
        "tile/64/000",
        "tile/0/000\0",
        "checkpoint",
    ];
    for path in paths {
        assert_refused(tile(&mut client, path).await, Code::InvalidArgument, "malformed-path");
    }
    for count in [0, 1025] {
        let refused = client.get_entries(GetEntriesRequest { first: 0, count }).await;
        assert_refused(refused, Code::InvalidArgument, "malformed-count");
    }
    let none = client.get_entries(GetEntriesRequest { first: u64::MAX, count: 1 }).await.unwrap();
    assert_eq!(none.into_inner().entries, entries(0..0));
    let refused = client.get_blob(GetBlobRequest { digest: b"../../etc/passwd".to_vec() }).await;
    assert_refused(refused, Code::InvalidArgument, "malformed-digest");
    assert_refused(client.get_blob(GetBlobRequest { digest: vec![1; 32] }).await, Code::NotFound, "not-found");
}

#[tokio::test]
async fn blobs_come_as_they_were_put() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let log = open_log(1);
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 1).await.unwrap();
    let blob = vec![7; 8 << 20];
    let digest = Sha256Digest::of(&blob).as_bytes().to_vec();
    keeper.put_blob(&digest, &blob).await.unwrap();
    let got = host.audit().await.get_blob(GetBlobRequest { digest }).await.unwrap().into_inner().blob;
    assert_eq!(got, blob);
}

#[tokio::test]
async fn a_log_whose_policy_names_its_readers_is_served_to_nobody_who_does_not_say_who_he_is() {
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let first = genesis("\"any\"");
    let digest = |text: &str| Sha256Digest::of(text.as_bytes());
    let closed = policy(
        &format!(
            "vault = \"{}\"\nserial = 2\nprev = \"{}\"",
            Sha256Digest::of(&first),
            digest(&policy("vault = \"genesis\"\nserial = 1\nprev = \"none\"", "\"any\""))
        ),
        &named_readers(),
    );
    let proposed = ProposedPolicy {
        object: digest(&closed),
        policy: closed.clone(),
        statement: "s".to_owned(),
        signature: "s".to_owned(),
    };
    let propose = Entry::Propose(Propose { time: UnixTime(8), proposal: Proposal::Policy(proposed) });
    let in_force = Entry::Policy(PolicyInForce { time: UnixTime(9), proposal: 1, object: digest(&closed), serial: 2 });
    let log = [first, propose.encode().unwrap(), in_force.encode().unwrap()];

    let mut client = host.audit().await;
    let ask = GetEntriesRequest { first: 0, count: 1 };
    assert_refused(client.get_entries(ask).await, Code::PermissionDenied, "audit-reader-missing");
    keeper.append(0, &log[..2]).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log[..2]), 2).await.unwrap();
    client.get_entries(ask).await.unwrap();

    keeper.append(2, &log[2..]).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 3).await.unwrap();
    let check_closed = async |client: &mut AuditClient<Channel>| {
        assert_refused(client.get_entries(ask).await, Code::PermissionDenied, "audit-reader-missing");
        assert_refused(tile(client, "tile/0/000.p/3").await, Code::PermissionDenied, "audit-reader-missing");
        let blob = client.get_blob(GetBlobRequest { digest: vec![1; 32] }).await;
        assert_refused(blob, Code::PermissionDenied, "audit-reader-missing");
        client.get_checkpoint(GetCheckpointRequest {}).await.unwrap();
    };
    check_closed(&mut client).await;
    drop(client);
    host.stop().await;
    let host = RunningHost::start(&place.config("")).await;
    check_closed(&mut host.audit().await).await;
    host.stop().await;

    // The copy of the policy is only an index: without it the log itself is read again.
    std::fs::remove_file(place.data_dir().join("log/policy.toml")).unwrap();
    let host = RunningHost::start(&place.config("")).await;
    check_closed(&mut host.audit().await).await;
}

/// Metadata as a reader makes it, signed with the key of this seed.
fn asked<T>(message: T, seed: u8, statement: &[u8]) -> tonic::Request<T> {
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let head = [string(b"weightvault"), string(b""), string(b"sha256")].concat();
    let signed = [b"SSHSIG".as_slice(), &head, &string(Sha256Digest::of(statement).as_bytes())].concat();
    let key = attestation::lv(&[b"ssh-ed25519", pair.public_key().as_ref()]);
    let signature = attestation::lv(&[b"ssh-ed25519", pair.sign(&signed).as_ref()]);
    let blob = [b"SSHSIG\0\0\0\x01".as_slice(), &string(&key), &head, &string(&signature)].concat();
    let text = STANDARD.encode(blob);
    let lines: Vec<&str> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let signature = format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"));
    let mut request = tonic::Request::new(message);
    vault_proto::reader::attach(&ReaderCredential { statement: statement.to_vec(), signature }, request.metadata_mut());
    request
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_private_log_is_read_by_its_readers_and_approvers_and_by_nobody_else() {
    const READER: u8 = 9;
    let place = Place::new();
    let (host, keeper) = host_and_keeper(&place, |_| None).await;
    let mut client = host.audit().await;
    let ask = GetEntriesRequest { first: 0, count: 1 };
    let before = ReadStatement { vault: Sha256Digest::of(b"none"), not_after: UnixTime(now() + 60) }.encode();
    let refused = client.get_entries(asked(ask, READER, &before)).await;
    assert_refused(refused, Code::PermissionDenied, "audit-no-policy");

    let first = genesis(&format!("[ {{ id = \"dave\", key = \"{}\" }} ]", approver(READER)));
    let vault = Sha256Digest::of(&first);
    let log = [first];
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 1).await.unwrap();
    let good = ReadStatement { vault, not_after: UnixTime(now() + 3600) };
    let text = good.encode();
    for seed in [READER, 1, 2, 3] {
        let read = client.get_entries(asked(ask, seed, &text)).await.unwrap().into_inner();
        assert_eq!(read.entries, log, "reader or approver {seed}");
    }
    let path = "tile/entries/000.p/1".to_owned();
    client.get_tile(asked(GetTileRequest { path }, READER, &text)).await.unwrap();
    let blob = GetBlobRequest { digest: vec![1; 32] };
    assert_refused(client.get_blob(asked(blob, READER, &text)).await, Code::NotFound, "not-found");

    let other_action = String::from_utf8(text.clone()).unwrap().replace("read-log", "policy").into_bytes();
    let cases = [
        ("not-a-reader", 8, text.clone()),
        ("reader-statement-expired", READER, ReadStatement { not_after: UnixTime(now() - 2), ..good }.encode()),
        (
            "reader-statement-too-far-ahead",
            READER,
            ReadStatement { not_after: UnixTime(now() + 86_400), ..good }.encode(),
        ),
        ("reader-vault-other", READER, ReadStatement { vault: Sha256Digest::of(b"other"), ..good }.encode()),
        ("reader-action-other", READER, other_action),
    ];
    for (code, seed, statement) in cases {
        let refused = client.get_entries(asked(ask, seed, &statement)).await;
        assert_refused(refused, Code::PermissionDenied, code);
    }
    let mut twice = asked(ask, READER, &text);
    let value = tonic::metadata::MetadataValue::from_bytes(b"");
    twice.metadata_mut().append_bin(vault_proto::reader::READER_METADATA, value);
    assert_refused(client.get_entries(twice).await, Code::InvalidArgument, "malformed-reader-credential");

    drop(client);
    host.stop().await;
    let host = RunningHost::start(&place.config("")).await;
    host.audit().await.get_entries(asked(ask, READER, &text)).await.unwrap();
}
