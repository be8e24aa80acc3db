//! perf_event_open(2), for kprobes on kernels without kprobe.multi.

use std::os::fd::{FromRawFd, OwnedFd};

use super::SysError;

/// The part of `struct perf_event_attr` (include/uapi/linux/perf_event.h) up to `config2`, which is
/// what a kprobe needs; `size` tells the kernel that it ends there.
#[repr(C)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    kprobe_func: u64,
    probe_offset: u64,
}

/// `PERF_FLAG_FD_CLOEXEC` of include/uapi/linux/perf_event.h.
const FLAG_CLOEXEC: libc::c_ulong = 1 << 3;

/// `PERF_ATTR_SIZE_VER1`.
const SIZE: u32 = 72;
const _: () = assert!(size_of::<Attr>() == SIZE as usize);

/// Opens a kprobe at a kernel address through the kprobe event source of type `kind`
/// (/sys/bus/event_source/devices/kprobe/type). Gone when the descriptor is.
pub fn kprobe(kind: u32, address: u64) -> Result<OwnedFd, SysError> {
    let attr = Attr {
        kind,
        size: SIZE,
        config: 0,
        sample_period: 0,
        sample_type: 0,
        read_format: 0,
        flags: 0,
        wakeup_events: 0,
        bp_type: 0,
        kprobe_func: 0,
        probe_offset: address,
    };
    let (pid, cpu, group) = (-1, 0, -1);
    // SAFETY: the attribute is whole; PERF_FLAG_FD_CLOEXEC is the only flag.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            pid,
            cpu,
            group,
            FLAG_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given it to us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(SysError::last("perf_event_open(kprobe)")),
    }
}
