//! `finject ctl`: sees and changes a session that runs. Every command may be given twice, and returns once
//! it is in force.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::exit::Exit;
use super::{colour, complain, print_err, print_out};
use crate::control::message::{Which, With};
use crate::control::{Client, ControlError, Reply, Request, place, server};
use crate::rule::ast::Action;
use crate::rule::{RuleText, compile, parse};
use crate::text::{chain, counted, escaped, seconds};

/// Options.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The session, by the process id of its finject; needed where there are several
    #[arg(long, global = true, value_name = "ID")]
    session: Option<String>,

    /// Answer as JSON on standard output
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  finject ctl list
        the sessions that run
  finject ctl status
        the rules of the only one: which are armed, how often each fired, whom it holds
  finject ctl disarm r2 && finject ctl arm r2
        out of force, and in force again with counts from 1
  finject ctl add --name full '%write=ENOSPC@100+' && finject ctl remove full
        a rule more, and away with it
  finject ctl wait-hit r1 --timeout 10s && finject ctl release r1 --with EIO
        waits until a thread is held by r1, and has its call fail
  finject ctl stop
        heals and ends it

Exit status: 0 it is so; 64 no such rule or session; 124 the time was up; 125 finject failed.";

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Tell which sessions run
    List,
    /// Tell how a session and its rules stand
    Status,
    /// Put rules in force, all where none is named; counts begin at 1
    Arm {
        /// The rules, by name
        rules: Vec<String>,
    },
    /// Take rules out of force, all where none is named, and let go whom they hold
    Disarm {
        /// The rules, by name
        rules: Vec<String>,
    },
    /// Have a rule join the session's; one that is there already stays as it is
    Add {
        /// The rule, such as 'fsync=EIO@3' (see: finject help rules)
        rule: String,
        /// Its name; else it is numbered on
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Leave it out of force, until it is armed
        #[arg(long)]
        disarmed: bool,
    },
    /// Take rules away, and let go whom they hold
    Remove {
        /// The rules, by name
        #[arg(required = true)]
        rules: Vec<String>,
    },
    /// Let threads go that a rule holds
    Release {
        /// The rule, by name
        rule: String,
        /// Only the one that has waited longest
        #[arg(long, conflicts_with = "all")]
        one: bool,
        /// All of them, as without --one
        #[arg(long)]
        all: bool,
        /// What their calls come to: ERRNO, ret:N, or run; else what the rest of the step says
        #[arg(long, value_name = "RESULT", value_parser = with)]
        with: Option<With>,
    },
    /// Wait until a rule has hit, or holds, a thread; for a session too that only begins
    WaitHit {
        /// The rule, by name
        rule: String,
        /// So many times since it was armed
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u64,
        /// At most so long
        #[arg(long, value_name = "TIME", value_parser = crate::rule::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Heal and end a session
    Stop,
}

