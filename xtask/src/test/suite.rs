//! The tests in virtual machines: targets `vm_*` of the crate `tests`, built here and run there, all
//! of them in one boot of each kernel, and some again in boots with words on the kernel's command
//! line. tests/README.md describes the convention to who writes such a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::{
    demands::Demands,
    libtest,
    report::{Done, End, Report, Verdict},
};
use crate::{
    repo,
    vm::{self, Boot, BootError, TestKernel},
};

/// The kernels that tests can be demanded on.
pub(crate) const KERNELS: &[&str] = &["6.1", "6.12", "6.12-no-override", "debian"];
/// Targets that run in virtual machines have names that start so.
pub(super) const PREFIX: &str = "vm_";
/// Machines that run at a time, at the most: each has 2 GiB.
const AT_ONCE: usize = 4;
/// Starts the lines that the script in the guest prints between targets.
const MARK: &str = "@@finject-tests@@ ";

/// The name of a test's result on a kernel.
pub(super) fn place(test: &str, kernel: &str) -> String {
    format!("{test}@{kernel}")
}

/// How a suite is run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `FINJECT_SCALE`: the part of the large counts that is run; 1 for all.
    pub(crate) scale: f64,
    /// Only tests whose `TARGET::NAME` contains one of these; all where there is none.
    pub(crate) only: Vec<String>,
    /// Only these kernels; all where there is none.
    pub(crate) kernels: Vec<String>,
    /// Another kernel object than the one that finject carries, to run all once more with.
    pub(crate) fresh_object: Option<PathBuf>,
}

/// tests/vm.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    once: Vec<Once>,
    soak: Vec<String>,
    time: Time,
}

/// Whether names, `TARGET::NAME` or `TARGET::` for the whole of it, have a test among them.
fn has_test(names: &[String], test: &str) -> bool {
    let is_it =
        |name: &String| name == test || name.ends_with("::") && test.starts_with(name.as_str());
    names.iter().any(is_it)
}

/// What is run on one of several kernels only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Once {
    /// The kernel.
    on: String,
    /// Those on which it is not run then.
    not_on: Vec<String>,
    /// At full scale, too.
    #[serde(default)]
    always: bool,
    /// `TARGET::NAME`, or `TARGET::` for the whole of it.
    tests: Vec<String>,
}

impl Once {
    /// Whether a test is left out on a kernel, given those at hand.
    fn leaves_out(&self, test: &str, kernel: &str, kernels: &[TestKernel]) -> bool {
        let is_elsewhere = kernels.iter().any(|at_hand| at_hand.name == self.on);
        is_elsewhere && self.not_on.iter().any(|name| name == kernel) && has_test(&self.tests, test)
    }
}

/// How long things may take, in seconds, at the scale of `cargo xtask test`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Time {
    /// One target.
    target: u64,
    /// The same at full scale.
    soak_target: u64,
}

/// A test target that was built.
#[derive(Debug)]
struct Target {
    name: String,
    executable: PathBuf,
    tests: Vec<String>,
}

/// One boot to make.
#[derive(Debug)]
struct Machine {
    kernel: TestKernel,
    append: String,
    /// What stands after the `@` in names of results.
    label: String,
    object: Option<PathBuf>,
    /// By target, what to run there.
    tests: BTreeMap<usize, Vec<String>>,
}

/// What a boot left.
#[derive(Debug)]
struct Booted {
    /// What its tests printed.
    output: String,
    /// What went wrong with the machine itself.
    failure: Option<BootError>,
    /// Where the output is.
    log: PathBuf,
}

/// What was built, what can be booted, and what is to run.
#[derive(Debug)]
pub(crate) struct Suite {
    targets: Vec<Target>,
    kernels: Vec<TestKernel>,
    machines: Vec<Machine>,
    once: Vec<Once>,
    /// What is run at full scale.
    soak: Vec<String>,
    time: Time,
    scale: f64,
}

impl Suite {
    /// Builds finject and the tests, and plans the boots.
    pub(super) fn prepare(
        settings: &Settings,
        kernels: Vec<TestKernel>,
        demands: &Demands,
    ) -> anyhow::Result<Self> {
        let root = repo::root();
        let config = root.join("tests/vm.toml");
        let text =
            fs::read_to_string(&config).with_context(|| format!("reading {}", config.display()))?;
        let config: Config = toml::from_str(&text).context("in tests/vm.toml")?;
        vm::build()?;
        let targets = build()?;
        let mut suite = Self {
            targets,
            kernels,
            machines: Vec::new(),
            once: config.once,
            soak: config.soak,
            time: config.time,
            scale: settings.scale,
        };
        suite.plan(settings, demands)?;
        Ok(suite)
    }

