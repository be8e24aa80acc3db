//! What is asked of a session, and what it answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which of the threads that a rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The one that has waited longest.
    One,
    /// All.
    #[default]
    All,
}

/// What a released thread's call comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum With {
    /// What the rest of the rule's step says.
    #[default]
    Rest,
    /// It runs, whatever the rest says.
    Run,
    /// It does not run, and gives this: `-errno`, or a value from 0 up.
    Result(i64),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the session and its rules stand.
    Status,
    /// Puts rules in force, those that are not; counts begin at 1. None named: all.
    Arm {
        /// By name.
        #[serde(default)]
        rules: Vec<String>,
    },
    /// Takes rules out of force, and lets the threads go that they hold. None named: all.
    Disarm {
        /// By name.
        #[serde(default)]
        rules: Vec<String>,
    },
    /// Has a rule join the session's. One that is there already, by its text and by its name where one is given,
    /// is left as it is.
    Add {
        /// The rule, as rules are written.
        rule: String,
        /// Its name; else it is given one.
        #[serde(default)]
        name: Option<String>,
        /// It stays out of force.
        #[serde(default)]
        disarmed: bool,
    },
    /// Takes rules away, once they are out of force and hold nobody.
    Remove {
        /// By name.
        rules: Vec<String>,
    },
    /// Lets threads go that a rule holds.
    Release {
        /// By name.
        rule: String,
        /// Which.
        #[serde(default)]
        which: Which,
        /// What becomes of their calls.
        #[serde(default)]
        with: With,
    },
    /// Answers when a rule has hit, or holds, so many threads.
    WaitHit {
        /// By name.
        rule: String,
        /// Since it was armed.
        count: u64,
        /// At most so long, nanoseconds.
        timeout_ns: u64,
    },
    /// Ends the session.
    Stop,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done; what there is to say.
    Done(Value),
    /// It is not, and nothing has changed; why, and what to do about it.
    Refused {
        /// Why.
        error: String,
        /// What to do.
        help: String,
    },
    /// The time was up before it came to that.
    TimeUp,
    /// The session ended before it came to that.
    Over,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_spelled_so() {
        for (text, request) in [
            (json!({"do": "status"}), Request::Status),
            (json!({"do": "arm"}), Request::Arm { rules: vec![] }),
            (
                json!({"do": "disarm", "rules": ["r1"]}),
                Request::Disarm {
                    rules: vec!["r1".into()],
                },
            ),
            (
                json!({"do": "release", "rule": "r1"}),
                Request::Release {
                    rule: "r1".into(),
                    which: Which::All,
                    with: With::Rest,
                },
            ),
            (
                json!({"do": "release", "rule": "r1", "which": "one", "with": {"result": -5}}),
                Request::Release {
                    rule: "r1".into(),
                    which: Which::One,
                    with: With::Result(-5),
                },
            ),
            (
                json!({"do": "wait-hit", "rule": "r1", "count": 2, "timeout_ns": 7}),
                Request::WaitHit {
                    rule: "r1".into(),
                    count: 2,
                    timeout_ns: 7,
                },
            ),
            (
                json!({"do": "add", "rule": "fsync=EIO"}),
                Request::Add {
                    rule: "fsync=EIO".into(),
                    name: None,
                    disarmed: false,
                },
            ),
            (
                json!({"do": "add", "rule": "fsync=EIO", "name": "sick", "disarmed": true}),
                Request::Add {
                    rule: "fsync=EIO".into(),
                    name: Some("sick".into()),
                    disarmed: true,
                },
            ),
            (
                json!({"do": "remove", "rules": ["r1"]}),
                Request::Remove {
                    rules: vec!["r1".into()],
                },
            ),
            (json!({"do": "stop"}), Request::Stop),
        ] {
            let read: Request = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(read, request, "{text}");
            let written = serde_json::to_value(&request).unwrap();
            assert_eq!(serde_json::from_value::<Request>(written).unwrap(), request);
        }
        for text in [
            json!({"do": "dance"}),
            json!({"do": "release"}),
            json!({"do": "add"}),
            json!({"do": "remove"}),
            json!({"do": "arm", "rule": "r1"}),
            json!("status"),
        ] {
            assert!(
                serde_json::from_value::<Request>(text.clone()).is_err(),
                "{text}"
            );
        }
    }
}
