//! The object file itself: what is left out of it, and what must and must not be in it.

use anyhow::{Context as _, bail, ensure};
use object::{
    Object as _, ObjectSection as _,
    build::elf::{Builder, Section, SectionData},
    elf::SHT_STRTAB,
};

/// Leaves out the debug sections and what belongs to them. The kernel reads types and source lines
/// from `.BTF` and `.BTF.ext`, which stay.
pub(super) fn strip(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("not an ELF object")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            section.delete = true;
        }
    }
    // LLVM keeps the names of sections with those of symbols; the writer wants them apart.
    let apart = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !builder.sections.iter().any(apart) {
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    builder.delete_orphans();
    builder.set_section_sizes();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("writing the object")?;
    Ok(stripped)
}

/// The kernel's verifier wants the types of functions and maps, and its log the source lines.
pub(super) fn has_types(object: &[u8]) -> anyhow::Result<()> {
    let file = object::File::parse(object).context("not an object")?;
    for name in [".BTF", ".BTF.ext"] {
        let section = file
            .section_by_name(name)
            .with_context(|| format!("no section {name}"))?;
        // `BTF_MAGIC` of include/uapi/linux/btf.h.
        ensure!(
            section.data()?.starts_with(&0xeb9f_u16.to_le_bytes()),
            "section {name} is not BTF"
        );
    }
    let extension = file
        .section_by_name(".BTF.ext")
        .context("no section .BTF.ext")?;
    // `struct btf_ext_header`: magic, version, flags, hdr_len, func_info_off, func_info_len.
    let length = extension
        .data()?
        .get(12..16)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes);
    ensure!(
        length.is_some_and(|length| length > 0),
        "section .BTF.ext has no types of functions"
    );
    Ok(())
}

/// The object names none of these places, nor any other that only one machine has.
pub(super) fn names_no_place(object: &[u8], places: &[String]) -> anyhow::Result<()> {
    let directories = ["home", "root", "usr", "tmp"].map(|name| format!("/{name}/"));
    let elsewhere = ["index.crates.io", "://"].map(str::to_owned);
    for place in places.iter().chain(&directories).chain(&elsewhere) {
        if let Some(at) = find(object, place.as_bytes()) {
            let start = at.saturating_sub(8);
            let end = object.len().min(at + 80);
            bail!(
                "the object names a place of this machine, {place}: {:?}",
                String::from_utf8_lossy(&object[start..end]),
            );
        }
    }
    Ok(())
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|part| part == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Vec<u8> {
        std::fs::read(super::super::object_path()).unwrap()
    }

    #[test]
    fn stripping_twice_is_stripping_once() {
        let once = strip(&committed()).unwrap();
        assert_eq!(strip(&once).unwrap(), once);
        has_types(&once).unwrap();
    }

    #[test]
    fn code_types_symbols_and_relocations_stay() {
        let (before, after) = (committed(), strip(&committed()).unwrap());
        let (before, after) = (
            object::File::parse(&*before).unwrap(),
            object::File::parse(&*after).unwrap(),
        );
        for section in before.sections() {
            let name = section.name().unwrap();
            if name.contains(".debug_") || name.ends_with("tab") {
                continue;
            }
            let kept = after.section_by_name(name).unwrap();
            assert_eq!(kept.data().unwrap(), section.data().unwrap(), "{name}");
            assert_eq!(
                kept.relocations().count(),
                section.relocations().count(),
                "{name}"
            );
        }
        assert!(
            after
                .sections()
                .all(|section| !section.name().unwrap().contains("debug"))
        );
    }

    #[test]
    fn a_place_in_the_object_is_found() {
        assert!(names_no_place(b"..src/main.rs..", &["/builds/x".into()]).is_ok());
        let error = names_no_place(b"../builds/x/main.rs", &["/builds/x".into()]).unwrap_err();
        assert!(error.to_string().contains("/builds/x"), "{error}");
        assert!(names_no_place(b"\0/home/someone/lib.rs", &[]).is_err());
    }

    #[test]
    fn the_committed_object_names_no_place() {
        names_no_place(&committed(), &[]).unwrap();
    }
}
