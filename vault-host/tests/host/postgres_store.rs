//! Hosts on a real Postgres: what a bucket has not.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use vault_host::{BoundHost, Config, ServeError, check_store};
use vault_proto::v1::{FetchUnitsRequest, UnitRange};

use crate::audit::{checkpoint, entries, genesis};
use crate::bucket_tls::authority;
use crate::keeper::Keeper;
use crate::model::{SealedModel, proposes};
use crate::postgres::Postgres;
use crate::relay_cut::{CutAt, Relay};
use crate::s3::S3;
use crate::setup::{Place, RunningHost};

/// What opening the store of a configuration comes to.
async fn opened(config: &str) -> Result<(), (&'static str, String)> {
    let said = |error: ServeError| (error.code(), error.to_string());
    BoundHost::bind(Config::parse(config).unwrap()).await.map(drop).map_err(said)
}

async fn checked(config: &str) -> Result<(), &'static str> {
    let (config, runtime) = (Config::parse(config).unwrap(), tokio::runtime::Handle::current());
    let check = move || check_store(&config, runtime).map_err(|error| error.code());
    tokio::task::spawn_blocking(check).await.unwrap()
}

async fn host_on(config: &str, place: &Place) -> (RunningHost, Keeper) {
    let mut keeper = Keeper::start(&place.keeper_socket(), proposes);
    let host = RunningHost::start(config).await;
    keeper.attached().await;
    (host, keeper)
}

