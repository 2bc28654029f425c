//! The kernel command line: the form in which it is measured, and the dm-verity root hashes that it names.

/// A root hash of dm-verity, and which parameter named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootHash {
    /// `roothash`, `usrhash`, `dm-mod.create` or `dm`.
    pub parameter: &'static str,
    /// The digest; lower-case hex digits, 64 to 128 of them.
    pub hex: String,
}

/// The root hashes that a command line names: `roothash=` and `usrhash=` (systemd-veritysetup-generator(8)), the table of
/// a `verity` target in `dm-mod.create=` (Linux, Documentation/admin-guide/device-mapper/dm-init.rst and verity.rst), and
/// `root_hexdigest=` in `dm=` (Chrome OS).
///
/// What is not a digest of 32 to 64 bytes in hex is not given: a person who expects a hash then sees that there is none.
#[must_use]
pub fn verity_root_hashes(command_line: &str) -> Vec<RootHash> {
    let mut hashes = Vec::new();
    for word in words(command_line) {
        let Some((name, value)) = word.split_once('=') else { continue };
        match name {
            "roothash" => hashes.extend(digest("roothash", value)),
            "usrhash" => hashes.extend(digest("usrhash", value)),
            "dm-mod.create" => {
                let tables = value.split([',', ';']).filter_map(verity_table_digest);
                hashes.extend(tables.filter_map(|text| digest("dm-mod.create", text)));
            }
            "dm" => {
                let named = value.split_whitespace().filter_map(|field| field.strip_prefix("root_hexdigest="));
                hashes.extend(named.filter_map(|text| digest("dm", text)));
            }
            _ => {}
        }
    }
    hashes
}

/// EFI load options of a text: UTF-16LE with a NUL, as firmware gives them to the kernel's EFI stub, which measures them
/// whole into PCR 9 (Linux, drivers/firmware/efi/libstub). None if a character is not printable ASCII: firmware differs
/// in what it makes of others.
pub(crate) fn load_options(text: &str) -> Option<Vec<u8>> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    printable.then(|| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect())
}

/// Words at spaces outside double quotes, without the quotes, as the kernel's next_arg() does.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for char in text.chars() {
        match char {
            '"' => quoted = !quoted,
            char if char.is_ascii_whitespace() && !quoted => {
                words.push(std::mem::take(&mut word));
            }
            char => word.push(char),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// `START SIZE verity VERSION DEV HASH_DEV BLOCK HASH_BLOCK BLOCKS HASH_START ALGORITHM DIGEST SALT …`
fn verity_table_digest(table: &str) -> Option<&str> {
    let mut fields = table.split_whitespace();
    (fields.nth(2)? == "verity").then(|| fields.nth(8)).flatten()
}

fn digest(parameter: &'static str, text: &str) -> Option<RootHash> {
    let bytes = hex::decode(text).ok()?;
    (32..=64).contains(&bytes.len()).then(|| RootHash { parameter, hex: hex::encode(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "a134100f00f1ea2b4f3a52ee15e4f6a77b1e0e7b0d4a5b6c7d8e9f0011223344";

    fn hashes(line: &str) -> Vec<(&'static str, String)> {
        verity_root_hashes(line).into_iter().map(|hash| (hash.parameter, hash.hex)).collect()
    }

    #[test]
    fn root_hash_is_read_in_each_form_that_is_in_use() {
        assert_eq!(hashes(&format!("quiet roothash={HASH} ro")), [("roothash", HASH.to_owned())]);
        assert_eq!(hashes(&format!("usrhash={}", HASH.to_uppercase())), [("usrhash", HASH.to_owned())]);
        let table = format!("0 4077568 verity 1 /dev/a /dev/b 4096 4096 509696 509697 sha256 {HASH} 00ff");
        let line = format!("dm-mod.create=\"vroot,,,ro,{table}\" root=/dev/dm-0");
        assert_eq!(hashes(&line), [("dm-mod.create", HASH.to_owned())]);
        let dm = format!("dm=\"1 vroot none ro 1,0 1 verity payload=A root_hexdigest={HASH} salt=00\" quiet");
        assert_eq!(hashes(&dm), [("dm", HASH.to_owned())]);
    }

    #[test]
    fn what_is_no_digest_or_stands_in_another_parameter_is_no_root_hash() {
        assert_eq!(hashes(&format!("x=roothash={HASH} roothash=1234 roothash= roothash xroothash={HASH}")), []);
        assert_eq!(hashes(&format!("note=\"a roothash={HASH}\"")), []);
    }

    #[test]
    fn load_options_are_utf16_with_a_terminator() {
        assert_eq!(load_options("a b").unwrap(), b"a\0 \0b\0\0\0");
        assert_eq!((load_options("ä"), load_options("a\nb")), (None, None));
    }
}
