//! The key of a rule: what its random choices hang on. It depends on the rule alone, so that
//! adding a rule to a run changes no decision of another.

/// 64-bit FNV-1a.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The key of a rule that the user gave a name.
pub(crate) fn of_name(name: &str) -> u64 {
    fnv1a(format!("name\0{name}").as_bytes())
}

/// The key of a rule without a name: its canonical text, and how many rules of the same text come
/// before it.
pub(crate) fn of_text(canonical: &str, occurrence: usize) -> u64 {
    fnv1a(format!("text\0{canonical}\0{occurrence}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_published_one() {
        // Vectors of the FNV reference (draft-eastlake-fnv, appendix C).
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("b", 0xaf63_df4c_8601_f1a5),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text:?}");
        }
    }

    #[test]
    fn keys_never_change_between_releases() {
        // A recorded seed replays only as long as these stand.
        assert_eq!(of_name("wal-enospc"), KEY_OF_NAME);
        assert_eq!(of_text("fsync=EIO@3", 0), KEY_OF_TEXT);
        assert_ne!(of_text("fsync=EIO@3", 0), of_text("fsync=EIO@3", 1));
        assert_ne!(of_name("fsync=EIO@3"), of_text("fsync=EIO@3", 0));
    }
    const KEY_OF_NAME: u64 = 0xea58_db67_3d8b_7165;
    const KEY_OF_TEXT: u64 = 0xcd9f_e334_a74e_03a4;
}
