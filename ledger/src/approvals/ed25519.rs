//! Ed25519 public keys that verification alone would take, and that must not stand for a person.

/// y-coordinates of the points of small order in their one canonical spelling, little-endian and without the sign of x
/// (curve25519's subgroup of order 8: 1, p - 1, 0, and two of order 8; RFC 8032 §5.1 has the curve).
const SMALL_ORDER: [[u8; 32]; 5] = [
    y(0x01, 0x00, 0x00),
    y(0xec, 0xff, 0x7f),
    y(0x00, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Whether signatures by this key prove nothing about who made them. For a point of small order, somebody without any
/// secret makes a signature that holds for one message in eight, or for all. A y that is not below p is a second spelling
/// of another key: one person could stand in a list twice. ring, which verifies, asks neither.
pub(super) fn is_weak(key: &[u8]) -> bool {
    let Ok(mut y) = <[u8; 32]>::try_from(key) else { return true };
    y[31] &= 0x7f;
    let is_below_p = y[31] != 0x7f || y[1..31].iter().any(|byte| *byte != 0xff) || y[0] < 0xed;
    !is_below_p || SMALL_ORDER.contains(&y)
}

const fn y(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

    use super::*;

    #[test]
    fn keys_of_people_are_not_weak() {
        for seed in 0..=u8::MAX {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            assert!(!is_weak(pair.public_key().as_ref()));
        }
    }

    /// Why the check is there: for the neutral point, R = B and s = 1 sign everything.
    #[test]
    fn anybody_signs_for_the_neutral_point() {
        let neutral = y(0x01, 0x00, 0x00);
        let mut base = [0x66; 32];
        base[0] = 0x58;
        let signature = [base, neutral].concat();
        for message in [b"one".as_slice(), b"two", b"whatever"] {
            assert!(UnparsedPublicKey::new(&ED25519, neutral).verify(message, &signature).is_ok());
        }
        assert!(is_weak(&neutral));
    }

    #[test]
    fn points_of_small_order_are_weak_whatever_their_sign_and_spelling() {
        for mut point in SMALL_ORDER {
            assert!(is_weak(&point));
            point[31] |= 0x80;
            assert!(is_weak(&point));
        }
        for first in 0xed..=0xff {
            assert!(is_weak(&y(first, 0xff, 0x7f)), "{first}");
            assert!(is_weak(&y(first, 0xff, 0xff)), "{first}");
        }
        // p - 2 is the largest that is neither.
        assert!(!is_weak(&y(0xeb, 0xff, 0x7f)));
        assert!(is_weak(&[7; 31]));
    }
}
