//! The files that a call's descriptors are of, for rules that are about files: their paths as the kernel has them, name by
//! name from the file's own up to the root of the calling process, matched by injector-common's patterns. Walked without a
//! lock: of a file that is renamed meanwhile a name may be the old one and another the new one.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use injector_common::glob::{BEGINS_ANYWHERE, Step, WireAlternative};
use injector_common::limits::{MAX_GLOB_ALTERNATIVES, MAX_PATH_TESTS, MAX_RULES, MAX_WALK};
use injector_common::{WireGlob, WirePathTest};

use crate::data::open_file;
use crate::facts::{self, Task};
use crate::maps;

/// What was found of a file and a pattern.
const NO_FILE: u32 = 0;
const IS_OTHER: u32 = 1;
const IS_IT: u32 = 2;
/// Not to be told, of a test too.
pub const UNSEEN: u32 = 3;

// What the next turn does.
const BEGINS: u32 = 0;
const AT_PLACE: u32 = 1;
const AT_NAME: u32 = 2;

/// A pattern on its way up a file's path. In a map and not on the stack: of that the verifier would know each value, and
/// go through them all.
#[repr(C)]
pub struct Walk {
    /// The pattern's place in the mapped memory.
    place: u32,
    /// Of the alternative.
    index: u32,
    alternative: WireAlternative,
    /// The directory entry of the file, and the mount (`struct vfsmount`) that it was opened in.
    file: u64,
    file_mount: u64,
    /// Where the walk is.
    at: u64,
    mount: u64,
    /// The entry that the mount begins with.
    top: u64,
    /// Where it ends, at the latest.
    root: u64,
    root_mount: u64,
    /// The entry above, and the name of this one.
    above: u64,
    name: u64,
    length: u32,
    /// 1 at the end, where no name is left.
    is_end: u32,
    turn: u32,
    found: u32,
    step: Step,
}

/// One for each processor: programs of an entry are not interrupted by others of their kind.
#[map]
pub static WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// What the loop hands to its turns.
#[repr(C)]
struct Way(*mut Walk);

/// A test holds.
pub const PASSES: u32 = 0;
/// It does not.
pub const FAILS: u32 = 1;

/// What comes of one test of a rule, whose pattern lies at that place in the memory: one of [`PASSES`], [`FAILS`] and
/// [`UNSEEN`].
#[inline(always)]
pub fn look(test: WirePathTest, place: u32, fd: u32) -> u32 {
    let found = match_file(place, fd);
    if found == UNSEEN {
        return UNSEEN;
    }
    let matches = (found != NO_FILE).then_some(found == IS_IT);
    if test.holds(matches) { PASSES } else { FAILS }
}

/// The descriptor that a call is given; all ones where it takes none.
#[inline(never)]
pub fn descriptor(compat: u32, nr: u32) -> u32 {
    let compat = compat != 0;
    let kinds = maps::kinds_of(compat, nr);
    let args = Task::current().regs().args(compat);
    let mut fd = u32::MAX;
    let mut index = 0;
    while index < 6 {
        if kinds.descriptor() == index as u32 + 1 {
            fd = args[index] as u32;
        }
        index += 1;
    }
    fd
}

/// What comes of a descriptor's file and the pattern at that place in the memory.
#[inline(never)]
fn match_file(place: u32, fd: u32) -> u32 {
    let file = open_file(fd);
    let entry: u64 = facts::read(file, maps::off_file_entry());
    let mount: u64 = facts::read(file, maps::off_file_mount());
    let top: u64 = facts::read(mount as *const u8, maps::off_mount_root());
    let operations: u64 = facts::read(entry as *const u8, maps::off_entry_operations());
    let names: u64 = facts::read(operations as *const u8, maps::off_entry_names());
    // Pipes, sockets and such have no path, but a name that is made up when it is asked for (fs/d_path.c, `d_path`).
    if entry == 0 || (operations != 0 && names != 0 && entry != top) {
        return NO_FILE;
    }
    let fs: u64 = facts::read(Task::current().address(), maps::off_fs());
    let Some(walk) = WALKS.get_ptr_mut(0) else {
        return UNSEEN;
    };
    // SAFETY: this processor's own entry of the map, which nothing else reaches meanwhile; a callback of the helper's form and
    // memory that outlives the loop.
    unsafe {
        (*walk).place = place;
        (*walk).index = 0;
        (*walk).file = entry;
        (*walk).file_mount = mount;
        (*walk).root = facts::read(fs as *const u8, maps::off_root_entry());
        (*walk).root_mount = facts::read(fs as *const u8, maps::off_root_mount());
        (*walk).turn = BEGINS;
        (*walk).found = UNSEEN; // Where it does not come to its end.
        let mut way = Way(walk);
        bpf_loop(MAX_WALK, turn as *mut c_void, (&raw mut way).cast(), 0);
        (*walk).found
    }
}