    fn plan(&mut self, settings: &Settings, demands: &Demands) -> anyhow::Result<()> {
        let is_whole = settings.scale >= 1.0;
        let soak = self.soak.clone();
        let wanted = |name: &String| {
            let is_named = settings.only.iter().any(|part| name.contains(part));
            is_named || settings.only.is_empty() && (!is_whole || has_test(&soak, name))
        };
        let all: Vec<String> = self.names().filter(wanted).collect();
        for kernel in self.kernels.clone() {
            let is_named = !settings.only.is_empty();
            let is_elsewhere = |test: &String| {
                let mut once = self.once.iter().filter(|once| once.always || !is_whole);
                once.any(|once| once.leaves_out(test, &kernel.name, &self.kernels))
            };
            // What is asked for by name is run wherever it was asked for.
            let here =
                |test: &&String| is_named || demands.has(test, &kernel.name) || !is_elsewhere(test);
            let here: Vec<String> = all.iter().filter(here).cloned().collect();
            if here.len() < all.len() {
                let left = all.len() - here.len();
                println!("{}: {left} tests are left to another kernel", kernel.name);
            }
            self.add(kernel.clone(), String::new(), None, &here)?;
            if let Some(object) = &settings.fresh_object {
                self.add(kernel, String::new(), Some(object.clone()), &here)?;
            }
        }
        for boot in demands.boots() {
            let there: BTreeSet<_> = self.names().collect();
            let asked = boot.tests.into_iter();
            let tests: Vec<_> = asked
                .filter(|name| wanted(name) && there.contains(name))
                .collect();
            let kernel = self
                .kernels
                .iter()
                .find(|kernel| kernel.name == boot.kernel);
            if let Some(kernel) = kernel.cloned() {
                self.add(kernel, boot.append, None, &tests)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        kernel: TestKernel,
        append: String,
        object: Option<PathBuf>,
        names: &[String],
    ) -> anyhow::Result<()> {
        let mut tests: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for name in names {
            let (target, test) = name.split_once("::").context("a test without a target")?;
            let index = self.targets.iter().position(|found| found.name == target);
            let index = index.with_context(|| format!("no target {target}"))?;
            tests.entry(index).or_default().push(test.to_owned());
        }
        if tests.is_empty() {
            return Ok(());
        }
        let mut label = kernel.name.clone();
        if !append.is_empty() {
            label = format!("{label}+{append}");
        }
        if object.is_some() {
            label += "+fresh-object";
        }
        self.machines.push(Machine {
            kernel,
            append,
            label,
            object,
            tests,
        });
        Ok(())
    }

    /// All tests that there are, `TARGET::NAME`.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let of = |target: &Target| {
            let name = |test| format!("{}::{test}", target.name);
            target.tests.iter().map(name).collect::<Vec<_>>()
        };
        self.targets.iter().flat_map(of)
    }

    /// Whether a kernel is among those that are booted.
    pub(crate) fn has_kernel(&self, name: &str) -> bool {
        self.kernels.iter().any(|kernel| kernel.name == name)
    }

