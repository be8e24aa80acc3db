//! The data that a traced thread's call is about to move: where in its memory it lies, how much of it there is, and of
//! what kind of file. The kernel program has the same of its own (`injector-ebpf/src/data.rs`).

use std::path::Path;

use injector_common::{ArgKinds, Data, DataKind};

use crate::sys::process::{is_stream_socket, kind_of_file, read_memory};
use crate::target::process::{Proc, Tgid};

/// Parts that one call may have: `UIO_MAXIOV` of include/uapi/linux/uio.h.
pub(super) const MOST_PARTS: usize = 1024;

/// A part of the data, in the thread's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The address.
    pub(super) at: u64,
    /// The length in bytes.
    pub(super) len: u64,
}

/// Words of a thread's memory, of its ABI's width.
pub(super) fn words(tid: u32, address: u64, number: usize, compat: bool) -> Option<Vec<u64>> {
    let size = if compat { 4 } else { 8 };
    let mut bytes = vec![0; number * size];
    read_memory(tid, address, &mut bytes).ok()?;
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    Some(bytes.chunks_exact(size).map(word).collect())
}

/// The same words as bytes.
pub(super) fn bytes_of(words: &[u64], compat: bool) -> Vec<u8> {
    let size = if compat { 4 } else { 8 };
    let bytes = words.iter().flat_map(|word| {
        let bytes = word.to_ne_bytes();
        bytes.into_iter().take(size)
    });
    bytes.collect()
}

/// The words of a `struct user_msghdr`, or of a `struct compat_msghdr` (include/linux/socket.h, include/net/compat.h):
/// name, length of the name, parts, number of parts, control data, length of it, flags.
pub(super) const MESSAGE_WORDS: usize = 7;
/// Which of those tell the parts.
pub(super) const MESSAGE_PARTS: usize = 2;

/// Where the data of a call lies; [`None`] where its description cannot be read or is none.
pub(super) fn parts(tid: u32, compat: bool, kinds: ArgKinds, args: &[u64; 6]) -> Option<Vec<Part>> {
    let (array, number) = match kinds.data() {
        DataKind::None => return None,
        DataKind::Buffer => {
            return Some(vec![Part {
                at: args[1],
                len: args[2],
            }]);
        }
        DataKind::Vector => (args[1], args[2]),
        DataKind::Message => {
            let words = words(tid, args[1], MESSAGE_WORDS, compat)?;
            (words[MESSAGE_PARTS], words[MESSAGE_PARTS + 1])
        }
    };
    let number = usize::try_from(number)
        .ok()
        .filter(|number| *number <= MOST_PARTS)?;
    if number == 0 {
        return Some(Vec::new());
    }
    let words = words(tid, array, 2 * number, compat)?;
    let (pairs, _) = words.as_chunks::<2>();
    Some(
        pairs
            .iter()
            .map(|[at, len]| Part { at: *at, len: *len })
            .collect(),
    )
}

/// The length of parts together.
pub(super) fn length(parts: &[Part]) -> u64 {
    parts
        .iter()
        .fold(0, |sum, part| part.len.saturating_add(sum))
}

/// What a thread's call is about to move.
pub(super) fn of(
    proc: &Proc,
    (tgid, tid): (u32, u32),
    compat: bool,
    kinds: ArgKinds,
    args: &[u64; 6],
) -> Data {
    let bytes = parts(tid, compat, kinds, args).map_or(0, |parts| Data::asked(length(&parts)));
    let fd = args[0] as u32;
    let file = format!("/proc/{tid}/fd/{fd}");
    let kind = kind_of_file(Path::new(&file)).unwrap_or(0);
    let is_stream = || is_stream_socket(tgid, fd.cast_signed()).unwrap_or(false);
    let is_direct = kind == libc::S_IFREG
        && proc
            .flags_of(Tgid(tid), fd)
            .is_some_and(|flags| flags & libc::O_DIRECT.cast_unsigned() != 0);
    let can_be_cut = match kind {
        libc::S_IFREG | libc::S_IFIFO => true,
        libc::S_IFSOCK => is_stream(),
        _ => false,
    };
    Data {
        bytes,
        can_be_cut: u64::from(can_be_cut),
        unit: if is_direct { Data::BLOCK } else { 1 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_either_abi_are_read_as_they_are_written() {
        let own = std::process::id();
        for compat in [false, true] {
            let bytes = bytes_of(&[7, 0, 0x1234_5678], compat);
            assert_eq!(bytes.len(), if compat { 12 } else { 24 });
            let read = words(own, bytes.as_ptr() as u64, 3, compat);
            assert_eq!(read, Some(vec![7, 0, 0x1234_5678]));
        }
        assert_eq!(words(own, 8, 1, false), None, "nothing is there");
    }

    #[test]
    fn data_is_where_the_arguments_say() {
        let own = std::process::id();
        let kinds = |kind| ArgKinds::NONE.with_data(kind, true);
        let parts_of = |kind, args: [u64; 3]| {
            let args = [args[0], args[1], args[2], 0, 0, 0];
            parts(own, false, kinds(kind), &args)
        };
        let part = |at, len| Part { at, len };
        assert_eq!(parts_of(DataKind::None, [1, 2, 3]), None);
        assert_eq!(
            parts_of(DataKind::Buffer, [1, 2, 3]),
            Some(vec![part(2, 3)])
        );
        let vector = [10_u64, 4, 20, 5];
        let at = vector.as_ptr() as u64;
        let both = vec![part(10, 4), part(20, 5)];
        assert_eq!(parts_of(DataKind::Vector, [1, at, 2]), Some(both.clone()));
        assert_eq!(parts_of(DataKind::Vector, [1, at, 1025]), None);
        let message = [0_u64, 0, at, 2, 0, 0, 0];
        let at = message.as_ptr() as u64;
        assert_eq!(parts_of(DataKind::Message, [1, at, 0]), Some(both.clone()));
        assert_eq!(length(&both), 9);
    }
}
