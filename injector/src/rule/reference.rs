//! The reference of the language, `doc/rules.md`, for `finject help rules`.

/// The whole text, in Markdown.
pub const REFERENCE: &str = include_str!("../../../doc/rules.md");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::REFERENCE;
    use crate::{
        rule::{RuleText, ast::Condition, compile, file::RuleFile, parse},
        syscall::Class,
    };

    /// Indented lines that are rules: those before two spaces and a remark.
    fn examples() -> Vec<&'static str> {
        let blocks = REFERENCE
            .lines()
            .filter_map(|line| line.strip_prefix("    "));
        blocks
            .filter(|line| line.contains("  ") && line.contains('=') && !line.contains("  = "))
            .chain(["fsync=EIO@3"])
            .filter_map(|line| line.split("  ").next())
            .filter(|rule| !rule.starts_with(['[']) && !rule.is_empty())
            .filter(|rule| !["name", "rule", "purpose", "armed", "arms"].contains(rule))
            .collect()
    }

    #[test]
    fn every_example_is_a_rule() {
        let examples = examples();
        assert!(examples.len() > 40, "{examples:?}");
        for example in examples {
            if let Err(errors) = compile(&[RuleText::new(example)]) {
                panic!(
                    "{}",
                    errors.iter().map(|e| e.render(false)).collect::<String>()
                );
            }
            let rule = parse(example).unwrap();
            assert_eq!(
                parse(&rule.to_string()).unwrap().without_spans(),
                rule.without_spans()
            );
        }
    }

    #[test]
    fn every_kind_of_condition_has_an_example() {
        let rules: Vec<_> = examples()
            .into_iter()
            .map(|text| parse(text).unwrap())
            .collect();
        let any = |test: fn(&Condition) -> bool| {
            rules
                .iter()
                .flat_map(|rule| &rule.when)
                .any(|condition| test(&condition.node))
        };
        assert!(any(|c| matches!(c, Condition::Count(_))));
        assert!(any(|c| matches!(c, Condition::Percent(_))));
        assert!(any(|c| matches!(c, Condition::Max(_))));
        assert!(any(|c| matches!(c, Condition::Start(_))));
        assert!(any(|c| matches!(c, Condition::For(_))));
        assert!(any(|c| matches!(c, Condition::Per(_))));
    }

    #[test]
    fn every_class_is_described() {
        for class in Class::ALL {
            assert!(REFERENCE.contains(&format!("`{class}`")), "{class}");
        }
    }

    #[test]
    fn the_example_of_a_file_is_one() {
        let start = REFERENCE.find("    description = ").unwrap();
        let end = start + REFERENCE[start..].find("\n`name` and").unwrap();
        let lines = REFERENCE[start..end].lines();
        let lines: Vec<_> = lines
            .map(|line| line.strip_prefix("    ").unwrap_or(line))
            .collect();
        let text = lines.join("\n");
        let file = RuleFile::read("example", &text, &BTreeMap::new()).unwrap();
        let texts: Vec<_> = file.rules.iter().map(|rule| rule.text.clone()).collect();
        assert_eq!(compile(&texts).unwrap().rules.len(), 2);
    }
}
