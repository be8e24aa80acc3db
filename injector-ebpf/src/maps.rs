//! The maps, and the constants that finject sets before loading. The verifier knows the constants'
//! values (they lie in a frozen read-only map), so that what they switch off costs nothing.

use core::cell::UnsafeCell;

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
use injector_common::limits::{ABIS, MAX_NR, MAX_SCOPES, MAX_TARGETS, PID_LIMIT, RING_BYTES};
use injector_common::{ArgKinds, RunState, ScopeCell, ScopeKey, Shared, Shift, Target};

#[doc(hidden)]
#[repr(transparent)]
pub struct Mapped(UnsafeCell<Shared>);

// SAFETY: reached through raw pointers only, by atomics and volatile accesses where others write.
unsafe impl Sync for Mapped {}

/// The mapped memory: the object's `.bss`, which becomes a map of its own.
// SAFETY: integers, all of which may be zero.
#[unsafe(no_mangle)]
pub static SHARED: Mapped = unsafe { core::mem::zeroed() };

/// The mapped memory, by its constant address.
#[inline(always)]
fn direct() -> *mut Shared {
    SHARED.0.get()
}

/// The mapped memory. The pointer takes a way through the stack, since LLVM sees that nothing here
/// writes the rules and would take them for zero.
#[inline(always)]
pub fn shared() -> *mut Shared {
    let shared = direct();
    // SAFETY: a local.
    unsafe { core::ptr::read_volatile(&raw const shared) }
}

/// A bit a process id.
type Bits = [u64; PID_LIMIT as usize / 64];

/// The word that holds a process's bit. An id beyond the limit would share one, and there is none.
#[inline(always)]
fn word_of(bits: *mut Bits, tgid: u32) -> *mut u64 {
    let index = (tgid as usize >> 6) & (PID_LIMIT as usize / 64 - 1);
    // SAFETY: within the array.
    unsafe { &raw mut (*bits)[index] }
}

/// Whether a process's bit is set.
#[inline(always)]
fn has_bit(bits: *mut Bits, tgid: u32) -> bool {
    // SAFETY: within the array; volatile, since others change it.
    let word = unsafe { core::ptr::read_volatile(word_of(bits, tgid)) };
    word >> (tgid & 63) & 1 != 0
}

/// Whether a process is a target.
#[inline(always)]
pub fn is_target(tgid: u32) -> bool {
    // SAFETY: the mapped memory.
    has_bit(unsafe { &raw mut (*direct()).targets }, tgid)
}

/// The word that holds a process's bit.
#[inline(always)]
pub fn target_word(tgid: u32) -> *mut u64 {
    // SAFETY: the mapped memory.
    word_of(unsafe { &raw mut (*direct()).targets }, tgid)
}

/// Whether a process is the command that finject launches, before its first exec. Taken note of once:
/// afterwards its number may be another's.
#[inline(always)]
pub fn is_launched(tgid: u32) -> bool {
    // SAFETY: the mapped memory; volatile, since finject changes it.
    unsafe {
        let launched = &raw mut (*direct()).control.launched;
        let is_it = core::ptr::read_volatile(launched) == u64::from(tgid);
        if is_it {
            core::ptr::write_volatile(launched, 0);
        }
        is_it
    }
}

/// Whether a process is between an exec and its program's first call, as far as is known.
#[inline(always)]
pub fn is_beginning(tgid: u32) -> bool {
    // SAFETY: the mapped memory.
    has_bit(unsafe { &raw mut (*direct()).beginning }, tgid)
}

/// The word that holds that bit of a process.
#[inline(always)]
pub fn beginning_word(tgid: u32) -> *mut u64 {
    // SAFETY: the mapped memory.
    word_of(unsafe { &raw mut (*direct()).beginning }, tgid)
}

/// Whose turn it is to decide.
#[inline(always)]
pub fn turn() -> u64 {
    // SAFETY: the mapped memory; volatile, since finject changes it.
    unsafe { core::ptr::read_volatile(&raw const (*direct()).control.turn) }
}

/// Whether any are.
#[inline(always)]
pub fn is_armed() -> bool {
    // SAFETY: the mapped memory; volatile, since finject changes it.
    let state = unsafe { core::ptr::read_volatile(&raw const (*direct()).control.state) };
    state == RunState::Armed as u32
}

/// The rules in force, a bit each.
#[inline(always)]
pub fn armed() -> u64 {
    // SAFETY: the mapped memory; volatile, since finject changes it.
    unsafe { core::ptr::read_volatile(&raw const (*direct()).control.armed) }
}

