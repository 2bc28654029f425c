//! How hot functions are measured: in seconds by divan, and counted in instructions where `cargo xtask bench --instructions`
//! runs the same program under callgrind, as `PROGRAM --times NAME COUNT`.

use std::hint::black_box;
use std::process::ExitCode;

/// A function, and what it needs.
pub struct Hot {
    /// Its name, for a person and for the file of recorded counts.
    pub name: &'static str,
    /// Bytes that one call takes or gives; 1 for what is counted in calls.
    pub bytes: usize,
    /// Makes what a call needs; the calls are then measured alone.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// Runs what was asked for, or lists all: divan where nothing of ours was asked.
pub fn run(hot: &[Hot], divan: fn()) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--list-hot", ..] => {
            for Hot { name, bytes, .. } in hot {
                println!("{bytes} {name}");
            }
        }
        ["--processor", ..] => println!("{}", processor()),
        ["--times", name, count, ..] => {
            let (Some(hot), Ok(count)) = (hot.iter().find(|hot| hot.name == *name), count.parse::<u32>()) else {
                eprintln!("usage: --times NAME COUNT");
                return ExitCode::FAILURE;
            };
            calls_alone((hot.prepare)(), count);
        }
        _ => divan(),
    }
    ExitCode::SUCCESS
}

/// What callgrind counts, by the name of this function: to prepare takes as long as its random numbers want.
#[inline(never)]
fn calls_alone(mut call: Box<dyn FnMut()>, count: u32) {
    (0..count).for_each(|_| black_box(&mut call)());
}

/// The processor as this program sees it, which is not the machine's own under valgrind. By these features code is chosen.
fn processor() -> String {
    std::iter::once(std::env::consts::ARCH).chain(features()).collect::<Vec<_>>().join(" ")
}

#[cfg(target_arch = "x86_64")]
fn features() -> impl Iterator<Item = &'static str> {
    macro_rules! detected {
        ($($name:tt),*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] }
    }
    let of_code = detected![
        "adx",
        "aes",
        "avx",
        "avx2",
        "avx512f",
        "avx512vl",
        "bmi1",
        "bmi2",
        "pclmulqdq",
        "sha",
        "vaes",
        "vpclmulqdq"
    ];
    of_code.into_iter().filter_map(|(name, is_here)| is_here.then_some(name))
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> impl Iterator<Item = &'static str> {
    std::iter::empty()
}

/// One of them for divan, by its name.
pub fn measure(hot: &[Hot], bencher: divan::Bencher<'_, '_>, name: &str) {
    let hot = hot.iter().find(|hot| hot.name == name).expect("a name of the list");
    let mut call = (hot.prepare)();
    match hot.bytes {
        1 => bencher.bench_local(&mut call),
        bytes => bencher.counter(divan::counter::BytesCount::new(bytes)).bench_local(call),
    }
}
