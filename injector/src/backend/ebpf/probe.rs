//! What the in-kernel backend needs, and what of it this machine has: each need with what was
//! found, and with what would provide it where it is missing. Nothing here changes anything; the
//! trial that `doctor` makes is in the backend itself.

use std::fs;
use std::path::Path;

use super::btf::{self, Btf};
use super::kallsyms::{self, Stubs};
use crate::sys::bpf;
use crate::sys::process::{SYS_ADMIN, effective_capabilities, effective_uid};

/// Number of `bpf_override_return` among the helpers (include/uapi/linux/bpf.h).
const HELPER_OVERRIDE: i32 = 58;
/// Inode of the initial pid namespace (`PROC_PID_INIT_INO` of include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// `CAP_PERFMON` and `CAP_BPF` of include/uapi/linux/capability.h.
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Something that the backend needs or makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// A machine whose system-call numbers finject knows.
    Architecture,
    /// The right to load and attach programs.
    Privilege,
    /// Process numbers that mean the same to the kernel program.
    PidNamespace,
    /// Linux 5.17: loops of the kernel's for programs.
    Kernel,
    /// A lockdown below confidentiality.
    Lockdown,
    /// The kernel's own type information.
    TypeInformation,
    /// Probes at function entries.
    Kprobes,
    /// `bpf_override_return`.
    Override,
    /// The function tracer, on which probes sit.
    FunctionTracer,
    /// Addresses of kernel functions.
    Symbols,
    /// A kernel that does not preempt its own programs.
    Preemption,
    /// Counts of the runs that the kernel left out.
    MissCounts,
    /// The list of hooked functions, to see other agents.
    TraceFiles,
}

impl std::fmt::Display for Need {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Architecture => "architecture",
            Self::Privilege => "privilege",
            Self::PidNamespace => "pid namespace",
            Self::Kernel => "kernel version",
            Self::Lockdown => "lockdown",
            Self::TypeInformation => "type information",
            Self::Kprobes => "kprobes",
            Self::Override => "error injection",
            Self::FunctionTracer => "function tracer",
            Self::Symbols => "kernel symbols",
            Self::Preemption => "preemption",
            Self::MissCounts => "miss counts",
            Self::TraceFiles => "trace files",
        })
    }
}

/// What probing found of one need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Found,
    /// It is not, and nothing works without it. What would provide it.
    Missing {
        /// What to do.
        remedy: String,
    },
    /// It is not, and something is less good without it.
    Lacking {
        /// What is less good, and what to do.
        consequence: String,
    },
    /// It could not be told, since something else is missing.
    Unknown,
}

/// One line of the doctor's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The need.
    pub need: Need,
    /// What was seen.
    pub seen: String,
    /// What that means.
    pub state: State,
}

/// Everything that probing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// In the order in which the needs build on each other.
    pub findings: Vec<Finding>,
    /// The kernel's field offsets, by the program's constant; empty where they are missing.
    pub(super) offsets: Vec<(&'static str, u32)>,
    /// Where system calls enter the kernel; empty where that is missing.
    pub(super) stubs: Stubs,
}

impl Capabilities {
    /// The needs that stand in the way.
    pub fn missing(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| matches!(finding.state, State::Missing { .. }))
    }

    /// The needs that stand in the way of rules that need calls to be overridden, or of others.
    pub fn missing_for(&self, overrides: bool) -> impl Iterator<Item = &Finding> {
        self.missing()
            .filter(move |finding| overrides || finding.need != Need::Override)
    }

    /// Whether a need is met.
    pub fn has(&self, need: Need) -> bool {
        let found = |finding: &&Finding| finding.need == need && finding.state == State::Found;
        self.findings.iter().any(|finding| found(&finding))
    }
}

fn found(need: Need, seen: impl Into<String>) -> Finding {
    Finding {
        need,
        seen: seen.into(),
        state: State::Found,
    }
}

fn missing(need: Need, seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        need,
        seen: seen.into(),
        state: State::Missing {
            remedy: remedy.into(),
        },
    }
}

fn lacking(need: Need, seen: impl Into<String>, consequence: impl Into<String>) -> Finding {
    Finding {
        need,
        seen: seen.into(),
        state: State::Lacking {
            consequence: consequence.into(),
        },
    }
}

