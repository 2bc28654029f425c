//! `vault-enclave run` with ciphertext from elsewhere, and with a part of a model.

use std::fs;

use ledger::safetensors::Header;
use vault_tests::sealed::{flip, text};
use vault_tests::serve::{is_root, run_as};
use vault_tests::{Sealed, run};

/// What `run` with these options gives its command, as it is copied out, and what it said.
fn runs(scene: &Sealed, options: &[&str]) -> (Vec<(String, Vec<u8>)>, String) {
    let out = scene.world.path("out");
    let _ = fs::remove_dir_all(&out);
    let (code, said) =
        run(&mut run_as(&scene.world, &scene.guest, options, &format!("cp -r \"$1\" {}", out.display())));
    assert_eq!(code, Some(0), "{said}");
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&out)
        .expect("it was copied")
        .map(|file| file.expect("it was copied"))
        .map(|file| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("a file")))
        .collect();
    files.sort();
    (files, said)
}

fn refused(scene: &Sealed, options: &[&str], words: &str) {
    let (code, said) = run(&mut run_as(&scene.world, &scene.guest, options, "echo it has started"));
    assert!(code == Some(125) && said.contains(words) && !said.contains("it has started"), "{code:?} {words}: {said}");
}

fn source(scene: &Sealed) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(scene.world.source()).expect("the source").map(|file| file.expect("the source"));
    let mut files: Vec<_> = files
        .map(|file| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("a file")))
        .collect();
    files.sort();
    files
}

fn tensors(files: &[(String, Vec<u8>)]) -> Vec<String> {
    let (_, file) = files.iter().find(|(name, _)| name == "model.safetensors").expect("the model");
    let header = Header::parse(file, file.len() as u64).expect("a safetensors file");
    header.places().map(|(tensor, _)| tensor.name.clone()).collect()
}

#[test]
fn run_takes_ciphertext_from_a_list_of_places_and_keeps_it_for_the_next_run() {
    if !is_root() {
        return;
    }
    let scene = Sealed::open();
    let (whole, lying, cache) = (source(&scene), scene.world.path("lying"), scene.world.path("cache"));
    scene.copy(&lying);
    flip(&lying.join("units/00002.cob"));
    let (files, said) = runs(&scene, &["--source", text(&lying)]);
    assert!(files == whole && said.contains("going on from the vault's host"), "{said}");

    scene.host_loses_units();
    refused(&scene, &["--source", text(&lying)], "unit 2");
    let (files, said) = runs(
        &scene,
        &["--source", text(&lying), "--source", text(&scene.sealed), "--cache", text(&cache), "--cache-size", "1G"],
    );
    assert!(files == whole && said.contains("going on from"), "{said}");
    // The cache alone has all of it now.
    let (files, said) = runs(&scene, &["--cache", text(&cache), "--cache-size", "1G"]);
    assert!(files == whole && !said.contains("warning"), "{said}");
    let (files, _) = runs(&scene, &["--ciphertext", text(&scene.sealed)]);
    assert!(files == whole);
}

#[test]
fn run_gives_its_command_the_part_that_was_asked_for_and_nothing_else() {
    if !is_root() {
        return;
    }
    let scene = Sealed::open();
    let all = tensors(&source(&scene));
    let of = |layer: &str| -> Vec<String> {
        all.iter().filter(|name| name.contains(&format!(".layers.{layer}."))).cloned().collect()
    };

    let (files, _) = runs(&scene, &["--group", "layer.0"]);
    assert_eq!((files.len(), tensors(&files)), (1, of("0")));
    // With a tensor comes what shares its unit.
    let (files, said) = runs(&scene, &["--tensor", "*.layers.1.*q_proj*"]);
    assert!(said.contains("found     1 tensors that match"), "{said}");
    assert_eq!(tensors(&files), of("1"));
    let ranks = ["0/2", "1/2"].map(|rank| tensors(&runs(&scene, &["--rank", rank]).0));
    let mut together = ranks.concat();
    together.sort();
    together.dedup();
    let mut sorted = all.clone();
    sorted.sort();
    assert!(together == sorted && ranks.iter().all(|rank| rank.len() < all.len()));
    for (options, words) in [
        (["--group", "layer.9"], "select-no-such-group"),
        (["--tensor", "*.layers.9.*"], "tensor-not-found"),
        (["--rank", "0/9"], "rank-too-few-layers"),
    ] {
        refused(&scene, &options, words);
    }
    scene.assert_no_lease();
}
