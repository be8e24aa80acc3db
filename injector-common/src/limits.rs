//! Every limit of finject's kernel side, each with its reason. A plan beyond one of them is refused
//! before anything is touched; what only shows at run time (a full table) is counted and reported.

/// Rules in one plan. The rules of a call are a bit set in one 64-bit word, so that a call looks
/// its rules up with one load.
pub const MAX_RULES: usize = 64;

/// Steps in one chain, the closing `off` that lowering adds included. The program looks a step up by
/// a scan over all of them.
pub const MAX_STEPS: usize = 16;

/// Tests of arguments (`fd=`, `argN`) in one rule: one for each argument, and ranges on two.
pub const MAX_TESTS: usize = 8;

/// Predicates on who calls that a rule can have.
pub const MAX_CALLER_TESTS: usize = 4;

/// Predicates on files (`path=`, `from=`, `to=`, `exe=`) that a rule can have.
pub const MAX_PATH_TESTS: usize = 4;

/// Predicates on a socket's ends (`peer=`, `addr=`) that a rule can have.
pub const MAX_SOCKET_TESTS: usize = 2;

/// Bytes of a pattern's names and wildcards, all alternatives together: a name has at most 255. This and what follows are
/// powers of two, since the verifier takes a mask for a bound.
pub const MAX_GLOB_TOKENS: usize = 512;

/// Names of a pattern, all alternatives together.
pub const MAX_GLOB_PARTS: usize = 32;

/// Classes (`[..]`) of a pattern.
pub const MAX_GLOB_CLASSES: usize = 4;

/// Alternatives of a pattern: what its `{ }` make of it.
pub const MAX_GLOB_ALTERNATIVES: usize = 8;

/// Turns of one match of a file within the kernel: some for each name of its path, and one for each byte that is compared. A
/// path has at most 4096 bytes.
pub const MAX_WALK: u32 = 1 << 16;

/// System-call numbers of one ABI lie below this (x86-64 ended at 467 in Linux 6.12, and numbers
/// are given out one by one; i386 shares the new ones).
pub const MAX_NR: u32 = 512;

/// ABIs of one architecture: the native one and the 32-bit one.
pub const ABIS: u32 = 2;

/// Processes that can be targets at once. At 100 bytes each the preallocated table takes 1.6 MB.
pub const MAX_TARGETS: u32 = 16_384;

/// Counters of `per:process` and `per:thread` rules that can exist at once, all rules together.
/// The table is made this large only when a rule asks for such a scope.
pub const MAX_SCOPES: u32 = 65_536;

/// Bytes of the ring buffer of events: 12,483 records of 160 bytes and their headers of 8. It has to
/// bridge the time in which finject is not scheduled; what does not fit is counted as dropped.
pub const RING_BYTES: u32 = 2 << 20;

/// How long faults stay in force after finject's last sign of life where the user says nothing, in nanoseconds.
pub const LEASE_NS: u64 = 1_500_000_000;

/// How often finject renews the lease, in nanoseconds: a third of the least lease, so that two renewals
/// may be late before faults stop.
pub const RENEW_NS: u64 = 500_000_000;

/// Retries of a lost race for a chain's position, before the call passes and is counted as
/// contended. Each lost race means that another CPU advanced, so that the number of CPUs racing in
/// one handler bounds it in practice.
pub const MAX_RETRIES: u32 = 1024;

/// Calls that a chain's steps may span together, and firings of `max:`. Position and firings share
/// one 64-bit word, so that both change in one compare-and-exchange.
pub const MAX_POSITION: u32 = u32::MAX - 1;

/// Threads that can be on their way to the tracer, or wait there, at once, or be in calls that have fired where that is told
/// at their exits; two whose ids differ by a multiple of it share a mark, of which the second goes without. 1.5 MB.
pub const MARKS: usize = 4096;

/// Rules that can fire on one call that is handed to the tracer.
pub const MAX_MARKED: usize = 8;

/// How long the program may spin for a delay, nanoseconds: for so long its processor does nothing else.
pub const MOST_SPIN_NS: u64 = 1_000_000;

/// Bits that one firing may flip (`corrupt:N`): each that is written takes a block of memory of its own, and two
/// more of the parts that one call may have.
pub const MAX_FLIPS: u32 = 64;

/// Process ids lie below this (`PID_MAX_LIMIT` of include/linux/threads.h on 64-bit kernels): the
/// set of targets has one bit for each, 512 KiB in all.
pub const PID_LIMIT: u32 = 4 << 20;
