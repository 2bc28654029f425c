//! A reader of DER that knows nothing of the forge's writer.

/// One value of DER: its tag, its content, and all its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tlv<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The first value, and what follows it.
    pub(crate) fn first(bytes: &'a [u8]) -> (Self, &'a [u8]) {
        let (header, length) = match bytes[1] {
            short @ 0..=0x7F => (2, usize::from(short)),
            0x81 => (3, usize::from(bytes[2])),
            0x82 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
            other => panic!("a length of form {other:x}"),
        };
        let (whole, rest) = bytes.split_at(header + length);
        (Self { tag: bytes[0], content: &whole[header..], whole }, rest)
    }

    /// The values inside.
    pub(crate) fn children(self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut rest = self.content;
        while !rest.is_empty() {
            let (one, after) = Self::first(rest);
            all.push(one);
            rest = after;
        }
        all
    }

    /// The value at this path of positions.
    pub(crate) fn at(self, path: &[usize]) -> Self {
        path.iter().fold(self, |value, &index| value.children()[index])
    }

    /// The content as a number.
    pub(crate) fn number(self) -> u64 {
        self.content.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// The content as text.
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.content.to_vec()).unwrap()
    }

    /// A UTCTime in seconds of Unix time.
    pub(crate) fn utc_time(self) -> i64 {
        assert_eq!(self.tag, 0x17);
        let text = self.text();
        let part = |at: usize| text[at..at + 2].parse::<i64>().unwrap();
        let (year, month) = (2000 + part(0), part(2));
        let leap = year % 4 == 0;
        let days_before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
        let days = (year - 1970) * 365 + (year - 1969) / 4 + days_before + i64::from(leap && month > 2) + part(4) - 1;
        days * 86_400 + part(6) * 3600 + part(8) * 60 + part(10)
    }
}
