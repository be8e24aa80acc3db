//! The programs of `programs/`, as the build script has built them.

/// The victim; the head of programs/victim.c says what it does.
pub const VICTIM: &str = env!("VICTIM");

/// The victim for the 32-bit ABI; empty where the compiler cannot build it.
pub const VICTIM32: &str = env!("VICTIM32");

/// The waiter; the head of programs/waiter.c says what it does.
pub const WAITER: &str = env!("WAITER");

/// The ticker; the head of programs/ticker.c says what it does.
pub const TICKER: &str = env!("TICKER");

/// The hammer of map system calls; the head of programs/hammer.c says what it does.
pub const HAMMER: &str = env!("HAMMER");