fn unknown(need: Need, seen: impl Into<String>) -> Finding {
    Finding {
        need,
        seen: seen.into(),
        state: State::Unknown,
    }
}

/// Looks at everything.
pub fn probe() -> Capabilities {
    let privilege = privilege();
    let lockdown = lockdown();
    let may_load = privilege.state == State::Found && lockdown.state == State::Found;
    let type_data = fs::read(btf::VMLINUX);
    let parsed = type_data.as_ref().ok().map(|data| Btf::parse(data));
    let (type_information, offsets) = type_information(parsed.as_ref());
    let (symbols, stubs) = symbols();
    let findings = vec![
        architecture(),
        privilege,
        pid_namespace(),
        kernel(),
        lockdown,
        type_information,
        kprobes(),
        if may_load {
            override_helper()
        } else {
            unknown(Need::Override, "not tried: see above")
        },
        function_tracer(),
        symbols,
        preemption(&kernel_version()),
        miss_counts(parsed.as_ref()),
        trace_files(),
    ];
    Capabilities {
        findings,
        offsets,
        stubs,
    }
}

fn architecture() -> Finding {
    if cfg!(target_arch = "x86_64") {
        found(Need::Architecture, "x86-64, with its 32-bit calls")
    } else {
        missing(
            Need::Architecture,
            std::env::consts::ARCH,
            "run finject on x86-64",
        )
    }
}

fn privilege() -> Finding {
    let effective = effective_capabilities();
    let has = |capability: u32| effective >> capability & 1 == 1;
    let uid = effective_uid();
    if !(has(SYS_ADMIN) || has(BPF) && has(PERFMON)) {
        let seen = format!("uid {uid}, without CAP_SYS_ADMIN and without CAP_BPF and CAP_PERFMON");
        return missing(Need::Privilege, seen, "run it as root: sudo finject ...");
    }
    // Capabilities of a user namespace of one's own look the same, and count for nothing.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    if fields.len() == 3 && fields != ["0", "0", "4294967295"] {
        let seen = format!("uid {uid} of a user namespace");
        return missing(
            Need::Privilege,
            seen,
            "run it as root of the host: loading kernel programs needs privilege in the initial \
             user namespace",
        );
    }
    found(Need::Privilege, format!("uid {uid}, with the capabilities"))
}

fn pid_namespace() -> Finding {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == INITIAL_PID_NAMESPACE => {
            found(Need::PidNamespace, "the initial one")
        }
        Ok(link) => missing(
            Need::PidNamespace,
            format!("{}, not the initial one", link.display()),
            "run finject on the host, or in a container that shares its process numbers \
             (docker run --pid=host --privileged ...)",
        ),
        Err(error) => unknown(Need::PidNamespace, format!("/proc/self/ns/pid: {error}")),
    }
}

/// Major and minor of the running kernel.
fn release() -> Option<(String, u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let release = release.trim().to_owned();
    let mut numbers = release.split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((release, major, minor)),
        _ => None,
    }
}

fn kernel() -> Finding {
    match release() {
        Some((release, major, minor)) if (major, minor) >= (5, 17) => {
            found(Need::Kernel, format!("Linux {release}"))
        }
        Some((release, ..)) => missing(
            Need::Kernel,
            format!("Linux {release}"),
            "Linux 5.17 or newer: programs need its loops (bpf_loop)",
        ),
        None => unknown(
            Need::Kernel,
            "/proc/sys/kernel/osrelease says nothing known",
        ),
    }
}

/// How the running kernel was built: the fourth word of uname(2) and on.
fn kernel_version() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/version").unwrap_or_default();
    version.trim().to_owned()
}

/// A signal that a program sends comes by an interrupt, which on PREEMPT_RT is a thread, while the program waits for it
/// (kernel/trace/bpf_trace.c, `bpf_send_signal_common`; kernel/irq_work.c).
fn preemption(version: &str) -> Finding {
    let mut words = version.split_ascii_whitespace();
    if words.any(|word| word == "PREEMPT_RT") {
        lacking(
            Need::Preemption,
            "PREEMPT_RT",
            "delays above --spin-max, hold, stop, after:, short: and corrupt: need --backend ptrace here",
        )
    } else {
        found(Need::Preemption, "not PREEMPT_RT")
    }
}