fn code(result: Result<(), String>) -> String {
    result.unwrap_err().split(':').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_at_the_first_start_and_those_of_a_later_version_are_left_alone() {
    let Some(postgres) = Postgres::start() else { return };
    let place = Place::new();
    // A word of the language is a name like another.
    let config = place.config(&postgres.config("user"));
    let there = || postgres.sql("vaults", "SELECT to_regclass('\"user\".objects') IS NOT NULL");
    assert_eq!((checked(&config).await, there().as_str()), (Ok(()), "f"), "asking makes nothing");
    opened(&config).await.unwrap();
    opened(&config).await.unwrap();
    assert_eq!(there(), "t");
    postgres.sql("vaults", "UPDATE \"user\".store SET version = 2");
    assert_eq!(opened(&config).await.unwrap_err().0, "store-schema-newer");
    assert_eq!(checked(&config).await, Err("store-schema-newer"));

    // A role that may make nothing uses what an administrator made for it, and no more.
    postgres.sql("vaults", "ALTER DATABASE vaults OWNER TO admin");
    let config = place.config(&postgres.config("prod"));
    let (refused, said) = opened(&config).await.unwrap_err();
    assert_eq!(refused, "store-refused");
    assert!(said.contains("permission denied") && said.contains("42501"), "{said}");
    postgres.sql("vaults", "CREATE SCHEMA prod AUTHORIZATION host");
    opened(&config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_what_it_acknowledged_is_refused() {
    let Some(mut postgres) = Postgres::start() else { return };
    let place = Place::new();
    let config = place.config(&postgres.config("prod"));
    opened(&config).await.unwrap();
    postgres.sql("vaults", "ALTER ROLE host SET synchronous_commit = off");
    let (refused, said) = opened(&config).await.unwrap_err();
    assert_eq!(refused, "store-not-durable");
    assert!(said.contains("synchronous_commit"), "{said}");
    postgres.sql("vaults", "ALTER ROLE host RESET synchronous_commit");
    opened(&config).await.unwrap();
    postgres.sql("vaults", "ALTER SYSTEM SET fsync = off");
    postgres.restart();
    let (refused, said) = opened(&config).await.unwrap_err();
    assert_eq!(refused, "store-not-durable");
    assert!(said.contains("fsync"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_or_crashes_under_a_host_costs_it_nothing() {
    let Some(mut postgres) = Postgres::start() else { return };
    let place = Place::new();
    let (_host, keeper) = host_on(&place.config(&postgres.config("prod")), &place).await;
    let mut size = 0;
    for crash in [false, true, false] {
        keeper.append(size, &entries(size..size + 3)).await.unwrap();
        size += 3;
        keeper.put_checkpoint(&checkpoint(&entries(0..size)), size).await.unwrap();
        // The server is away when the next call comes, and comes back while that waits.
        if crash {
            postgres.crash()
        } else {
            postgres.stop()
        }
        let call = keeper.begin_store(crate::keeper::append_call(size, &entries(size..size + 1))).await;
        tokio::task::block_in_place(|| postgres.restart());
        assert!(
            matches!(call.await.unwrap(), vault_proto::v1::store_result::Result::Done(_)),
            "it waits for the server"
        );
        size += 1;
        assert_eq!(keeper.read(0, 4096).await.unwrap(), entries(0..size));
    }
}

/// The connection goes in the middle of a write: before it came, or after it was carried out. What is in the table tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_in_the_middle_of_a_commit_leaves_no_doubt() {
    let Some(postgres) = Postgres::start() else { return };
    let (place, other) = (Place::new(), Place::new());
    let relay = Relay::start(&postgres.cluster().join(".s.PGSQL.5432")).await;
    // Of the servers that it names, the first is away.
    let url = format!("postgres://host@127.0.0.1:1,127.0.0.1:{}/vaults", relay.port);
    let (_host, keeper) = host_on(&place.config(&postgres.config_at(&url, "prod")), &place).await;
    for (size, at) in [(0, CutAt::Request), (1, CutAt::Answer)] {
        let entry = entries(size..size + 1);
        relay.cut(at, &entry[0], || {});
        keeper.append(size, &entry).await.unwrap();
        assert!(relay.was_cut(), "{at:?}");
        assert_eq!(keeper.read(0, 10).await.unwrap(), entries(0..size + 1), "once, {at:?}");
    }

    // Where another host writes before this one can ask again, it is told so, whichever of the two was lost.
    let (_second, second) = host_on(&other.config(&postgres.config("prod")), &other).await;
    for (size, at) in [(2, CutAt::Request), (3, CutAt::Answer)] {
        assert_eq!(second.read(0, 10).await.unwrap().len() as u64, size);
        let tail = postgres.read("prod", "log/tail");
        let entry = [format!("of the first, {at:?}").into_bytes()];
        let write = tail_with(&tail, format!("of the second, {at:?}").as_bytes());
        let statement = format!(
            "UPDATE prod.objects SET revision = gen_random_uuid(), body = decode('{}', 'hex') WHERE name = 'log/tail'",
            hex::encode(write)
        );
        let psql = postgres.sql_command(&statement);
        relay.cut(at, &entry[0], move || assert!({ psql }.status().unwrap().success()));
        assert_eq!(code(keeper.append(size, &entry).await), "log-conflict", "{at:?}");
        assert!(relay.was_cut(), "{at:?}");
        let read = keeper.read(0, 10).await.unwrap();
        assert_eq!(read.last().unwrap(), format!("of the second, {at:?}").as_bytes());
    }
}

/// A tail with one more entry.
fn tail_with(tail: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut tail = tail.to_vec();
    tail.extend_from_slice(&u32::try_from(entry.len()).unwrap().to_be_bytes());
    tail.extend_from_slice(entry);
    tail
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_the_network_proves_its_name_and_the_host_its_password() {
    let Some(mut postgres) = Postgres::start() else { return };
    let place = Place::new();
    let (ours, strangers) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    for (name, authority) in [("ours.pem", &ours), ("strangers.pem", &strangers)] {
        std::fs::write(place.path(name), authority.pem()).unwrap();
    }
    // No password in plaintext, and none at all without TLS.
    postgres.sql("postgres", "ALTER ROLE host PASSWORD 'correct horse'");
    server_file(
        &postgres.data().join("pg_hba.conf"),
        "local all admin trust\nhostssl all host 127.0.0.1/32 scram-sha-256\n",
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    postgres.set(&format!("port={port}"));
    postgres.set("listen_addresses=127.0.0.1");
    postgres.restart();
    let lines = postgres.config_at(&format!("postgres://host@SERVER:{port}/vaults"), "prod");
    let with = |server: &str, passfile: &str, ca: &str| {
        let files = format!("passfile = {:?}\n{ca}", place.path(passfile));
        place.config(&format!("{}\n{files}", lines.replace("SERVER", server)))
    };
    let passfile = |name: &str, password: &str| {
        std::fs::write(place.path(name), format!("*:{port}:vaults:host:{password}\n")).unwrap();
        std::fs::set_permissions(place.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    };
    passfile("right", "correct horse");
    passfile("wrong", "hunter2");
    let (ours, strangers) =
        (format!("ca = {:?}", place.path("ours.pem")), format!("ca = {:?}", place.path("strangers.pem")));

    let (code, said) = opened(&with("localhost", "right", &ours)).await.unwrap_err();
    assert!(code == "store-refused" && said.contains("TLS"), "a server without TLS gets no password: {code} {said}");

    server_file(&postgres.data().join("server.crt"), &certificate.pem());
    server_file(&postgres.data().join("server.key"), &key.serialize_pem());
    postgres.set("ssl=on");
    postgres.restart();
    opened(&with("localhost", "right", &ours)).await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'host'";
    let (_host, keeper) = host_on(&with("localhost", "right", &ours), &place).await;
    keeper.append(0, &entries(0..2)).await.unwrap();
    assert_eq!(postgres.sql("postgres", encrypted), "t");

    for (host, passfile, ca, expected) in [
        ("localhost", "right", &strangers, "invalid peer certificate"),
        ("127.0.0.1", "right", &ours, "not valid for name"),
        ("localhost", "wrong", &ours, "28P01"),
    ] {
        let (code, said) = opened(&with(host, passfile, ca)).await.unwrap_err();
        assert!(["store-refused", "store-unreachable"].contains(&code), "{code}");
        assert!(said.contains(expected) && !said.contains("horse") && !said.contains("hunter2"), "{said}");
    }
    std::fs::write(place.path("garbage"), "garbage").unwrap();
    let garbage = format!("ca = {:?}", place.path("garbage"));
    assert_eq!(checked(&with("localhost", "right", &garbage)).await, Err("postgres-authority"));
    assert_eq!(checked(&with("localhost", "missing", &ours)).await, Err("postgres-passfile"));
}

/// A file of the server's: it has to be its own, and nobody else's.
fn server_file(path: &Path, text: &str) {
    use std::os::unix::fs::MetadataExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    let owner = std::fs::metadata(path.parent().unwrap()).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// A standby that nobody made the primary takes no writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_not_started_on() {
    let Some(postgres) = Postgres::start() else { return };
    let place = Place::new();
    postgres.sql("postgres", "ALTER ROLE host SET default_transaction_read_only = on");
    let (code, said) = opened(&place.config(&postgres.config("prod"))).await.unwrap_err();
    assert_eq!(code, "store-unreachable");
    assert!(said.contains("does not allow writes"), "{said}");
}

/// Log and small files in the database, sealed units in a bucket: what came by one host is served by another.
#[tokio::test(flavor = "multi_thread")]
async fn units_go_to_a_bucket_where_one_is_named() {
    let (Some(postgres), Some(s3)) = (Postgres::start(), S3::start()) else { return };
    let (one, two) = (Place::new(), Place::new());
    let bucket = s3.config("units");
    let (store, section) = bucket.split_once('\n').unwrap();
    let units = store.replace("store", "units");
    let lines = |schema: &str| {
        let database = postgres.config(schema);
        let kept = database.lines().filter(|line| !line.starts_with("units"));
        format!("{units}\n{}\n{section}", kept.collect::<Vec<_>>().join("\n"))
    };
    assert_eq!(checked(&one.config(&lines("prod"))).await, Ok(()));
    let (first, keeper) = host_on(&one.config(&lines("prod")), &one).await;
    let second = RunningHost::start(&two.config(&lines("prod"))).await;
    let model = SealedModel::new("minilm", "1", &[10_000_000, 5], 1);
    let mut client = first.provision().await;
    model.upload_all(&mut client).await;
    client.publish_model(model.publication()).await.unwrap();
    let log = [genesis("\"any\""), model.entry()];
    keeper.append(0, &log).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&log), 2).await.unwrap();

    let range = UnitRange { unit: 0, offset: 123, length: 9_000_000 };
    let request = FetchUnitsRequest { model: "minilm".to_owned(), version: "1".to_owned(), ranges: vec![range] };
    let mut stream = second.vault().await.fetch_units(request).await.unwrap().into_inner();
    let mut fetched = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        fetched.extend_from_slice(&chunk.data);
    }
    assert!(fetched == model.units[0][123..9_000_123], "the fetched bytes are the uploaded ones");
    assert!(std::fs::read_dir(postgres.units("prod")).unwrap().next().is_none());
    assert_eq!(opened(&Place::new().config(&lines("other"))).await.unwrap_err().0, "units-elsewhere");
}

/// It takes connections and says nothing. A keeper waits 30 s for a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up() {
    let place = Place::new();
    std::fs::create_dir(place.path("units")).unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://host@{}/vaults", silent.local_addr().unwrap());
    let store = format!("store = \"{url}\"\nunits = {:?}", place.path("units"));
    let config = place.config(&store);
    let waiting = tokio::time::timeout(std::time::Duration::from_secs(29), checked(&config));
    assert_eq!(waiting.await.expect("before a keeper gives up"), Err("store-unreachable"));
}

/// A directory that is not mounted looks as if all units were gone, and another database's has other units.
#[tokio::test(flavor = "multi_thread")]
async fn units_in_a_directory_that_is_not_this_databases_are_refused_at_the_start() {
    let Some(postgres) = Postgres::start() else { return };
    let (place, other) = (Place::new(), Place::new());
    let config = place.config(&postgres.config("prod"));
    let (host, _keeper) = host_on(&config, &place).await;
    let model = SealedModel::new("minilm", "1", &[1_000_000, 5], 1);
    let mut client = host.provision().await;
    model.upload_all(&mut client).await;
    client.publish_model(model.publication()).await.unwrap();
    host.stop().await;

    let (units, away) = (postgres.units("prod"), postgres.units("away"));
    let marked = std::fs::read_dir(&units).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>();
    assert!(marked.contains(&"store-id".into()), "{marked:?}");
    std::fs::remove_dir(&away).unwrap();
    std::fs::rename(&units, &away).unwrap();
    assert_eq!(opened(&config).await.unwrap_err().0, "disk-error", "it is not even there");
    std::fs::create_dir(&units).unwrap();
    let (code, said) = opened(&config).await.unwrap_err();
    assert_eq!(code, "units-elsewhere");
    assert!(said.contains("mounted"), "{said}");
    let theirs = postgres.config("other").replace(&format!("{:?}", postgres.units("other")), &format!("{away:?}"));
    let (code, said) = opened(&other.config(&theirs)).await.unwrap_err();
    assert_eq!(code, "units-elsewhere");
    assert!(said.contains("another database"), "{said}");
    std::fs::remove_dir_all(&units).unwrap();
    std::fs::rename(&away, &units).unwrap();
    opened(&config).await.unwrap();
}
