//! What is changed of the data that a call moves, as lists of parts: cut to a length, and with bits flipped in copies of the
//! bytes that they are in, so that nothing is changed where the program or another of its threads could see it.

use super::data::{MOST_PARTS, Part};

/// A part of the data that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As the program has it.
    Own(Part),
    /// A copy of a part, with bits flipped: each by its byte in the part and its number in that.
    Copy {
        /// What is copied.
        of: Part,
        /// Which bits are flipped.
        flips: Vec<(usize, u8)>,
    },
}

/// The first so many bytes of parts.
pub(super) fn cut(parts: &[Part], bytes: u64) -> Vec<Part> {
    let mut left = bytes;
    let mut kept = Vec::new();
    for part in parts {
        if left == 0 {
            break;
        }
        let len = part.len.min(left);
        kept.push(Part { at: part.at, len });
        left -= len;
    }
    kept
}

/// Where a byte of parts lies, by its number.
pub(super) fn address_of(parts: &[Part], byte: u64) -> Option<u64> {
    let mut left = byte;
    for part in parts {
        if left < part.len {
            return Some(part.at + left);
        }
        left -= part.len;
    }
    None
}

/// Parts with bits flipped, each bit by its number from the first byte's lowest on; in copies of so many bytes each, a
/// power of two. [`None`] where that makes more pieces than a call may have.
pub(super) fn pieces(parts: &[Part], flips: &[u64], unit: u64) -> Option<Vec<Piece>> {
    let mut flips = flips.to_vec();
    flips.sort_unstable();
    let mut flips = flips.into_iter().peekable();
    let mut pieces = Vec::new();
    let mut begin = 0;
    for part in parts {
        let end = begin + part.len;
        // Up to where the part is dealt with.
        let mut done = 0;
        while let Some(flip) = flips.next_if(|flip| flip / 8 < end) {
            let byte = flip / 8 - begin;
            let from = byte & !(unit - 1);
            let bit = ((byte - from) as usize, (flip % 8) as u8);
            if let Some(Piece::Copy { of, flips }) = pieces.last_mut()
                && of.at == part.at + from
                && done > from
            {
                flips.push(bit);
                continue;
            }
            if from > done {
                pieces.push(Piece::Own(Part {
                    at: part.at + done,
                    len: from - done,
                }));
            }
            let len = unit.min(part.len - from);
            pieces.push(Piece::Copy {
                of: Part {
                    at: part.at + from,
                    len,
                },
                flips: vec![bit],
            });
            done = from + len;
        }
        if part.len > done {
            pieces.push(Piece::Own(Part {
                at: part.at + done,
                len: part.len - done,
            }));
        }
        begin = end;
    }
    (pieces.len() <= MOST_PARTS).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(at: u64, len: u64) -> Part {
        Part { at, len }
    }

    fn copy(at: u64, len: u64, flips: &[(usize, u8)]) -> Piece {
        Piece::Copy {
            of: part(at, len),
            flips: flips.to_vec(),
        }
    }

    #[test]
    fn parts_are_cut_as_a_whole() {
        let parts = [part(100, 4), part(200, 0), part(300, 4)];
        for (bytes, kept) in [
            (1, vec![part(100, 1)]),
            (4, vec![part(100, 4)]),
            (5, vec![part(100, 4), part(200, 0), part(300, 1)]),
            (9, parts.to_vec()),
        ] {
            assert_eq!(cut(&parts, bytes), kept, "{bytes}");
        }
    }

    #[test]
    fn bytes_are_found_in_their_parts() {
        let parts = [part(100, 4), part(200, 0), part(300, 4)];
        let found: Vec<_> = (0..9).map(|byte| address_of(&parts, byte)).collect();
        let want = [100, 101, 102, 103, 300, 301, 302, 303].map(Some);
        assert_eq!(found[..8], want);
        assert_eq!(found[8], None);
    }

    #[test]
    fn bits_are_flipped_in_copies_of_their_bytes() {
        let parts = [part(100, 4), part(300, 4)];
        let pieces = |flips: &[u64]| pieces(&parts, flips, 1).unwrap();
        assert_eq!(pieces(&[]), parts.map(Piece::Own));
        assert_eq!(
            pieces(&[9]),
            [
                Piece::Own(part(100, 1)),
                copy(101, 1, &[(0, 1)]),
                Piece::Own(part(102, 2)),
                Piece::Own(part(300, 4)),
            ]
        );
        assert_eq!(
            pieces(&[31, 24, 32, 63]),
            [
                Piece::Own(part(100, 3)),
                copy(103, 1, &[(0, 0), (0, 7)]),
                copy(300, 1, &[(0, 0)]),
                Piece::Own(part(301, 2)),
                copy(303, 1, &[(0, 7)]),
            ]
        );
    }

    #[test]
    fn copies_are_whole_blocks_where_the_file_wants_them() {
        let pieces = pieces(&[part(4096, 10_000)], &[0, 8 * 4095 + 1, 8 * 9000], 4096).unwrap();
        assert_eq!(
            pieces,
            [
                copy(4096, 4096, &[(0, 0), (4095, 1)]),
                Piece::Own(part(8192, 4096)),
                copy(12_288, 1808, &[(808, 0)]),
            ]
        );
    }

    #[test]
    fn more_pieces_than_a_call_may_have_are_none() {
        let parts: Vec<_> = (0..1024).map(|number| part(100 * number, 3)).collect();
        assert!(pieces(&parts, &[0], 1).is_none());
        assert!(pieces(&parts[..1023], &[0], 1).is_some());
    }

    proptest! {
        #[test]
        fn pieces_are_the_parts_but_for_the_bits(
            lengths in prop::collection::vec(0_u64..40, 1..6),
            chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            unit in prop::sample::select(vec![1_u64, 8, 4096]),
        ) {
            // A memory of so many bytes, of which each part has its own thousand.
            let parts: Vec<_> =
                (1..).zip(&lengths).map(|(number, len)| part(1000 * number, *len)).collect();
            let total: u64 = lengths.iter().sum();
            prop_assume!(total > 0);
            let flips: Vec<_> =
                chosen.iter().map(|index| index.index(8 * total as usize) as u64).collect();
            let byte_at = |at: u64| (at % 251) as u8;
            let mut want: Vec<u8> =
                (0..total).map(|byte| byte_at(address_of(&parts, byte).unwrap())).collect();
            for flip in &flips {
                want[(flip / 8) as usize] ^= 1 << (flip % 8);
            }
            let mut found = Vec::new();
            for piece in pieces(&parts, &flips, unit).unwrap() {
                match piece {
                    Piece::Own(part) => found.extend((0..part.len).map(|byte| byte_at(part.at + byte))),
                    Piece::Copy { of, flips } => {
                        let mut copy: Vec<u8> = (0..of.len).map(|byte| byte_at(of.at + byte)).collect();
                        for (byte, bit) in flips {
                            copy[byte] ^= 1 << bit;
                        }
                        found.append(&mut copy);
                    }
                }
            }
            prop_assert_eq!(found, want);
        }
    }
}