fn lockdown() -> Finding {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) if text.contains("[confidentiality]") => missing(
            Need::Lockdown,
            "confidentiality",
            "boot without lockdown=confidentiality: in that mode the kernel allows no probes and \
             no reading of its memory",
        ),
        Ok(text) => {
            let mode = text.split(['[', ']']).nth(1).unwrap_or("none");
            found(Need::Lockdown, mode)
        }
        Err(_) => found(Need::Lockdown, "none"),
    }
}

/// With the offsets that were found.
fn type_information(
    parsed: Option<&Result<Btf<'_>, btf::BtfError>>,
) -> (Finding, Vec<(&'static str, u32)>) {
    let (seen, remedy) = match parsed {
        Some(Ok(parsed)) => match btf::offsets(parsed) {
            Ok(offsets) => return (found(Need::TypeInformation, btf::VMLINUX), offsets),
            Err(error) => (
                error.to_string(),
                "a kernel whose structures this version of finject knows (5.17 to 6.12 are tested \
                 at their ends)",
            ),
        },
        Some(Err(error)) => (
            error.to_string(),
            "a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ),
        None => (
            format!("no {}", btf::VMLINUX),
            "a kernel built with CONFIG_DEBUG_INFO_BTF=y (all large distributions' since 2021)",
        ),
    };
    (missing(Need::TypeInformation, seen, remedy), Vec::new())
}

/// What the kernel's build configuration says of an option, where it is shown as text.
fn configured(option: &str) -> Option<String> {
    let (release, ..) = release()?;
    let path = format!("/boot/config-{release}");
    let text = fs::read_to_string(&path).ok()?;
    let line = text.lines().find(|line| {
        line.strip_prefix(option)
            .is_some_and(|rest| rest.starts_with('='))
            || *line == format!("# {option} is not set")
    });
    Some(match line {
        Some(line) => format!("{} ({path})", line.trim_start_matches("# ")),
        None => format!("{option} is not in {path}"),
    })
}

fn kprobes() -> Finding {
    let kind = Path::new("/sys/bus/event_source/devices/kprobe/type");
    if kind.exists() {
        found(Need::Kprobes, "the kernel has them")
    } else {
        let seen = configured("CONFIG_KPROBES").unwrap_or_else(|| "no kprobe event source".into());
        missing(
            Need::Kprobes,
            seen,
            "a kernel with CONFIG_KPROBES, CONFIG_KPROBE_EVENTS and CONFIG_BPF_EVENTS, and /sys \
             mounted",
        )
    }
}

fn override_helper() -> Finding {
    match bpf::kprobe_has_helper(HELPER_OVERRIDE) {
        Ok(true) => found(Need::Override, "bpf_override_return"),
        Ok(false) => missing(
            Need::Override,
            configured("CONFIG_BPF_KPROBE_OVERRIDE")
                .unwrap_or_else(|| "no bpf_override_return".into()),
            "a kernel with CONFIG_BPF_KPROBE_OVERRIDE=y: Ubuntu, Amazon Linux, RHEL 8, Arch and \
             Proxmox have it; Debian, Fedora, RHEL 9 and SLES do not. `cargo xtask vm` boots one. Rules \
             of `after:` and `signal:` alone do without",
        ),
        Err(error) if error.errno() == libc::EPERM => missing(
            Need::Privilege,
            "bpf(2) is not permitted",
            "run it as root of the host; in a container, with --privileged",
        ),
        Err(error) => missing(
            Need::Override,
            format!("{error}: {}", error.source),
            "a kernel with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_BPF_EVENTS",
        ),
    }
}

fn function_tracer() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/ftrace_enabled") {
        Ok(text) if text.trim() == "0" => missing(
            Need::FunctionTracer,
            "kernel.ftrace_enabled = 0",
            "sysctl kernel.ftrace_enabled=1: probes sit on the function tracer",
        ),
        Ok(_) => found(Need::FunctionTracer, "on"),
        Err(_) => missing(
            Need::FunctionTracer,
            "no kernel.ftrace_enabled",
            "a kernel with CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE",
        ),
    }
}

