//! The kernel object: parsing, constants, maps, loading. aya's own loader knows neither
//! kprobe.multi nor fmod_ret programs and reads all of the kernel's BTF at every start, so that
//! finject takes the parts of aya that it needs (`aya-obj` for the object, maps and the ring buffer
//! from `aya`) and loads the programs itself.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, RingBuf};
use aya_obj::btf::BtfFeatures;
use aya_obj::generated::bpf_prog_type;
use aya_obj::{EbpfSectionKind, Object};

use crate::sys::{SysError, bpf};

/// Names another object instead of the one that finject carries.
pub const OBJECT_VARIABLE: &str = "FINJECT_BPF_OBJECT";

/// The map that finject maps: the object's zeroed memory.
pub const MAPPED: &str = ".bss";
/// `BPF_F_MMAPABLE` of include/uapi/linux/bpf.h.
const MMAPABLE: u32 = 1 << 10;

static CARRIED: &[u8] = aya::include_bytes_aligned!("../../../bpf/finject.bpf.o");

/// An object that could not be made to run.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The file named by the environment cannot be read.
    #[error("cannot read the kernel object {path} that {OBJECT_VARIABLE} names")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not an object of finject's.
    #[error("the kernel object is damaged: {what}")]
    Damaged {
        /// What did not fit.
        what: String,
    },
    /// The kernel did not create a map.
    #[error("cannot create the map {name}")]
    Map {
        /// The map.
        name: String,
        /// Why.
        #[source]
        source: aya::maps::MapError,
    },
    /// The kernel refused a program.
    #[error("the kernel refuses the program {name}{}", tail_of(log))]
    Refused {
        /// The program.
        name: &'static str,
        /// The verifier's log.
        log: String,
        /// Why.
        #[source]
        source: SysError,
    },
    /// Another call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// The end of a verifier's log, where the reason stands.
fn tail_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    format!(":\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
}

fn damaged(what: impl std::fmt::Display) -> ObjectError {
    ObjectError::Damaged {
        what: what.to_string(),
    }
}

/// The bytes of the object: finject's own, or the file that the environment names.
pub fn bytes() -> Result<Vec<u8>, ObjectError> {
    match std::env::var_os(OBJECT_VARIABLE) {
        None => Ok(CARRIED.to_vec()),
        Some(path) => std::fs::read(&path).map_err(|source| ObjectError::Read {
            path: path.to_string_lossy().into_owned(),
            source,
        }),
    }
}

/// What a program is loaded to hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A kprobe.
    Kprobe,
    /// A kprobe.multi link.
    KprobeMulti,
    /// A raw tracepoint.
    RawTracepoint,
    /// The exit of a kernel function (fexit).
    Exit {
        /// By its number in the kernel's BTF.
        function: u32,
    },
}

impl Hook {
    fn kind(self) -> bpf_prog_type {
        match self {
            Self::Kprobe | Self::KprobeMulti => bpf_prog_type::BPF_PROG_TYPE_KPROBE,
            Self::RawTracepoint => bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
            Self::Exit { .. } => bpf_prog_type::BPF_PROG_TYPE_TRACING,
        }
    }

    fn attach(self) -> u32 {
        match self {
            Self::Kprobe | Self::RawTracepoint => 0,
            Self::KprobeMulti => bpf::ATTACH_KPROBE_MULTI,
            Self::Exit { .. } => bpf::ATTACH_EXIT,
        }
    }

    fn function(self) -> u32 {
        match self {
            Self::Exit { function } => function,
            Self::Kprobe | Self::KprobeMulti | Self::RawTracepoint => 0,
        }
    }
}

