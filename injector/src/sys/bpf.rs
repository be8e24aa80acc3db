//! bpf(2): loading of programs and BTF, links, and what the kernel tells of a program. Maps are
//! created by aya; what it does not offer (kprobe.multi links, miss counts, frozen constants) is
//! here.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info};

use super::SysError;
use super::wire::Wire;

/// `BPF_TRACE_KPROBE_MULTI` of include/uapi/linux/bpf.h (since Linux 5.18).
pub const ATTACH_KPROBE_MULTI: u32 = 42;
/// `BPF_PERF_EVENT` of include/uapi/linux/bpf.h (since Linux 5.15).
const ATTACH_PERF_EVENT: u32 = 41;
/// `BPF_TRACE_FEXIT` of the same (since Linux 5.5).
pub const ATTACH_EXIT: u32 = 25;

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr, call: &'static str) -> Result<i32, SysError> {
    // SAFETY: the attribute is whole, and what it points to lives in the caller.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd as u32,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| SysError::last(call))
}

fn bpf_fd(cmd: bpf_cmd, attr: &mut bpf_attr, call: &'static str) -> Result<OwnedFd, SysError> {
    let fd = bpf(cmd, attr, call)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers.
    unsafe { std::mem::zeroed() }
}

/// `BPF_BTF_LOAD`.
pub fn load_btf(data: &[u8]) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: writing a union's field.
    let fields = unsafe { &mut attr.__bindgen_anon_7 };
    fields.btf = data.as_ptr() as u64;
    fields.btf_size = data.len() as u32;
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr, "bpf(BPF_BTF_LOAD)")
}

/// What `BPF_PROG_LOAD` needs.
#[derive(Debug)]
pub struct ProgramSpec<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// `BPF_PROG_TYPE_*`.
    pub kind: u32,
    /// `expected_attach_type`, 0 for none.
    pub attach: u32,
    /// The kernel function that it is for, by its number in the kernel's BTF; 0 for none.
    pub function: u32,
    /// The relocated instructions.
    pub instructions: &'a [bpf_insn],
    /// The license of the object.
    pub license: &'a CStr,
    /// The object's BTF, with the function records that belong to the instructions.
    pub btf: Option<(BorrowedFd<'a>, &'a [u8], usize)>,
}

/// `BPF_PROG_LOAD`. On refusal the verifier's log comes with the error.
pub fn load_program(spec: &ProgramSpec<'_>) -> Result<OwnedFd, (SysError, String)> {
    let result = try_load(spec, &mut []);
    let Err(first) = result else {
        return result.map_err(|error| (error, String::new()));
    };
    if !matches!(
        first.errno(),
        libc::EACCES | libc::EINVAL | libc::E2BIG | libc::ENOSPC
    ) {
        return Err((first, String::new()));
    }
    let mut log = vec![0; 1 << 20];
    // The log costs time, so that only a refusal asks for it.
    match try_load(spec, &mut log) {
        Ok(fd) => Ok(fd),
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            Err((error, String::from_utf8_lossy(&log[..end]).into_owned()))
        }
    }
}

fn try_load(spec: &ProgramSpec<'_>, log: &mut [u8]) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: writing a union's field.
    let fields = unsafe { &mut attr.__bindgen_anon_3 };
    for (to, from) in fields.prog_name.iter_mut().zip(spec.name.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    fields.prog_type = spec.kind;
    fields.expected_attach_type = spec.attach;
    fields.attach_btf_id = spec.function;
    fields.insns = spec.instructions.as_ptr() as u64;
    fields.insn_cnt = spec.instructions.len() as u32;
    fields.license = spec.license.as_ptr() as u64;
    if let Some((btf, functions, record)) = &spec.btf {
        fields.prog_btf_fd = btf.as_raw_fd() as u32;
        fields.func_info = functions.as_ptr() as u64;
        fields.func_info_rec_size = *record as u32;
        fields.func_info_cnt = (functions.len() / record.max(&1)) as u32;
    }
    if !log.is_empty() {
        fields.log_level = 1;
        fields.log_buf = log.as_mut_ptr() as u64;
        fields.log_size = log.len() as u32;
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr, "bpf(BPF_PROG_LOAD)")
}

/// Links a program to a raw tracepoint by name.
pub fn raw_tracepoint(program: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    attr.raw_tracepoint.name = name.as_ptr() as u64;
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf_fd(
        bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
        &mut attr,
        "bpf(BPF_RAW_TRACEPOINT_OPEN)",
    )
}

/// Links a program to the function that it was loaded for (`bpf_tracing_prog_attach` of kernel/bpf/syscall.c).
pub fn trampoline(program: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf_fd(
        bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
        &mut attr,
        "bpf(BPF_RAW_TRACEPOINT_OPEN, fexit)",
    )
}

/// `struct { link_create }` of `union bpf_attr` with its `kprobe_multi` part.
#[repr(C)]
struct KprobeMulti {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    kprobe_flags: u32,
    count: u32,
    symbols: u64,
    addresses: u64,
    cookies: u64,
}

/// Links a program to the entries of many functions at once (kprobe.multi, Linux 5.18).
pub fn kprobe_multi(program: BorrowedFd<'_>, addresses: &[u64]) -> Result<OwnedFd, SysError> {
    let attr = KprobeMulti {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: 0,
        attach_type: ATTACH_KPROBE_MULTI,
        flags: 0,
        kprobe_flags: 0,
        count: addresses.len() as u32,
        symbols: 0,
        addresses: addresses.as_ptr() as u64,
        cookies: 0,
    };
    // SAFETY: the attribute is whole, and the addresses live in the caller.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_LINK_CREATE as u32,
            &raw const attr,
            size_of::<KprobeMulti>(),
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given it to us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(SysError::last("bpf(BPF_LINK_CREATE, kprobe.multi)")),
    }
}

