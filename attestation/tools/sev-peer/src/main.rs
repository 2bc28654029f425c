//! `sev-peer RUNS VECTORS`: the same report as in `examples/verify_cost.rs`, verified by the crate `sev` in pure
//! Rust. JSON, microseconds. It checks no names, dates, revocation lists or reserved bytes, so it does less than we do.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [runs, vectors] = args.as_slice() else { return Err("usage: sev-peer RUNS VECTORS".into()) };
    let (runs, vectors) = (runs.parse::<usize>()?.max(1), Path::new(vectors).join("snp"));
    let report = std::fs::read(vectors.join("milan-v3-oc/report.bin"))?;
    let vcek = std::fs::read(vectors.join("milan-v3-oc/vcek.der"))?;
    let issuers = std::fs::read_to_string(vectors.join("amd-roots/milan_ask_ark_asvk.pem"))?;
    let mut issuers = issuers.split_inclusive("-----END CERTIFICATE-----\n");
    let (ask, ark) = (issuers.next().ok_or("no ASK")?, issuers.next().ok_or("no ARK")?);

    let read_chain = || -> Result<Chain, Error> {
        let ca = ca::Chain { ark: Certificate::from_pem(ark.as_bytes())?, ask: Certificate::from_pem(ask.as_bytes())? };
        Ok(Chain { ca, vek: Certificate::from_der(&vcek)? })
    };
    let cold = || -> Result<(), Error> {
        let (chain, report) = (read_chain()?, AttestationReport::from_bytes(&report)?);
        Ok((&chain, &report).verify()?)
    };
    let kept = read_chain()?;
    let warm = || -> Result<(), Error> {
        let report = AttestationReport::from_bytes(&report)?;
        Ok((&kept.vek, &report).verify()?)
    };
    let parse = || -> Result<AttestationReport, Error> { Ok(AttestationReport::from_bytes(&report)?) };
    let rows = [
        row("sev: snp, cold", runs, cold)?,
        row("sev: snp, warm chain", runs, warm)?,
        row("sev: snp, report parsing", runs, parse)?,
    ];
    println!("{}", json!({ "runs": runs, "rows": rows }));
    Ok(())
}

/// Median, least and most of `runs` calls, in microseconds.
fn row<T>(what: &str, runs: usize, call: impl Fn() -> Result<T, Error>) -> Result<Value, Error> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let result = std::hint::black_box(call())?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        drop(result);
    }
    times.sort_by(f64::total_cmp);
    Ok(json!({ "what": what, "us": times[times.len() / 2], "least": times[0], "most": times[times.len() - 1] }))
}