    /// Boots the machines, as many at a time as there are processors: the tests in one mostly keep one
    /// of its processors at work.
    pub(crate) fn run(&self, report: &mut Report) {
        let at_once = thread::available_parallelism()
            .map_or(1, NonZero::get)
            .min(AT_ONCE);
        println!(
            "{} virtual machines, {at_once} at a time",
            self.machines.len()
        );
        let next = AtomicUsize::new(0);
        let (sender, ended) = channel();
        thread::scope(|scope| {
            for _ in 0..at_once {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let Some(machine) = self.machines.get(next.fetch_add(1, Relaxed)) {
                        println!("booting {}", machine.label);
                        let start = Instant::now();
                        let booted = self.boot(machine);
                        // The other end is there until this thread ends.
                        let _ = sender.send((machine, start.elapsed(), booted));
                    }
                });
            }
            drop(sender);
            for (machine, took, booted) in ended {
                let name = format!("virtual machine {}", machine.label);
                report.carried_out(
                    &name,
                    took,
                    |report| Ok(self.tell(machine, booted?, report)),
                );
            }
        });
    }

    /// Boots a machine and runs its tests.
    fn boot(&self, machine: &Machine) -> anyhow::Result<Booted> {
        let directory = repo::root().join("target/vm-tests");
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let file = |extension| {
            let name: String = machine
                .label
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || "-.+=".contains(c) {
                        c
                    } else {
                        '_'
                    }
                })
                .collect();
            directory.join(format!("{name}.{extension}"))
        };
        let seconds = if self.scale < 1.0 {
            self.time.target
        } else {
            self.time.soak_target
        };
        let script = file("sh");
        fs::write(&script, self.script(machine, seconds))
            .with_context(|| format!("writing {}", script.display()))?;
        let targets = u64::try_from(machine.tests.len())?;
        let mut boot = Boot::new(
            &machine.kernel.path,
            [Path::new("/bin/sh"), script.as_path()],
        );
        boot.append.clone_from(&machine.append);
        boot.timeout = Duration::from_secs(120 + targets * (seconds + 10));
        boot.capture = true;
        boot.env = self.environment(machine);
        let (output, failure) = match vm::boot(&boot) {
            Ok(outcome) => (outcome.stdout, None),
            Err(error) => {
                let failure = error.downcast::<BootError>()?;
                let (BootError::Panic { output, .. }
                | BootError::Hang { output, .. }
                | BootError::Off { output, .. }) = &failure;
                (output.clone(), Some(failure))
            }
        };
        let log = file("log");
        fs::write(&log, &output).with_context(|| format!("writing {}", log.display()))?;
        Ok(Booted {
            output: String::from_utf8_lossy(&output).into_owned(),
            failure,
            log,
        })
    }

    /// Says what came of a machine, and puts its tests' results into the report.
    fn tell(&self, machine: &Machine, booted: Booted, report: &mut Report) -> Done {
        let Booted {
            output: text,
            failure,
            log,
        } = booted;
        let trouble = failure.as_ref().map(BootError::to_string);
        if let Some(failure) = &failure {
            println!("{}", failure.report());
        }
        let results = self.results(machine, &text, trouble.as_deref());
        let count = |wanted: fn(&Verdict) -> bool| {
            results
                .iter()
                .filter(|(_, verdict)| wanted(verdict))
                .count()
        };
        let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        if failed > 0 && trouble.is_none() {
            println!("{}", text.trim_end());
        }
        println!(
            "{} passed, {failed} failed, {} do not apply; all output is in {}",
            count(|verdict| *verdict == Verdict::Passed),
            count(|verdict| matches!(verdict, Verdict::Unsupported(_))),
            log.display(),
        );
        for (name, verdict) in results {
            report.test(place(&name, &machine.label), verdict);
        }
        match (trouble, failed) {
            (Some(why), _) => End::Failed(why),
            (None, 0) => End::Passed,
            (None, failed) => End::Failed(format!("{failed} tests")),
        }
        .into()
    }

    fn environment(&self, machine: &Machine) -> Vec<(String, String)> {
        let binary = repo::root().join("target/release/finject");
        let mut variables = vec![
            ("FINJECT_VM".to_owned(), "1".to_owned()),
            ("FINJECT_BIN".to_owned(), binary.display().to_string()),
            ("FINJECT_SCALE".to_owned(), self.scale.to_string()),
            ("FINJECT_KERNEL".to_owned(), machine.kernel.name.clone()),
        ];
        let object = machine
            .object
            .clone()
            .map(|path| path.display().to_string());
        if let Some(object) = object.or_else(|| std::env::var("FINJECT_BPF_OBJECT").ok()) {
            variables.push(("FINJECT_BPF_OBJECT".to_owned(), object));
        }
        variables
    }

    /// What the guest runs: every target with its tests, each under a time of its own, so that one
    /// that hangs does not keep the others from running.
    fn script(&self, machine: &Machine, seconds: u64) -> String {
        let mut script = "#!/bin/sh\n".to_owned();
        for (index, tests) in &machine.tests {
            let Target {
                name, executable, ..
            } = &self.targets[*index];
            let executable = quoted(&executable.display().to_string());
            let tests: Vec<_> = tests.iter().map(|test| quoted(test)).collect();
            // Into a string: cannot fail.
            let _ = write!(
                script,
                "printf '\\n%s\\n' '{MARK}target {name}'\n\
                 timeout -k 5 {seconds} {executable} --test-threads=1 --show-output --exact \\\n  \
                 {} 2>&1\n\
                 printf '\\n%s\\n' \"{MARK}status $?\"\n",
                tests.join(" \\\n  "),
            );
        }
        script
    }

    /// Every test that was to run, with what became of it.
    fn results(
        &self,
        machine: &Machine,
        output: &str,
        trouble: Option<&str>,
    ) -> Vec<(String, Verdict)> {
        let sections = sections(output);
        let mut results = Vec::new();
        for (index, tests) in &machine.tests {
            let target = &self.targets[*index].name;
            let section = sections.get(target.as_str());
            let mut found = section
                .map(|section| libtest::results(&section.output))
                .unwrap_or_default();
            let status = section.and_then(|section| section.status);
            let why = match (status, trouble) {
                (Some(124 | 137), _) => "no result: the target ran out of time".to_owned(),
                (Some(status), _) => format!("no result: the target ended with status {status}"),
                (None, Some(trouble)) => format!("no result: {trouble}"),
                (None, None) => "no result: the target did not run".to_owned(),
            };
            for test in tests {
                let verdict = found.remove(test).unwrap_or(Verdict::Failed(why.clone()));
                results.push((format!("{target}::{test}"), verdict));
            }
            // A harness that fails although none of its tests did has something to say.
            let all_well = || {
                results.iter().all(|(name, verdict)| {
                    !name.starts_with(&format!("{target}::"))
                        || !matches!(verdict, Verdict::Failed(_))
                })
            };
            if status != Some(0) && all_well() {
                results.push((target.clone(), Verdict::Failed(why)));
            }
        }
        results
    }
}