extern "C" fn turn(_index: u32, way: *mut Way) -> i64 {
    // SAFETY: the helper passes what `match_file` gave it.
    let walk = unsafe { &mut *(*way).0 };
    match walk.turn {
        AT_NAME => at_name(walk),
        AT_PLACE => at_place(walk),
        _ => begins(walk),
    }
}

/// A pattern.
#[inline(always)]
fn glob_at(place: u32) -> &'static WireGlob {
    let place = place as usize & (MAX_RULES * MAX_PATH_TESTS - 1);
    // SAFETY: the mapped memory, the index below the length of all patterns; they do not change once they were in force.
    unsafe {
        &*(&raw const (*maps::shared()).globs)
            .cast::<WireGlob>()
            .add(place)
    }
}

/// The next alternative, from the file on.
#[inline(always)]
fn begins(walk: &mut Walk) -> i64 {
    let index = walk.index as usize;
    let alternative = glob_at(walk.place).alternatives[index & (MAX_GLOB_ALTERNATIVES - 1)];
    if index >= MAX_GLOB_ALTERNATIVES || alternative.begins == 0 {
        walk.found = IS_OTHER;
        return 1;
    }
    walk.alternative = alternative;
    (walk.at, walk.mount) = (walk.file, walk.file_mount);
    walk.top = facts::read(walk.mount as *const u8, maps::off_mount_root());
    walk.step = Step::new(1);
    walk.turn = AT_PLACE;
    0
}

/// At an entry: the root, the first of its mount, or one with a name.
#[inline(always)]
fn at_place(walk: &mut Walk) -> i64 {
    walk.turn = AT_NAME;
    walk.is_end = 1;
    if walk.at == walk.root && walk.mount == walk.root_mount {
        return 0;
    }
    if walk.at == walk.top {
        let mount = walk.mount.wrapping_sub(u64::from(maps::off_mount()));
        let parent: u64 = facts::read(mount as *const u8, maps::off_mount_parent());
        // One that is nowhere mounted is its own parent.
        if parent != mount {
            walk.at = facts::read(mount as *const u8, maps::off_mountpoint());
            walk.mount = parent.wrapping_add(u64::from(maps::off_mount()));
            walk.top = facts::read(walk.mount as *const u8, maps::off_mount_root());
            walk.turn = AT_PLACE;
        }
        return 0;
    }
    let above: u64 = facts::read(walk.at as *const u8, maps::off_entry_parent());
    if above != walk.at {
        walk.above = above;
        walk.name = facts::read(walk.at as *const u8, maps::off_entry_name());
        walk.length = facts::read(walk.at as *const u8, maps::off_entry_length());
        walk.is_end = 0;
    }
    0
}

/// A turn of the match over a name, or over its end.
#[inline(always)]
fn at_name(walk: &mut Walk) -> i64 {
    let name = walk.name;
    let byte = |at: u32| facts::read::<u8>((name + u64::from(at)) as *const u8, 0);
    let length = (walk.is_end == 0).then_some(walk.length);
    let alternative = walk.alternative;
    if !walk
        .step
        .turn(glob_at(walk.place), alternative, length, byte)
    {
        return 0;
    }
    let is_anywhere = alternative.begins == BEGINS_ANYWHERE;
    if alternative.is_through(walk.step.states) && (is_anywhere || walk.is_end != 0) {
        walk.found = IS_IT;
        return 1;
    }
    if walk.is_end != 0 || walk.step.next == 0 {
        walk.index += 1;
        walk.turn = BEGINS;
        return 0;
    }
    walk.step = Step::new(walk.step.next);
    walk.at = walk.above;
    walk.turn = AT_PLACE;
    0
}
