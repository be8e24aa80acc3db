//! The programs of `programs/`, as the build script has built them.

/// The victim; the head of programs/victim.c says what it does.
pub const VICTIM: &str = env!("VICTIM");

/// The victim for the 32-bit ABI; empty where the compiler cannot build it.
pub const VICTIM32: &str = env!("VICTIM32");

/// The victim with musl as its C library, which is its loader too; empty where there is no compiler for
/// it.
pub const VICTIM_MUSL: &str = env!("VICTIM_MUSL");

/// The waiter; the head of programs/waiter.c says what it does.
pub const WAITER: &str = env!("WAITER");

/// The same for the 32-bit ABI; empty where the compiler cannot build it.
pub const WAITER32: &str = env!("WAITER32");

/// The mover of data; the head of programs/mover.c says what it does.
pub const MOVER: &str = env!("MOVER");

/// The same for the 32-bit ABI; empty where the compiler cannot build it.
pub const MOVER32: &str = env!("MOVER32");

/// Reaches files by many ways; the head of programs/finder.c says which.
pub const FINDER: &str = env!("FINDER");

/// The same for the 32-bit ABI; empty where the compiler cannot build it.
pub const FINDER32: &str = env!("FINDER32");

/// Calls on sockets; the head of programs/caller.c says how.
pub const CALLER: &str = env!("CALLER");

/// Calls among signals of its own; the head of programs/urgent.c says what it does.
pub const URGENT: &str = env!("URGENT");

/// The same in Go; empty where there is no compiler of it. The head of programs/urgent.go says what it does.
pub const GO_URGENT: &str = env!("GO_URGENT");

/// The same in Python; the head of programs/urgent.py says what it does.
pub const PYTHON_URGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/urgent.py");

/// Counts beside a thread that calls; the head of programs/siblings.c says what it does.
pub const SIBLINGS: &str = env!("SIBLINGS");

/// What befalls a thread whose call is held; the head of programs/befallen.c says what.
pub const BEFALLEN: &str = env!("BEFALLEN");

/// The ticker; the head of programs/ticker.c says what it does.
pub const TICKER: &str = env!("TICKER");

/// The hammer of map system calls; the head of programs/hammer.c says what it does.
pub const HAMMER: &str = env!("HAMMER");

/// The caller under which finjects come and go; the head of programs/storm.c says what it does.
pub const STORM: &str = env!("STORM");

/// Executes a command where nobody can listen to a filter.
pub const UNLISTENED: &str = env!("UNLISTENED");

/// The worker in Go; empty where there is no compiler of it. The head of programs/worker.go says what
/// it does.
pub const GO_WORKER: &str = env!("GO_WORKER");

/// The worker in Rust; the head of programs/worker.rs says what it does.
pub const RUST_WORKER: &str = env!("RUST_WORKER");

/// The interpreter of Python; empty where there is none.
pub const PYTHON: &str = env!("PYTHON");

/// The worker in Python; the head of programs/worker.py says what it does.
pub const PYTHON_WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs/worker.py");