/// What one target printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Section {
    output: String,
    status: Option<i32>,
}

/// The output by targets.
fn sections(output: &str) -> BTreeMap<&str, Section> {
    let mut sections: BTreeMap<&str, Section> = BTreeMap::new();
    let mut current = None;
    for line in output.lines() {
        if let Some(name) = line
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_prefix("target "))
        {
            current = Some(name);
            sections.insert(name, Section::default());
        } else if let Some(section) = current.and_then(|name| sections.get_mut(name)) {
            if let Some(rest) = line.strip_prefix(MARK) {
                section.status = rest
                    .strip_prefix("status ")
                    .and_then(|text| text.parse().ok());
                current = None;
            } else {
                section.output.push_str(line);
                section.output.push('\n');
            }
        }
    }
    sections
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Builds the targets and asks each what tests it has.
fn build() -> anyhow::Result<Vec<Target>> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        target: Option<Built>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Built {
        name: String,
    }
    let output = Command::new(super::cargo())
        .current_dir(repo::root())
        .args([
            "test",
            "--quiet",
            "--package",
            "finject-tests",
            "--features",
            "vm",
            "--no-run",
        ])
        .args(["--tests", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(output.status.success(), "the tests do not build");
    let mut targets = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Message = serde_json::from_str(line).context("in cargo's messages")?;
        let Message {
            target: Some(built),
            executable: Some(executable),
            ..
        } = message
        else {
            continue;
        };
        if message.reason != "compiler-artifact" || !built.name.starts_with(PREFIX) {
            continue;
        }
        let listing = Command::new(&executable)
            .args(["--list", "--format", "terse"])
            .output()
            .with_context(|| format!("running {}", executable.display()))?;
        ensure!(
            listing.status.success(),
            "{} does not list its tests",
            built.name
        );
        let tests = libtest::listed(&String::from_utf8_lossy(&listing.stdout));
        ensure!(!tests.is_empty(), "{} has no tests", built.name);
        targets.push(Target {
            name: built.name,
            executable,
            tests,
        });
    }
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    let files = sources()?;
    let built: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    ensure!(
        files == built,
        "tests/tests has {}, and what was built is {}: each vm_*.rs needs a [[test]] with \
         required-features = [\"vm\"] in tests/Cargo.toml",
        files.join(", "),
        built.join(", "),
    );
    ensure!(!targets.is_empty(), "tests/tests has no vm_*.rs");
    Ok(targets)
}

/// The targets that there are sources of.
fn sources() -> anyhow::Result<Vec<String>> {
    let directory = repo::root().join("tests/tests");
    let mut names = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?
    {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(".rs").unwrap_or(&name);
        if name.starts_with(PREFIX) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