/// The rules that name a call, a bit each; none for a number beyond the limit.
#[inline(always)]
pub fn rules_of(compat: bool, nr: u32) -> u64 {
    if nr >= MAX_NR {
        return 0;
    }
    let index = if compat { MAX_NR + nr } else { nr } & (ABIS * MAX_NR - 1);
    // SAFETY: within the array; volatile, since finject has written it.
    unsafe { core::ptr::read_volatile(&raw const (*direct()).calls[index as usize]) }
}

/// How a call's arguments are read; none for a number beyond the limit.
#[inline(always)]
pub fn kinds_of(compat: bool, nr: u32) -> ArgKinds {
    if nr >= MAX_NR {
        return ArgKinds::NONE;
    }
    let index = if compat { MAX_NR + nr } else { nr } & (ABIS * MAX_NR - 1);
    // SAFETY: within the array; volatile, since finject has written it.
    unsafe { core::ptr::read_volatile(&raw const (*direct()).kinds[index as usize]) }
}

/// What is known of each target.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(MAX_TARGETS, 0);

/// Counters of `per:process` and `per:thread` rules. finject makes it small when there are none.
#[map]
pub static SCOPES: HashMap<ScopeKey, ScopeCell> = HashMap::with_max_entries(MAX_SCOPES, 0);

/// What two entry programs of one call tell each other, while one takes the other's place.
#[map]
pub static SHIFTS: PerCpuArray<Shift> = PerCpuArray::with_max_entries(1, 0);

/// Events.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

