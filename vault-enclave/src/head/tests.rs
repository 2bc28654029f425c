//! What needs no TPM; the rest is in tests/tpm_anchor.rs.

use super::*;

#[test]
fn a_tpm_that_did_not_count_exactly_once_stops_the_keeper() {
    counted_once(7, 8).unwrap();
    for found in [0, 6, 7, 9, u64::MAX] {
        let refused = counted_once(7, found).unwrap_err();
        assert!(matches!(refused, AnchorError::Miscounted { expected: 8, .. }), "{refused}");
        assert_eq!(refused.code(), "counter-miscounted");
    }
    counted_once(u64::MAX, 0).unwrap_err();
}
