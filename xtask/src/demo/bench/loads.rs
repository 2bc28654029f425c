//! Loads by a real agent from a real host, and from wherever else sealed units come: one after the other, or many at once.

use super::data::{data_path, in_memory, note};
use super::process::{Watch, cpu_seconds};
use super::rows::{self, Load, Round, Sample};
use super::sources::{self, Source};
use crate::demo::World;
use crate::demo::scenario::Loading;
use crate::{Result, shell};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a host may need at most while it streams to eight agents, in MiB.
const HOST_MIB_MAX: f64 = 128.0;
const CLIENTS_OF_GOAL: u64 = 8;
/// Memory that loads at once may fill: the rest is for page cache and for who else is there.
const SHARE_OF_MEMORY: f64 = 0.5;

/// Where loads go and what they load.
pub(super) struct Places<'a> {
    /// To mount huge pages at, and small ones.
    pub(super) huge: &'a Path,
    pub(super) plain: &'a Path,
    /// Plaintext of the model.
    pub(super) bytes: u64,
}

/// Every row of loads, once, or those with one of the words `only` in their names.
pub(super) fn rows(world: &mut World, places: &Places<'_>, sources: &[Source], only: &[String]) -> Result<Round> {
    let is_asked = |what: &str| only.is_empty() || only.iter().any(|word| what.contains(word.as_str()));
    let options = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let directory = sources::directory(world)?.display().to_string();
    let cache = world.path("cache");
    let _ = fs::remove_dir_all(&cache);
    let cached = options(&["--cache", &cache.display().to_string(), "--cache-size", "1000G"]);
    let mut plain = vec![
        (rows::GRPC, Vec::new(), None),
        (rows::UNIX, world.at_socket(), None),
        (rows::GROUP, options(&["--group", "layer.0"]), None),
        (rows::RANK, options(&["--rank", "0/4"]), None),
        (rows::DIRECTORY, options(&["--source", &directory]), None),
        (rows::CACHE_COLD, cached.clone(), None),
        (rows::CACHE_WARM, cached, None),
    ];
    plain.extend(sources.iter().map(|source| (source.what, source.options.clone(), Some(source))));
    let mut rows = Round::new();
    for (what, options, source) in plain.into_iter().filter(|(what, ..)| is_asked(what)) {
        rows.insert(what.to_owned(), one(world, places, what, &options, Some(places.huge), source)?);
    }
    if is_asked(rows::RUN) {
        rows.insert(rows::RUN.to_owned(), seen(world, places, &options(&["--source", &directory]))?);
    }
    if is_asked(rows::SMALL) {
        rows.insert(rows::SMALL.to_owned(), one(world, places, rows::SMALL, &[], None, None)?);
    }
    let _ = fs::remove_dir_all(&cache);

    if !is_asked(rows::TLS) {
        return Ok(rows);
    }
    let certificate = world.bench_place("certificate")?;
    shell::output(data_path().arg("certify").arg(&certificate))?;
    let options = world.restart_host(Some(&certificate))?;
    rows.insert(rows::TLS.to_owned(), one(world, places, rows::TLS, &options, Some(places.huge), None)?);
    world.restart_host(None)?;
    Ok(rows)
}

/// A load into huge pages at `huge`, or else into `/dev/shm` as it is.
pub(super) fn one(
    world: &mut World,
    places: &Places<'_>,
    what: &str,
    options: &[String],
    huge: Option<&Path>,
    source: Option<&Source>,
) -> Result<Sample> {
    note(what);
    warm(places, 1)?;
    let before = servers(world, source)?;
    let loading = begin(world, what, 0, options, huge)?;
    let mut watch = Watch::of(loading.pid);
    let said = world.wait_loaded(&loading, || watch.look())?;
    let whole_s = loading.began.elapsed().as_secs_f64();
    world.end_load(&loading)?;
    if said.contains("warning") {
        return Err(format!("{what} did not go as asked for:\n{said}").into());
    }
    let spent = servers(world, source)? - before;
    let [rate, cpu, bytes] = ["GB/s", "CPU", "bytes"].map(|unit| number_before(&said, "opened", unit));
    let (bytes, Times { keys_s, first_s }) = (bytes?, Times::said(&said)?);
    let load = Load { bytes, keys_s, first_s, whole_s, agent_mib: watch.most.own };
    Ok(Sample { rate: rate?, cpu: cpu? + spent / (bytes / 1e9), load: Some(load) })
}

