//! Writes DER (X.690), as far as certificates and revocation lists need it.

use time::OffsetDateTime;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const UTF8_STRING: u8 = 0x0C;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const IA5_STRING: u8 = 0x16;
const INTEGER: u8 = 0x02;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Tag, length, content.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let bytes = content.len().to_be_bytes();
    let length: &[u8] = &bytes[bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len() - 1)..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | length.len() as u8);
    }
    out.extend_from_slice(length);
    out.extend_from_slice(content);
    out
}

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

pub(super) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SET, &parts.concat())
}

/// `[number] EXPLICIT`.
pub(super) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xA0 | number, content)
}

pub(super) fn null() -> Vec<u8> {
    tlv(NULL, &[])
}

/// A number that is not negative, in the fewest bytes.
pub(super) fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let first = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len() - 1);
    let mut content = bytes[first..].to_vec();
    if content[0] >= 0x80 {
        content.insert(0, 0);
    }
    tlv(INTEGER, &content)
}

/// Whole bytes as a BIT STRING.
pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], bytes].concat())
}

/// An object identifier from its dotted form.
pub(super) fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u64> = dotted.split('.').map(|arc| arc.parse().expect("an arc is a number")).collect();
    let mut content = Vec::new();
    base128(arcs[0] * 40 + arcs[1], &mut content);
    arcs[2..].iter().for_each(|&arc| base128(arc, &mut content));
    tlv(OBJECT_IDENTIFIER, &content)
}

/// A time as X.509 wants it (RFC 5280, 4.1.2.5): UTCTime until 2049, GeneralizedTime after. `unix` is in seconds.
pub(super) fn time(unix: i64) -> Vec<u8> {
    let at = OffsetDateTime::from_unix_timestamp(unix).expect("a time within its range");
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    match at.year() {
        year @ 1950..2050 => tlv(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes()),
        year => tlv(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes()),
    }
}

fn base128(mut value: u64, out: &mut Vec<u8>) {
    let mut groups = vec![(value & 0x7F) as u8];
    while value >= 0x80 {
        value >>= 7;
        groups.push((value & 0x7F) as u8 | 0x80);
    }
    out.extend(groups.iter().rev());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encodings() {
        assert_eq!(hex::encode(oid("1.3.6.1.4.1.3704.1.3.8")), "060a2b060104019c78010308");
        assert_eq!(hex::encode(integer(0)), "020100");
        assert_eq!(hex::encode(integer(219)), "020200db");
        assert_eq!(hex::encode(time(1_752_771_886)), hex::encode(b"\x17\x0d250717170446Z"));
        assert_eq!(hex::encode(time(2_524_608_000)), hex::encode(b"\x18\x0f20500101000000Z"));
        assert_eq!(tlv(OCTET_STRING, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(tlv(OCTET_STRING, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }
}