/// With the stubs that were found.
fn symbols() -> (Finding, Stubs) {
    const PROBE: &str = "__x64_sys_fsync";
    let (seen, remedy) = match Stubs::read() {
        Ok(stubs) => match stubs.address(PROBE) {
            Some(0) => (
                "addresses are hidden".into(),
                "run it as root, and sysctl kernel.kptr_restrict=1 or 0",
            ),
            Some(_) => return (found(Need::Symbols, kallsyms::KALLSYMS), stubs),
            None => (
                format!("{} has no {PROBE}", kallsyms::KALLSYMS),
                "a kernel with CONFIG_KALLSYMS, and x86's system-call wrappers (Linux 4.17)",
            ),
        },
        Err(error) => (
            format!("{}: {error}", kallsyms::KALLSYMS),
            "a kernel with CONFIG_KALLSYMS, and /proc mounted",
        ),
    };
    (missing(Need::Symbols, seen, remedy), Stubs::default())
}

fn miss_counts(parsed: Option<&Result<Btf<'_>, btf::BtfError>>) -> Finding {
    match parsed {
        Some(Ok(parsed)) if btf::counts_misses(parsed) => found(
            Need::MissCounts,
            "the kernel counts runs that it leaves out",
        ),
        Some(Ok(_)) => lacking(
            Need::MissCounts,
            "misses: unknown",
            "before Linux 6.7 the kernel leaves runs out uncounted while another program of the \
             same processor works on a map: counts may then be short, and nothing tells",
        ),
        _ => unknown(Need::MissCounts, "misses: unknown"),
    }
}

/// Where the list of hooked functions is, if it can be read.
pub fn enabled_functions() -> Option<String> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|directory| fs::read_to_string(format!("{directory}/enabled_functions")).ok())
}

fn trace_files() -> Finding {
    match enabled_functions() {
        Some(_) => found(Need::TraceFiles, "enabled_functions can be read"),
        None => lacking(
            Need::TraceFiles,
            "no enabled_functions",
            "another agent on the same function is noticed only by the test calls; mount -t \
             tracefs nodev /sys/kernel/tracing",
        ),
    }
}

/// The functions among `names` on which another agent has put a trampoline (a fentry, fexit or
/// fmod_ret program). With one there, an override would be lost or turned into garbage.
/// Lines are `name (count) flags...`, and `D` is the flag (kernel/trace/ftrace.c, `t_show`).
pub fn trampolines<'n>(list: &str, names: &[&'n str]) -> Vec<&'n str> {
    let direct = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        let flags = words.skip(1).take_while(|word| word.len() == 1);
        flags
            .clone()
            .any(|flag| flag == "D")
            .then(|| name.to_owned())
    };
    let busy: Vec<String> = list.lines().filter_map(direct).collect();
    names
        .iter()
        .copied()
        .filter(|name| busy.iter().any(|busy| busy == name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_direct_calls_are_collisions() {
        let list = "__x64_sys_fsync (1) R             ->arch_ftrace_ops_list_func+0x0/0x1e0\n\
                    __x64_sys_write (2) R   D   M \ttramp: ftrace_regs_caller+0x0/0x65 (x)\n\
                    \tdirect-->bpf_trampoline_6442509213+0x0/0x106\n\
                    __x64_sys_read (1)     D\t\n\
                    do_D (1) R\n";
        let names = [
            "__x64_sys_fsync",
            "__x64_sys_write",
            "__x64_sys_read",
            "do_D",
        ];
        assert_eq!(
            trampolines(list, &names),
            ["__x64_sys_write", "__x64_sys_read"]
        );
    }

    #[test]
    fn a_kernel_that_preempts_its_programs_is_told_by_its_version() {
        for (version, state) in [
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)", true),
            ("#1 SMP PREEMPT_RT Debian 6.12.57-1 (2025-11-05)", false),
            ("#2 SMP PREEMPT_RT_NOT_THIS", true),
            ("", true),
        ] {
            let finding = preemption(version);
            assert_eq!(finding.state == State::Found, state, "{version}");
        }
    }

    #[test]
    fn every_missing_need_says_what_to_do() {
        for finding in probe().missing() {
            let State::Missing { remedy } = &finding.state else {
                unreachable!()
            };
            assert!(
                !remedy.is_empty() && !finding.seen.is_empty(),
                "{finding:?}"
            );
        }
    }
}
