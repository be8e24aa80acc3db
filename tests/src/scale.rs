//! How much of a large count a run makes: all in `cargo xtask soak`, a tenth in `cargo xtask test` and
//! where nobody says (`cargo test`).

use std::env;

/// The variable that the runs set.
const VARIABLE: &str = "FINJECT_SCALE";
/// Where it is not set.
const USUAL: f64 = 0.1;

/// The part of a large count that is made here; at least 1. Of a count that is too large for a tenth of
/// it, `scaled(scaled(count))` is a hundredth.
///
/// # Panics
///
/// When `FINJECT_SCALE` is no part.
#[expect(clippy::panic, reason = "a test's way to fail")]
pub fn scaled(count: u64) -> u64 {
    let scale = match env::var(VARIABLE) {
        Ok(text) => text.parse().unwrap_or(f64::NAN),
        Err(_) => USUAL,
    };
    part(count, scale).unwrap_or_else(|| panic!("{VARIABLE} is not above 0 and at most 1"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts far below 2^52, and a factor of 0 to 1"
)]
fn part(count: u64, scale: f64) -> Option<u64> {
    (scale > 0.0 && scale <= 1.0).then(|| ((count as f64 * scale) as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn a_part_is_at_least_one_and_at_most_all() {
        assert_eq!(part(200, 0.1), Some(20));
        assert_eq!(part(200, 1.0), Some(200));
        assert_eq!(part(2, 0.1), Some(1));
        for wrong in [0.0, -1.0, 1.5, f64::NAN] {
            assert_eq!(part(2, wrong), None);
        }
    }
}
