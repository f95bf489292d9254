//! Random names: UIDs, suffixes of generated names, tokens.

use rustls::crypto::ring;

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the kernel gives random bytes");
    bytes
}

/// `count` random bytes in hexadecimal, at most 32.
pub(crate) fn hex(count: usize) -> String {
    bytes::<32>()[..count.min(32)]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A version 4 UUID.
pub(crate) fn uid() -> String {
    let mut bytes = bytes::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// `prefix` and five letters that make no words.
pub(crate) fn name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // A generated name must fit where 63 characters do.
    let prefix: String = prefix.chars().take(58).collect();
    let suffix = bytes::<5>().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    prefix + &suffix.iter().collect::<String>()
}
