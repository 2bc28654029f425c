//! The key server gives what belongs to a soft platform, and goes wrong to order.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use vault_tests::forge::amd::Product;
use vault_tests::forge::kds::{Fault, SoftKds};
use vault_tests::forge::platform::SoftPlatform;

use super::tlv::Tlv;

const NOW: i64 = 1_800_000_000;

/// Everything that comes back.
fn get(kds: &SoftKds, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(kds.url().strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: kds.invalid\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// The head, and the body.
fn ask(kds: &SoftKds, target: &str) -> (String, Vec<u8>) {
    let answer = get(kds, target);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end..].to_vec())
}

fn status(kds: &SoftKds, target: &str) -> u16 {
    ask(kds, target).0.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Where the VCEK of a platform is.
fn target(platform: &SoftPlatform) -> String {
    let (line, tcb) = (platform.product.name(), platform.reported);
    let hwid = hex::encode(&platform.chip_id[..platform.product.hwid_len()]);
    let fmc = if platform.product == Product::Turin { format!("fmcSPL={:02}&", tcb.fmc) } else { String::new() };
    let (bl, tee, snp, ucode) = (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode);
    format!("/vcek/v1/{line}/{hwid}?{fmc}blSPL={bl:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={ucode:02}")
}

fn body_of(certificate: &[u8]) -> &[u8] {
    Tlv::first(certificate).0.at(&[0]).whole
}

#[test]
fn every_product_line_has_its_certificates() {
    let platforms: Vec<_> = Product::ALL.into_iter().map(SoftPlatform::new).collect();
    let kds = SoftKds::start(platforms.clone(), NOW).unwrap();
    for platform in &platforms {
        let line = platform.product.name();
        let (_, vcek) = ask(&kds, &target(platform));
        assert_eq!(body_of(&vcek), platform.vek().issued().to_be_signed());
        for vek in ["vcek", "vlek"] {
            let (_, chain) = ask(&kds, &format!("/{vek}/v1/{line}/cert_chain"));
            assert_eq!(String::from_utf8(chain).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
            let (_, crl) = ask(&kds, &format!("/{vek}/v1/{line}/crl"));
            assert_eq!(body_of(&crl), body_of(&platform.authorities.crl(NOW).der()));
        }
    }
    assert_eq!(kds.shelf().requests.len(), 15);
}

#[test]
fn it_has_no_other_certificates() {
    let milan = SoftPlatform::new(Product::Milan);
    let kds = SoftKds::start(vec![milan.clone()], NOW).unwrap();
    let good = target(&milan);
    assert_eq!(status(&kds, &good), 200);
    assert_eq!(status(&kds, &good.replace("Milan", "Genoa")), 404, "another line");
    assert_eq!(status(&kds, &good.replace("blSPL=04", "blSPL=05")), 404, "a TCB that it has not reached");
    assert_eq!(status(&kds, &good.replace("blSPL=04", "blSPL=03")), 200, "one that it has");
    assert_eq!(status(&kds, &good.replace("&ucodeSPL=219", "")), 404);
    assert_eq!(status(&kds, &good.replace("/vcek/", "/vlek/")), 404, "VLEKs are for clouds");
    assert_eq!(status(&kds, "/vcek/v1/Milan/00?blSPL=4"), 404);
    assert_eq!(status(&kds, "/"), 404);
    let turin = SoftPlatform::new(Product::Turin);
    kds.shelf().platforms.push(turin.clone());
    assert_eq!(status(&kds, &target(&turin)), 200);
    let hwid = hex::encode(&turin.chip_id[..8]);
    let long = target(&turin).replace(&hwid, &hex::encode(turin.chip_id));
    assert_eq!(status(&kds, &long), 404, "Turin has eight bytes");
}

#[test]
fn it_goes_wrong_to_order() {
    let milan = SoftPlatform::new(Product::Milan);
    let kds = SoftKds::start(vec![milan.clone()], NOW).unwrap();
    let good = target(&milan);
    let wait = Duration::from_millis(50);
    kds.shelf().faults.extend([
        Fault::Throttle { retry_after: Some(7) },
        Fault::Throttle { retry_after: None },
        Fault::Status(503),
        Fault::Slow(wait),
        Fault::Truncate(100),
        Fault::Body(b"not a certificate".to_vec()),
        Fault::Close,
    ]);
    let (throttled, _) = ask(&kds, &good);
    assert!(throttled.starts_with("HTTP/1.1 429 ") && throttled.contains("Retry-After: 7\r\n"), "{throttled}");
    assert!(!ask(&kds, &good).0.contains("Retry-After"));
    assert_eq!(status(&kds, &good), 503);
    let start = Instant::now();
    assert_eq!(status(&kds, &good), 200);
    assert!(start.elapsed() >= wait);
    assert_eq!(ask(&kds, &good).1.len(), 100);
    assert_eq!(ask(&kds, &good).1, b"not a certificate");
    assert!(get(&kds, &good).is_empty());
    assert_eq!(status(&kds, &good), 200, "the order is done");
    kds.shelf().always.insert("/crl".to_owned(), Fault::Status(500));
    assert_eq!(status(&kds, "/vcek/v1/Milan/crl"), 500);
    assert_eq!(status(&kds, "/vcek/v1/Milan/crl"), 500);
    assert_eq!(status(&kds, &good), 200);
}
