//! The data that a call is about to move, for rules that change it: how much of it there is, as the caller's memory tells,
//! and of what kind of file, as the kernel's structures do. They are walked without a lock: a descriptor that another thread
//! closes meanwhile may be taken for what it was.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use injector_common::{ArgKinds, Data, DataKind};

use crate::facts::{self, Task};
use crate::maps;

/// Parts that one call may have: `UIO_MAXIOV` of include/uapi/linux/uio.h.
const MOST_PARTS: u32 = 1024;
/// `O_DIRECT` of arch/x86's fcntl.h.
const O_DIRECT: u32 = 0o40000;
// Kinds of files, inode(7), and of sockets (include/linux/net.h).
const S_IFMT: u16 = 0o170000;
const S_IFREG: u16 = 0o100000;
const S_IFIFO: u16 = 0o010000;
const S_IFSOCK: u16 = 0o140000;
const SOCK_STREAM: u16 = 1;

/// Reads a value of the caller's memory; [`None`] where it cannot be read without waiting.
#[inline(always)]
pub fn read_user<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper checks the source and fills the value, which is as long as it says.
    let failed = unsafe {
        bpf_probe_read_user(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    (failed == 0).then_some(value)
}

/// A word of the caller's memory, of its ABI's width.
#[inline(always)]
fn word(address: u64, compat: bool) -> Option<u64> {
    if compat {
        read_user::<u32>(address).map(u64::from)
    } else {
        read_user::<u64>(address)
    }
}

/// Adding up the parts' lengths.
#[repr(C)]
struct Sum {
    /// Of the next part's length.
    address: u64,
    /// From one to the next.
    step: u64,
    left: u64,
    bytes: u64,
}

extern "C" fn add_part(_index: u32, sum: *mut Sum) -> i64 {
    // SAFETY: the helper passes what `parts` gave it.
    unsafe {
        if (*sum).left == 0 {
            return 1;
        }
        (*sum).left -= 1;
        let length = word((*sum).address, (*sum).step == 8).unwrap_or(0);
        (*sum).bytes = (*sum).bytes.saturating_add(length);
        (*sum).address += (*sum).step;
    }
    0
}

/// The length of so many parts together; 0 for more than a call may have.
#[inline(always)]
fn parts(array: u64, number: u64, compat: bool) -> u64 {
    let size = if compat { 4 } else { 8 };
    let is_call = below(number, MOST_PARTS as u64 + 1);
    let mut sum = Sum {
        address: array + size,
        step: 2 * size,
        left: number * is_call,
        // Always 0, and no constant: see `InCall::decided` in the program.
        bytes: size >> 32,
    };
    // SAFETY: a callback of the helper's form and memory that outlives the loop.
    unsafe {
        bpf_loop(
            MOST_PARTS,
            add_part as *mut c_void,
            (&raw mut sum).cast(),
            0,
        )
    };
    sum.bytes
}

/// 1 where one number is below the other, else 0; both below 2^63. Without a branch, since each would double the ways
/// that the verifier walks from there on.
#[inline(always)]
fn below(one: u64, other: u64) -> u64 {
    one.wrapping_sub(other) >> 63
}

/// 1 where two small numbers are the same, else 0.
#[inline(always)]
fn same(one: u16, other: u16) -> u64 {
    below(u64::from(one ^ other), 1)
}

/// What the calling thread's call is about to move: how much of it, and else what is put into `data`.
#[inline(never)]
pub fn read(compat: bool, kinds: ArgKinds, data: &mut Data) -> u64 {
    let task = Task::current();
    let args = task.regs().args(compat);
    let file = file_of(args[0] as u32);
    data.can_be_cut = file & 1;
    data.unit = file >> 1;
    let (array, number) = match kinds.data() {
        DataKind::None => return 0,
        DataKind::Buffer => return Data::asked(args[2]),
        DataKind::Vector => (args[1], args[2]),
        DataKind::Message => {
            // `msg_iov` and `msg_iovlen` of `struct user_msghdr`, and of `struct compat_msghdr`.
            let (at, size) = if compat { (8, 4) } else { (16, 8) };
            let array = word(args[1] + at, compat).unwrap_or(0);
            (array, word(args[1] + at + size, compat).unwrap_or(0))
        }
    };
    // A count is an `int` or a word; none is as large as that.
    Data::asked(parts(array, number & (u64::MAX >> 1), compat))
}

/// What kind of file a descriptor is of: [`Data::can_be_cut`] in the lowest bit, and [`Data::unit`] above it. By itself, so
/// that what it has on the stack is gone when parts are added up.
#[inline(never)]
fn file_of(fd: u32) -> u64 {
    let (file, is_there) = file_at(fd);
    let mode: u16 = facts::read(pointer(file, maps::off_inode()), maps::off_mode());
    let flags: u32 = facts::read(file, maps::off_file_flags());
    let stream: u16 = facts::read(pointer(file, maps::off_private()), maps::off_socket_type());
    let kind = mode & S_IFMT;
    let (is_file, is_pipe) = (same(kind, S_IFREG), same(kind, S_IFIFO));
    let is_stream = same(kind, S_IFSOCK) & same(stream, SOCK_STREAM);
    let can_be_cut = (is_file | is_pipe | is_stream) & is_there;
    // `O_DIRECT`, of files.
    let is_direct = is_file & u64::from(flags / O_DIRECT & 1);
    can_be_cut | (1 + is_direct * (Data::BLOCK - 1)) << 1
}

/// The file behind a descriptor; null where there is none.
#[inline(always)]
pub fn open_file(fd: u32) -> *const u8 {
    let (file, is_there) = file_at(fd);
    (file as usize * is_there as usize) as *const u8
}

/// Whether a file is a socket's.
#[inline(always)]
pub fn is_socket(file: *const u8) -> bool {
    let mode: u16 = facts::read(pointer(file, maps::off_inode()), maps::off_mode());
    mode & S_IFMT == S_IFSOCK
}

/// What lies at a descriptor's place, and 1 where the descriptor is below the end of the table.
#[inline(always)]
fn file_at(fd: u32) -> (*const u8, u64) {
    let task = Task::current();
    let table = pointer(pointer(task.address(), maps::off_files()), maps::off_fdt());
    let most: u32 = facts::read(table, maps::off_max_fds());
    let is_there = below(fd.into(), most.into());
    let array = pointer(table, maps::off_fd());
    // What is read where nothing is, is 0.
    let file = pointer(array.wrapping_add(8 * fd as usize * is_there as usize), 0);
    (file, is_there)
}

#[inline(always)]
fn pointer(base: *const u8, offset: u32) -> *const u8 {
    facts::read::<Pointer>(base, offset).0
}

/// A pointer of the kernel's.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pointer(*const u8);

impl Default for Pointer {
    fn default() -> Self {
        Self(core::ptr::null())
    }
}