/// A load by `run` into huge pages of its own, to the moment when an unmodified program has read its first file.
fn seen(world: &mut World, places: &Places<'_>, options: &[String]) -> Result<Sample> {
    note(rows::RUN);
    warm(places, 1)?;
    let before = servers(world, None)?;
    let loading = world.begin_run("run", options)?;
    let mut watch = Watch::of(loading.pid);
    let said = world.wait_loaded(&loading, || watch.look())?;
    let since = |time: f64| -> Result<f64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        Ok(loading.began.elapsed().as_secs_f64() - (now - time))
    };
    let time = said.lines().find_map(|line| line.strip_prefix("ready ")).ok_or("a command that said nothing")?;
    let whole_s = since(time.parse()?)?;
    world.end_load(&loading)?;
    let spent = servers(world, None)? - before;
    let (bytes, cpu) = (number_before(&said, "opened", "bytes")?, number_before(&said, "opened", "CPU")?);
    let Times { keys_s, first_s } = Times::said(&said)?;
    let rate = number_before(&said, "opened", "GB/s")?;
    let load = Load { bytes, keys_s, first_s, whole_s, agent_mib: watch.most.own };
    Ok(Sample { rate, cpu: cpu + spent / (bytes / 1e9), load: Some(load) })
}

/// So many agents at once, each a machine of its own: what they come to together, and what the host needs.
pub(super) fn at_once(world: &mut World, places: &Places<'_>, clients: u64) -> Result<Value> {
    note(&format!("{clients} clients at once"));
    let count = usize::try_from(clients)?;
    world.have_guests(count)?;
    warm(places, clients)?;
    let host = world.host_pid()?;
    let (mut host_watch, before) = (Watch::of(host), cpu_seconds(host)?);
    let loadings = (0..count)
        .map(|guest| begin(world, &format!("client {guest}"), guest, &[], Some(places.huge)))
        .collect::<Result<Vec<_>>>()?;
    let mut watches: Vec<Watch> = loadings.iter().map(|loading| Watch::of(loading.pid)).collect();
    let mut look = || {
        host_watch.look();
        watches.iter_mut().for_each(Watch::look);
    };
    let mut said = Vec::new();
    for loading in &loadings {
        said.push(world.wait_loaded(loading, &mut look)?);
    }
    let spent = cpu_seconds(host)? - before;
    for loading in &loadings {
        world.end_load(loading)?;
    }
    let (mut cpu, mut bytes, mut first, mut last) = (spent, 0.0, f64::MAX, 0.0_f64);
    let began = loadings[0].began;
    for (loading, said) in loadings.iter().zip(&said) {
        let (after, times) = (loading.began.duration_since(began).as_secs_f64(), Times::said(said)?);
        let opened = number_before(said, "opened", "bytes")?;
        bytes += opened;
        cpu += number_before(said, "opened", "CPU")? * opened / 1e9;
        (first, last) = (first.min(after + times.keys_s), last.max(after + times.first_s));
    }
    let agent = watches.iter().map(|watch| watch.most.own).fold(0.0, f64::max);
    // Agents give their times in hundredths.
    let seconds = (last - first).max(0.01);
    Ok(json!({
        "clients": clients, "gb_s": bytes / 1e9 / seconds, "cpu_s_gb": cpu / (bytes / 1e9), "seconds": seconds,
        "host_mib": host_watch.most.own, "host_peak_mib": host_watch.most.peak, "agent_mib": agent,
    }))
}

/// Whether the memory of this machine has room for so many at once.
pub(super) fn have_room(bytes: u64, clients: u64) -> Result<bool> {
    let free = fs::read_to_string("/proc/meminfo")?;
    let free = free
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<f64>().ok());
    let free = free.ok_or("no MemAvailable in /proc/meminfo")? * 1024.0;
    Ok((bytes * clients) as f64 <= free * SHARE_OF_MEMORY)
}

