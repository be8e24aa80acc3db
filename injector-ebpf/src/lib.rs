//! The kernel half of finject: what runs at the entry of a hooked system call, and the hooks that
//! keep the set of target processes true. Built for the BPF target by `cargo xtask ebpf`; finject
//! carries the object.
//!
//! Everything here runs with preemption disabled (kprobes and raw tracepoints both), in the context
//! of the calling thread, and under the verifier: bounded loops, checked pointers, 512 bytes of
//! stack.
#![no_std]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the target has no fetching atomics but by intrinsics"
)]

pub mod arming;
pub mod atomic;
pub mod data;
pub mod emit;
pub mod facts;
pub mod files;
pub mod gate;
pub mod hand;
pub mod maps;
pub mod sift;
pub mod sockets;
pub mod spin;
pub mod target;