/// A constant of the program: its symbol and its bytes.
pub type Constant = (&'static str, Vec<u8>);

/// An object whose maps exist, ready to load programs from.
#[derive(Debug)]
pub struct Loaded {
    object: Object,
    btf: OwnedFd,
    maps: HashMap<String, Arc<OwnedFd>>,
    /// The ring buffer's, until it is taken.
    ring: Option<MapData>,
}

/// The map of events.
const RING: &str = "EVENTS";

impl Loaded {
    /// Parses the object, sets its constants, and creates its maps; `sizes` names the maps whose
    /// number of entries is not the object's own.
    pub fn new(
        data: &[u8],
        constants: &[Constant],
        sizes: &[(&str, u32)],
    ) -> Result<Self, ObjectError> {
        Self::of(data, constants, sizes, &HashMap::new())
    }

    /// The same object once more, with other constants and with the maps of this one.
    pub fn again(&self, data: &[u8], constants: &[Constant]) -> Result<Self, ObjectError> {
        Self::of(data, constants, &[], &self.maps)
    }

    fn of(
        data: &[u8],
        constants: &[Constant],
        sizes: &[(&str, u32)],
        known: &HashMap<String, Arc<OwnedFd>>,
    ) -> Result<Self, ObjectError> {
        let mut object = Object::parse(data).map_err(damaged)?;
        let constants = constants
            .iter()
            .map(|(name, value)| (*name, (value.as_slice(), true)));
        object
            .patch_map_data(constants.collect())
            .map_err(damaged)?;
        // All of these came before Linux 5.17, below which finject's program does not run.
        let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let btf = object.fixup_and_sanitize_btf(&features).map_err(damaged)?;
        let btf = btf.ok_or_else(|| damaged("it has no type information"))?;
        let btf = bpf::load_btf(&btf.to_bytes())?;
        let mut maps = HashMap::new();
        let mut definitions = Vec::new();
        let mut ring = None;
        for (name, mut map) in std::mem::take(&mut object.maps) {
            let is_constant = map.section_kind() == EbpfSectionKind::Rodata;
            if !is_constant && let Some(known) = known.get(&name) {
                definitions.push((name.clone(), known.as_raw_fd(), map));
                maps.insert(name, Arc::clone(known));
                continue;
            }
            if let Some((_, entries)) = sizes.iter().find(|(sized, _)| *sized == name) {
                map.set_max_entries(*entries);
            }
            let initial = if name == MAPPED {
                Vec::new()
            } else {
                map.data().to_vec()
            };
            if name == MAPPED
                && let aya_obj::Map::Legacy(map) = &mut map
            {
                map.def.map_flags |= MMAPABLE;
            }
            let definition = map.clone();
            let map = MapData::create(map, short(&name), Some(btf.as_fd())).map_err(|source| {
                ObjectError::Map {
                    name: name.clone(),
                    source,
                }
            })?;
            if !initial.is_empty() {
                bpf::map_update_bytes(map.fd().as_fd(), 0, &initial)?;
            }
            if is_constant {
                bpf::map_freeze(map.fd().as_fd())?;
            }
            let fd = map.fd().as_fd().try_clone_to_owned();
            let fd = fd.map_err(|source| SysError {
                call: "fcntl(F_DUPFD_CLOEXEC)",
                source,
            })?;
            definitions.push((name.clone(), fd.as_raw_fd(), definition));
            if name == RING {
                ring = Some(map);
            }
            maps.insert(name, Arc::new(fd));
        }
        let sections: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        object
            .relocate_maps(
                definitions
                    .iter()
                    .map(|(name, fd, map)| (name.as_str(), *fd, map)),
                &sections,
            )
            .map_err(damaged)?;
        object.relocate_calls(&sections).map_err(damaged)?;
        Ok(Self {
            object,
            btf,
            maps,
            ring,
        })
    }

    /// Loads one program.
    pub fn program(&self, name: &'static str, hook: Hook) -> Result<OwnedFd, ObjectError> {
        let missing = || damaged(format_args!("it has no program {name}"));
        let program = self.object.programs.get(name).ok_or_else(missing)?;
        let function = self
            .object
            .functions
            .get(&program.function_key())
            .ok_or_else(missing)?;
        let functions = function.func_info.func_info_bytes();
        let license = CString::new(program.license.to_bytes()).map_err(damaged)?;
        let spec = bpf::ProgramSpec {
            name,
            kind: hook.kind() as u32,
            attach: hook.attach(),
            function: hook.function(),
            instructions: &function.instructions,
            license: &license,
            btf: Some((self.btf.as_fd(), &functions, function.func_info_rec_size)),
        };
        bpf::load_program(&spec).map_err(|(source, log)| ObjectError::Refused { name, log, source })
    }

    /// A map.
    pub fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, ObjectError> {
        let map = self.maps.get(name);
        let map = map.ok_or_else(|| damaged(format_args!("it has no map {name}")))?;
        Ok(map.as_fd())
    }

    /// The ring buffer, which is taken once.
    pub fn ring(&mut self) -> Result<RingBuf<MapData>, ObjectError> {
        let map = self.ring.take();
        let map = map.ok_or_else(|| damaged(format_args!("it has no map {RING}")))?;
        let failed = |source| ObjectError::Map {
            name: RING.to_owned(),
            source,
        };
        RingBuf::try_from(Map::from_map_data(map).map_err(failed)?).map_err(failed)
    }
}

/// Map names are at most 15 bytes of letters, digits, `_` and `.` (kernel/bpf/syscall.c).
fn short(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}