/// The goal of a host, where as many asked as it is for.
pub(super) fn host_ratio(clients: &[Value]) -> Option<Value> {
    let of_goal = clients.iter().find(|row| row["clients"] == CLIENTS_OF_GOAL)?;
    Some(json!(of_goal["host_peak_mib"].as_f64()? / HOST_MIB_MAX))
}

fn begin(world: &mut World, what: &str, guest: usize, options: &[String], huge: Option<&Path>) -> Result<Loading> {
    let log = what.replace(' ', "-");
    match huge {
        Some(huge) => {
            let into = huge.join("opened");
            world.begin_load(&log, guest, options, Some(&into), |load| in_memory(&load, huge, None))
        }
        None => world.begin_load(&log, guest, options, None, |load| load),
    }
}

/// Into memory that the host of this machine has not taken back.
fn warm(places: &Places<'_>, times: u64) -> Result<()> {
    let mut warm = data_path();
    warm.arg("warm").arg((places.bytes * times).to_string()).arg(places.plain);
    shell::output(&mut in_memory(&warm, places.plain, None))?;
    Ok(())
}

/// What those have spent that serve: the vault's host, which has its part in every load, and the other source.
fn servers(world: &World, source: Option<&Source>) -> Result<f64> {
    let more = source.map(Source::cpu_seconds).transpose()?;
    Ok(cpu_seconds(world.host_pid()?)? + more.unwrap_or_default())
}

/// When an agent had its keys and when its first tensor could be read, in seconds since it started.
struct Times {
    keys_s: f64,
    first_s: f64,
}

impl Times {
    fn said(said: &str) -> Result<Self> {
        let line =
            said.lines().find(|line| line.starts_with("timing")).ok_or_else(|| format!("no times in:\n{said}"))?;
        let after = |what: &str| {
            let rest = line.split_once(what)?.1.trim_start().strip_prefix("after ")?;
            rest.split(' ').next()?.parse().ok()
        };
        let times = after("keys").zip(after("first tensor to be read"));
        let (keys_s, first_s) = times.ok_or_else(|| format!("no times in {line:?}"))?;
        Ok(Self { keys_s, first_s })
    }
}

/// The number before `unit` on the line that begins so.
pub(super) fn number_before(output: &str, begins: &str, unit: &str) -> Result<f64> {
    let line = output.lines().map(str::trim).find(|line| line.starts_with(begins));
    let line = line.ok_or_else(|| format!("no line {begins:?} in:\n{output}"))?;
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == unit).and_then(|at| at.checked_sub(1));
    let number = at.and_then(|at| words.get(at)).ok_or_else(|| format!("no {unit} in {line:?}"))?;
    Ok(number.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_line_that_begins_so() {
        let output = "x\n  sealed:   91.6 MB in 0.1 s, 0.62 GB/s\nopened    13 files, 9 bytes in 0.29 s, 0.32 GB/s, 0.5 CPU s/GB, into /x";
        assert_eq!(number_before(output, "sealed:", "GB/s").unwrap(), 0.62);
        let [rate, cpu, bytes] = ["GB/s", "CPU", "bytes"].map(|unit| number_before(output, "opened", unit).unwrap());
        assert_eq!((rate, cpu, bytes), (0.32, 0.5, 9.0));
        assert!(number_before(output, "uploaded:", "GB/s").is_err());
    }

    #[test]
    fn times_are_read_with_and_without_first_weights() {
        for middle in ["", "first weights opened after 0.30 s, "] {
            let said = format!("x\ntiming    keys after 0.25 s, {middle}first tensor to be read after 0.90 s\n");
            let times = Times::said(&said).unwrap();
            assert_eq!((times.keys_s, times.first_s), (0.25, 0.9));
        }
        assert!(Times::said("timing    none").is_err() && Times::said("").is_err());
    }

    #[test]
    fn goal_of_a_host_is_for_eight_clients() {
        let row = |clients: u64| json!({ "clients": clients, "host_peak_mib": 64.0 });
        assert_eq!(host_ratio(&[row(1), row(8)]), Some(json!(0.5)));
        assert_eq!(host_ratio(&[row(1), row(4)]), None);
    }
}
