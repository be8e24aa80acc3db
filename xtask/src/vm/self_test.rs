//! `cargo xtask vm --self-test`: the machine shows that a failure in it would be seen. A harness that reports success
//! for a broken guest makes every test in it worthless, so that each way to fail is gone through on purpose.

use super::{Boot, BootError, Outcome};
use anyhow::{Context as _, ensure};
use std::path::Path;
use std::time::Duration;

/// Goes through success and every way to fail, on one kernel.
///
/// # Errors
/// What was not as it must be.
pub(crate) fn run(kernel: &Path) -> anyhow::Result<()> {
    type Check = fn(&Path) -> anyhow::Result<()>;
    let checks: [(&str, Check); 5] = [
        (
            "output, status, variables and directories pass through",
            passes_through,
        ),
        ("a panic is seen", panics),
        ("a failure that the kernel survives is seen", survives),
        ("a command out of time is stopped and shown", hangs),
        ("a machine that goes off is no success", goes_off),
    ];
    for (what, check) in checks {
        check(kernel).with_context(|| format!("not so: {what}"))?;
        println!("{what}");
    }
    Ok(())
}

fn shell(kernel: &Path, script: &str) -> Boot {
    Boot {
        capture: true,
        timeout: Duration::from_mins(1),
        ..Boot::new(kernel, ["/bin/sh", "-c", script])
    }
}

fn passes_through(kernel: &Path) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("out");
    // Every byte, every line ending, and more than the pipes hold.
    let bytes: Vec<u8> = (0..=255_u8)
        .chain(*b"\r\n\n\r\0")
        .cycle()
        .take(3_000_000)
        .collect();
    std::fs::write(directory.path().join("bytes"), &bytes)?;
    let untouched = directory.path().join("untouched");
    let script = format!(
        "cat {dir}/bytes; echo \"$A|$(hostname)|$(pwd)\" > $FINJECT_VM_OUT/facts; \
         echo changed > {dir}/untouched; cat {dir}/untouched >&2; exit 7",
        dir = directory.path().display()
    );
    let outcome = super::boot(&Boot {
        out: Some(out.clone()),
        env: vec![("A".to_owned(), "it's $HOME".to_owned())],
        ..shell(kernel, &script)
    })?;
    ensure!(outcome.status == 7, "the status is {}", outcome.status);
    ensure!(
        outcome.stdout == bytes,
        "the output differs, {} bytes",
        outcome.stdout.len()
    );
    ensure!(
        outcome.output.len() == bytes.len() + 8,
        "the error output is lost"
    );
    ensure!(!untouched.exists(), "the guest wrote to the host's files");
    let facts = std::fs::read_to_string(out.join("facts"))?;
    let expected = format!("it's $HOME|finject-vm|{}\n", crate::repo::root().display());
    ensure!(facts == expected, "the facts are {facts:?}");
    Ok(())
}

fn failure(result: anyhow::Result<Outcome>) -> anyhow::Result<BootError> {
    match result {
        Ok(outcome) => anyhow::bail!("the boot counts as a success: {outcome:?}"),
        Err(error) => error.downcast::<BootError>(),
    }
}

fn panics(kernel: &Path) -> anyhow::Result<()> {
    let result = super::boot(&shell(kernel, "echo before; echo c > /proc/sysrq-trigger"));
    let error = failure(result)?;
    ensure!(
        error.report().contains("before"),
        "the output is lost: {}",
        error.report()
    );
    ensure!(
        matches!(
            error,
            BootError::Panic {
                marker: "Kernel panic",
                ..
            }
        ),
        "{error}"
    );
    Ok(())
}

fn survives(kernel: &Path) -> anyhow::Result<()> {
    let result = super::boot(&shell(kernel, "echo '<1>BUG: said on purpose' > /dev/kmsg"));
    let error = failure(result)?;
    ensure!(
        matches!(error, BootError::Panic { marker: "BUG:", .. }),
        "{error}"
    );
    Ok(())
}

fn hangs(kernel: &Path) -> anyhow::Result<()> {
    let boot = Boot {
        timeout: Duration::from_secs(20),
        ..shell(kernel, "sleep 1000; :")
    };
    let error = failure(super::boot(&boot))?;
    ensure!(matches!(error, BootError::Hang { .. }), "{error}");
    ensure!(
        error.report().contains("sleep 1000"),
        "no processes: {}",
        error.report()
    );
    Ok(())
}

fn goes_off(kernel: &Path) -> anyhow::Result<()> {
    let error = failure(super::boot(&shell(
        kernel,
        "echo o > /proc/sysrq-trigger; sleep 50",
    )))?;
    ensure!(matches!(error, BootError::Off { .. }), "{error}");
    Ok(())
}
