//! Other sessions that run in the kernel: whose calls they are about is in their memory, which their programs name. A
//! process that is another session's target when this one begins is not its own, too, since each would count the calls that the other lets come again, or miss those that it
//! fails.

use std::os::fd::AsFd;

use aya::maps::MapData;
use aya::programs::loaded_programs;
use injector_common::{RunState, Shared};

use super::object::MAPPED;
use crate::backend::memory::Memory;
use crate::sys::time::monotonic_ns;

/// The entry program's name in the kernel.
const ENTRY: &str = "finject_entry";

/// The memories of the sessions that were there when this was made.
#[derive(Debug, Default)]
pub(super) struct Others {
    memories: Vec<Memory>,
}

impl Others {
    /// Looks for them. Before this session's own programs are there. One of another version's, whose memory is laid out in
    /// another way, tells nothing; nor does any to a user who may not look at others' programs.
    pub(super) fn look() -> Self {
        let programs = loaded_programs().flatten();
        let entries = programs.filter(|program| program.name_as_str() == Some(ENTRY));
        let maps = entries.filter_map(|program| program.map_ids().ok().flatten());
        let maps = maps.flatten().filter_map(|id| MapData::from_id(id).ok());
        let memories = maps.filter(is_memory).filter_map(|map| {
            let memory = Memory::map(map.fd().as_fd());
            memory.ok()
        });
        Self {
            memories: memories.collect(),
        }
    }

    /// Whether a process is a target of one that still acts.
    pub(super) fn have(&self, pid: u32) -> bool {
        let mut acting = self.memories.iter().filter(|memory| match memory.state() {
            RunState::Idle => true,
            RunState::Armed => memory.lease() >= monotonic_ns(),
            RunState::Off => false,
        });
        acting.any(|memory| memory.is_target(pid))
    }
}

fn is_memory(map: &MapData) -> bool {
    map.info().is_ok_and(|info| {
        let size = info.value_size() as usize;
        info.name_as_str() == Some(MAPPED) && size == size_of::<Shared>()
    })
}