macro_rules! constants {
    ($($(#[doc = $doc:literal])* $function:ident $symbol:ident: $type:ty;)*) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub static $symbol: $type = 0;

        $(#[doc = $doc])*
        #[inline(always)]
        pub fn $function() -> $type {
            // SAFETY: a static's address; volatile, because finject changes it before loading.
            unsafe { core::ptr::read_volatile(&raw const $symbol) }
        }
    )*};
}

constants! {
    /// The seed of random choices.
    seed SEED: u64;
    /// 1 when decisions are counted and nothing is carried out.
    dry_run DRY_RUN: u32;
    /// 1 when children of targets become targets.
    follow FOLLOW: u32;
    /// 1 when some rule counts by process or thread.
    has_scopes HAS_SCOPES: u32;
    /// 1 when calls before a program's own entry point do not count.
    gated GATED: u32;
    /// 1 where the kernel lets a program override what it is hooked on.
    overrides OVERRIDES: u32;
    /// 1 when some rule has a thread held.
    has_holds HAS_HOLDS: u32;
    /// 1 when some rule looks at arguments.
    has_tests HAS_TESTS: u32;
    /// 1 when some rule looks at who calls.
    has_callers HAS_CALLERS: u32;
    /// 1 when some rule is about files.
    has_paths HAS_PATHS: u32;
    /// 1 when some rule is about sockets.
    has_sockets HAS_SOCKETS: u32;
    /// 1 when some rule's firing puts rules in force or out of it.
    has_arming HAS_ARMING: u32;
    /// 1 when some rule changes the data that a call moves.
    has_edits HAS_EDITS: u32;
    /// 1 when some rule has a delay that may be spun away.
    has_spins HAS_SPINS: u32;
    /// Delays up to so long are, nanoseconds.
    spin_ns SPIN_NS: u64;
    /// The number of this program among those that took each other's place, from 1.
    program PROGRAM: u32;
    /// The process id of finject's own caller of test calls; 0 for none.
    canary_tgid CANARY_TGID: u32;
    /// Byte offset of `thread_info.status` in `task_struct`.
    off_status OFF_STATUS: u32;
    /// Byte offset of `task_struct.tgid`.
    off_tgid OFF_TGID: u32;
    /// Byte offset of `task_struct.group_leader`.
    off_leader OFF_LEADER: u32;
    /// Byte offset of `task_struct.comm`.
    off_comm OFF_COMM: u32;
    /// Byte offset of `task_struct.cred`.
    off_cred OFF_CRED: u32;
    /// Byte offset of `cred.euid`.
    off_euid OFF_EUID: u32;
    /// Byte offset of `task_struct.start_boottime`.
    off_start OFF_START: u32;
    /// Byte offset of `task_struct.signal`.
    off_signal OFF_SIGNAL: u32;
    /// Byte offset of `task_struct.exit_code`.
    off_exit_code OFF_EXIT_CODE: u32;
    /// Byte offset of `task_struct.mm`.
    off_mm OFF_MM: u32;
    /// Byte offset of `mm_struct.saved_auxv`.
    off_auxv OFF_AUXV: u32;
    /// Byte offset of `mm_struct.start_stack`.
    off_start_stack OFF_START_STACK: u32;
    /// Byte offset of `vm_area_struct.vm_file`.
    off_vm_file OFF_VM_FILE: u32;
    /// Byte offset of `task_struct.ptrace`.
    off_ptrace OFF_PTRACE: u32;
    /// Byte offset of `task_struct.blocked`.
    off_blocked OFF_BLOCKED: u32;
    /// Byte offset of `task_struct.pending.signal`.
    off_pending OFF_PENDING: u32;
    /// Byte offset of `task_struct.files`.
    off_files OFF_FILES: u32;
    /// Byte offset of `files_struct.fdt`.
    off_fdt OFF_FDT: u32;
    /// Byte offset of `fdtable.max_fds`.
    off_max_fds OFF_MAX_FDS: u32;
    /// Byte offset of `fdtable.fd`.
    off_fd OFF_FD: u32;
    /// Byte offset of `file.f_path.dentry`.
    off_file_entry OFF_FILE_ENTRY: u32;
    /// Byte offset of `file.f_path.mnt`.
    off_file_mount OFF_FILE_MOUNT: u32;
    /// Byte offset of `task_struct.fs`.
    off_fs OFF_FS: u32;
    /// Byte offset of `fs_struct.root.dentry`.
    off_root_entry OFF_ROOT_ENTRY: u32;
    /// Byte offset of `fs_struct.root.mnt`.
    off_root_mount OFF_ROOT_MOUNT: u32;
    /// Byte offset of `dentry.d_parent`.
    off_entry_parent OFF_ENTRY_PARENT: u32;
    /// Byte offset of `dentry.d_name.name`.
    off_entry_name OFF_ENTRY_NAME: u32;
    /// Byte offset of `dentry.d_name.len`.
    off_entry_length OFF_ENTRY_LENGTH: u32;
    /// Byte offset of `dentry.d_op`.
    off_entry_operations OFF_ENTRY_OPERATIONS: u32;
    /// Byte offset of `dentry_operations.d_dname`.
    off_entry_names OFF_ENTRY_NAMES: u32;
    /// Byte offset of `vfsmount.mnt_root`.
    off_mount_root OFF_MOUNT_ROOT: u32;
    /// Byte offset of `mount.mnt`.
    off_mount OFF_MOUNT: u32;
    /// Byte offset of `mount.mnt_parent`.
    off_mount_parent OFF_MOUNT_PARENT: u32;
    /// Byte offset of `mount.mnt_mountpoint`.
    off_mountpoint OFF_MOUNTPOINT: u32;
    /// Byte offset of `file.f_inode`.
    off_inode OFF_INODE: u32;
    /// Byte offset of `file.f_flags`.
    off_file_flags OFF_FILE_FLAGS: u32;
    /// Byte offset of `file.private_data`.
    off_private OFF_PRIVATE: u32;
    /// Byte offset of `inode.i_mode`.
    off_mode OFF_MODE: u32;
    /// Byte offset of `socket.type`.
    off_socket_type OFF_SOCKET_TYPE: u32;
    /// Byte offset of `socket.sk`.
    off_socket_sock OFF_SOCKET_SOCK: u32;
    /// Byte offset of `sock.__sk_common.skc_family`.
    off_sock_family OFF_SOCK_FAMILY: u32;
    /// Byte offset of `sock.__sk_common.skc_dport`.
    off_sock_peer_port OFF_SOCK_PEER_PORT: u32;
    /// Byte offset of `sock.__sk_common.skc_num`.
    off_sock_port OFF_SOCK_PORT: u32;
    /// Byte offset of `sock.__sk_common.skc_daddr`.
    off_sock_peer OFF_SOCK_PEER: u32;
    /// Byte offset of `sock.__sk_common.skc_rcv_saddr`.
    off_sock_own OFF_SOCK_OWN: u32;
    /// Byte offset of `sock.__sk_common.skc_v6_daddr`.
    off_sock_peer6 OFF_SOCK_PEER6: u32;
    /// Byte offset of `sock.__sk_common.skc_v6_rcv_saddr`.
    off_sock_own6 OFF_SOCK_OWN6: u32;
    /// Byte offset of `unix_sock.peer`.
    off_unix_peer OFF_UNIX_PEER: u32;
    /// Byte offset of `unix_sock.addr`.
    off_unix_address OFF_UNIX_ADDRESS: u32;
    /// Byte offset of `signal_struct.live`.
    off_live OFF_LIVE: u32;
    /// Byte offset of `signal_struct.group_exit_code`.
    off_group_exit OFF_GROUP_EXIT: u32;
}