/// Links a program to a perf event (Linux 5.15); the event stays alive through the link.
pub fn perf_link(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_fd = event.as_raw_fd() as u32;
    attr.link_create.attach_type = ATTACH_PERF_EVENT;
    bpf_fd(
        bpf_cmd::BPF_LINK_CREATE,
        &mut attr,
        "bpf(BPF_LINK_CREATE, perf event)",
    )
}

/// Writes an entry of a map.
pub fn map_update<K: Wire, V: Wire>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> Result<(), SysError> {
    update(
        map,
        std::ptr::from_ref(key) as u64,
        std::ptr::from_ref(value) as u64,
    )
}

/// Writes an entry of a map whose values are bytes, as a section of constants is.
pub fn map_update_bytes(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> Result<(), SysError> {
    update(map, &raw const key as u64, value.as_ptr() as u64)
}

fn update(map: BorrowedFd<'_>, key: u64, value: u64) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
    bpf(
        bpf_cmd::BPF_MAP_UPDATE_ELEM,
        &mut attr,
        "bpf(BPF_MAP_UPDATE_ELEM)",
    )
    .map(drop)
}

/// Waits until no program runs any more that ran when this was called: membarrier(2), whose global command waits for
/// the end of everything that runs in the kernel without being preempted (`synchronize_rcu` of kernel/rcu/tree.c).
///
/// # Errors
/// `EINVAL` on a kernel that keeps processors free of its own work (`nohz_full`).
pub fn grace_period() -> Result<(), SysError> {
    /// `MEMBARRIER_CMD_GLOBAL` of include/uapi/linux/membarrier.h.
    const GLOBAL: i32 = 1;
    // SAFETY: numbers only.
    match unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(SysError::last("membarrier")),
    }
}

/// Removes an entry of a map; one that is not there is no error.
pub fn map_delete<K: Wire>(map: BorrowedFd<'_>, key: &K) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    match bpf(
        bpf_cmd::BPF_MAP_DELETE_ELEM,
        &mut attr,
        "bpf(BPF_MAP_DELETE_ELEM)",
    ) {
        Err(error) if error.errno() == libc::ENOENT => Ok(()),
        result => result.map(drop),
    }
}

/// Closes a map for writing from user space, so that the verifier takes its values as constants.
pub fn map_freeze(map: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr, "bpf(BPF_MAP_FREEZE)").map(drop)
}

/// What the kernel tells of a loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The program's id in the kernel.
    pub id: u32,
    /// Runs that the kernel left out, where it counts them (see the prober).
    pub misses: u64,
    /// Instructions that the verifier walked (Linux 5.16).
    pub verified: u32,
}

/// `BPF_OBJ_GET_INFO_BY_FD` of a program. No map operation: it masks no program.
pub fn program_info(program: BorrowedFd<'_>) -> Result<ProgramInfo, SysError> {
    // SAFETY: a structure of integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info = &raw mut info as u64;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    bpf(
        bpf_cmd::BPF_OBJ_GET_INFO_BY_FD,
        &mut attr,
        "bpf(BPF_OBJ_GET_INFO_BY_FD)",
    )?;
    Ok(ProgramInfo {
        id: info.id,
        misses: info.recursion_misses,
        verified: info.verified_insns,
    })
}

/// Loads `r0 = 0; call helper; exit`-like code to learn whether kprobe programs have a helper: the
/// verifier answers "unknown func" or "invalid" where the kernel lacks it. `Ok(None)` when the
/// kernel's answer was something else (no privilege, lockdown).
pub fn kprobe_has_helper(helper: i32) -> Result<bool, SysError> {
    const CALL: u8 = 0x85;
    const MOV_IMM: u8 = 0xb7;
    const MOV_REG: u8 = 0xbf;
    const EXIT: u8 = 0x95;
    let insn = |code: u8, dst: u8, src: u8, imm: i32| {
        // SAFETY: a structure of integers.
        let mut insn: bpf_insn = unsafe { std::mem::zeroed() };
        insn.code = code;
        insn.set_dst_reg(dst);
        insn.set_src_reg(src);
        insn.imm = imm;
        insn
    };
    // override_return(ctx, 0): r1 is the context already.
    let code = [
        insn(MOV_REG, 1, 1, 0),
        insn(MOV_IMM, 2, 0, 0),
        insn(CALL, 0, 0, helper),
        insn(MOV_IMM, 0, 0, 0),
        insn(EXIT, 0, 0, 0),
    ];
    let spec = ProgramSpec {
        name: "finject_probe",
        kind: aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
        attach: 0,
        function: 0,
        instructions: &code,
        license: c"Dual MIT/GPL",
        btf: None,
    };
    match try_load(&spec, &mut []) {
        Ok(_) => Ok(true),
        Err(error) if error.source.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}