fn with(text: &str) -> Result<With, String> {
    if text == "run" {
        return Ok(With::Run);
    }
    let wrong = || format!("`{text}` is no errno, no ret:N, and not run");
    let rule = parse(&format!("read={text}")).map_err(|_| wrong())?;
    let mut actions = rule.chain.iter().flat_map(|step| &step.actions);
    let is_whole = rule.when.is_empty()
        && rule.chain.len() == 1
        && rule.chain.iter().all(|step| step.repeat.is_none());
    match (actions.next().map(|action| action.node), actions.next()) {
        (Some(Action::Error(errno)), None) if is_whole => {
            Ok(With::Result(-i64::from(errno.number())))
        }
        (Some(Action::Ret(value)), None) if is_whole => i64::try_from(value.get())
            .map(With::Result)
            .map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// How long a session may take to tell how it stands. One that is stopped with its command does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a session is waited for where no time is given.
const COMING: Duration = Duration::from_secs(10);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(10);

/// A session by its name, and where its socket is.
#[derive(Clone, Debug)]
struct Found {
    directory: PathBuf,
    name: String,
}

impl Found {
    fn ask(&self, request: &Request, patience: Option<Duration>) -> Result<Reply, ControlError> {
        Client::connect(&self.directory, &self.name, patience)?.ask(request)
    }
}

/// The sessions that run. Sockets of others are taken away: how many.
fn sessions() -> (Vec<Found>, usize) {
    let mut dead = 0;
    let mut found = Vec::new();
    for directory in place::directories() {
        dead += server::sweep(&directory);
        for name in place::sessions(&directory) {
            let directory = directory.clone();
            found.push(Found { directory, name });
        }
    }
    (found, dead)
}

/// The session that is meant; [`None`], and said, where that is not clear.
fn session(wanted: Option<&str>) -> Result<Found, Exit> {
    let (found, _) = sessions();
    let names = || {
        let names: Vec<&str> = found.iter().map(|session| session.name.as_str()).collect();
        names.join(", ")
    };
    let mut meant = found
        .iter()
        .filter(|session| wanted.is_none_or(|wanted| wanted == session.name));
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(only.clone()),
        (Some(_), Some(_)) => {
            let help = format!("name one with --session: {}", names());
            complain("several sessions run", &[help]);
            Err(Exit::Usage)
        }
        (None, _) => {
            let which = wanted.map_or_else(
                || "no session runs".into(),
                |wanted| format!("no session {wanted} runs"),
            );
            let help = if found.is_empty() {
                "finject --rule RULE -- COMMAND begins one".into()
            } else {
                format!("those that do: {}", names())
            };
            complain(&which, &[help]);
            Err(Exit::Usage)
        }
    }
}

/// Whether the session that is meant is there by now, or comes within a time.
fn comes(wanted: Option<&str>, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let (found, _) = sessions();
        let is_meant = |session: &Found| wanted.is_none_or(|wanted| wanted == session.name);
        if found.iter().any(is_meant) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs it.
pub fn run(options: &Options) -> Exit {
    let wanted = options.session.as_deref();
    match &options.command {
        Command::List => {
            list(options.json);
            return Exit::Done;
        }
        // What is asked for is so.
        Command::Stop if !comes(wanted, Duration::ZERO) => {
            let text = wanted.map_or_else(
                || "no session runs".into(),
                |wanted| format!("no session {wanted} runs"),
            );
            say(options.json, &json!({ "stopped": false }), &text);
            return Exit::Done;
        }
        // What is wrong with it is shown where it stands.
        Command::Add { rule, .. } => {
            if let Err(errors) = compile(&[RuleText::new(rule)]) {
                for error in &errors {
                    print_err(&error.render(colour()));
                }
                return Exit::Usage;
            }
        }
        // Whoever has just begun it need not wait for that too.
        Command::WaitHit { timeout, .. } => {
            comes(wanted, timeout.unwrap_or(COMING));
        }
        _ => {}
    }
    let session = match session(wanted) {
        Ok(session) => session,
        Err(exit) => return exit,
    };
    match session.ask(&request(&options.command), None) {
        Ok(Reply::Done(value)) => {
            for warning in value["warnings"].as_array().into_iter().flatten() {
                let warning = warning.as_str().unwrap_or("?");
                print_err(&format!("finject: warning: {}\n", escaped(warning)));
            }
            let text = text(&options.command, &session.name, &value);
            say(options.json, &value, &text);
            Exit::Done
        }
        Ok(Reply::Refused { error, help }) => {
            complain(&error, &[help]);
            Exit::Usage
        }
        Ok(Reply::TimeUp) => {
            complain(
                "the time was up before that",
                &["finject ctl status tells what has come so far".into()],
            );
            Exit::NeverFired
        }
        // It is over, however it ended.
        Err(ControlError::Ended) if matches!(options.command, Command::Stop) => {
            say(options.json, &json!({ "stopped": true }), "it has ended");
            Exit::Done
        }
        Ok(Reply::Over) => {
            complain(
                "the session ended before that",
                &["its own summary tells what has come".into()],
            );
            Exit::Failed
        }
        Err(error) => {
            let help = "finject ctl list tells which sessions run";
            complain(&chain(&error), &[help.into()]);
            Exit::Failed
        }
    }
}

fn request(command: &Command) -> Request {
    match command {
        Command::List | Command::Status => Request::Status,
        Command::Arm { rules } => Request::Arm {
            rules: rules.clone(),
        },
        Command::Disarm { rules } => Request::Disarm {
            rules: rules.clone(),
        },
        Command::Add {
            rule,
            name,
            disarmed,
        } => Request::Add {
            rule: rule.clone(),
            name: name.clone(),
            disarmed: *disarmed,
        },
        Command::Remove { rules } => Request::Remove {
            rules: rules.clone(),
        },
        Command::Release {
            rule, one, with, ..
        } => Request::Release {
            rule: rule.clone(),
            which: if *one { Which::One } else { Which::All },
            with: with.unwrap_or_default(),
        },
        Command::WaitHit {
            rule,
            count,
            timeout,
        } => Request::WaitHit {
            rule: rule.clone(),
            count: *count,
            timeout_ns: timeout.map_or(u64::MAX, |timeout| {
                u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
            }),
        },
        Command::Stop => Request::Stop,
    }
}

fn say(json: bool, value: &Value, text: &str) {
    if json {
        print_out(&format!("{value:#}\n"));
    } else {
        print_out(&format!("{text}\n"));
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn word<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or("?")
}

/// What a command has come to, in words.
fn text(command: &Command, session: &str, value: &Value) -> String {
    match command {
        Command::List | Command::Status => status(session, value),
        Command::Arm { .. } => format!(
            "armed: {}",
            counted(number(value, "armed"), "rule", "rules")
        ),
        Command::Disarm { .. } => {
            let rules = counted(number(value, "disarmed"), "rule", "rules");
            let threads = counted(number(value, "released"), "thread", "threads");
            format!("disarmed: {rules}; let go: {threads}")
        }
        Command::Add { .. } => {
            let force = if value["armed"].as_bool().unwrap_or(false) {
                "in force"
            } else {
                "out of force"
            };
            let rule = escaped(word(value, "rule"));
            match number(value, "added") {
                0 => format!("{rule} is there already, {force}"),
                _ => format!("added: {rule}, {force}"),
            }
        }
        Command::Remove { .. } => {
            let rules = counted(number(value, "removed"), "rule", "rules");
            let threads = counted(number(value, "released"), "thread", "threads");
            format!("removed: {rules}; let go: {threads}")
        }
        Command::Release { .. } => {
            format!(
                "let go: {}",
                counted(number(value, "released"), "thread", "threads")
            )
        }
        Command::WaitHit { rule, .. } => {
            let times = counted(number(value, "hit"), "time", "times");
            format!(
                "{rule} has hit {times}, and holds {}",
                number(value, "held")
            )
        }
        Command::Stop => "healed".into(),
    }
}

fn list(json: bool) {
    let (found, dead) = sessions();
    let mut all = Vec::new();
    let mut text = String::new();
    for session in &found {
        let Ok(Reply::Done(mut status)) = session.ask(&Request::Status, Some(PATIENCE)) else {
            let _ = writeln!(text, "{:>8}  does not answer", escaped(&session.name));
            all.push(json!({ "session": session.name, "answers": false }));
            continue;
        };
        let rules = status["rules"].as_array().map_or(0, Vec::len);
        let _ = writeln!(
            text,
            "{:>8}  {}, {} by {}, armed for {} s",
            escaped(&session.name),
            escaped(word(&status, "targets")),
            counted(rules as u64, "rule", "rules"),
            escaped(word(&status, "backend")),
            seconds(number(&status, "armed_for_ns")),
        );
        status["answers"] = json!(true);
        all.push(status);
    }
    if found.is_empty() {
        text.push_str("no session runs\n");
    }
    if dead > 0 {
        let sockets = counted(dead as u64, "socket", "sockets");
        let _ = writeln!(text, "took away {sockets} of dead sessions");
    }
    if json {
        let value = json!({ "sessions": all, "dead": dead });
        print_out(&format!("{value:#}\n"));
    } else {
        print_out(&text);
    }
}

fn status(name: &str, value: &Value) -> String {
    let mut text = format!(
        "session {}: {} by {}, armed for {} s\n  rule          state       matched     fired      held",
        escaped(name),
        escaped(word(value, "targets")),
        escaped(word(value, "backend")),
        seconds(number(value, "armed_for_ns")),
    );
    let rules = value["rules"].as_array().map_or(&[][..], Vec::as_slice);
    for rule in rules {
        let state = if rule["armed"].as_bool().unwrap_or(false) {
            "armed"
        } else {
            "disarmed"
        };
        let _ = write!(
            text,
            "\n  {:<12}  {state:<8}  {:>9} {:>9} {:>9}   {}",
            escaped(word(rule, "name")),
            number(rule, "matched"),
            number(rule, "fired"),
            number(rule, "held"),
            escaped(word(rule, "rule")),
        );
    }
    text
}
