//! The script that runs at present, and whether its time is over.
//!
//! Guarantees: at most one script runs. A script that has written anything cannot be killed.
//! Not here: how long a script may run (`run` in `mod.rs`); the interpreter, whose hook asks
//! (`lua/mod.rs`).

use parking_lot::Mutex;

use crate::command::CommandError;
use crate::domain::Timestamp;

/// The error of a script that has to stop; its client gets the reason instead.
pub(super) const STOPPED: CommandError = CommandError::fixed("ERR script stopped");

/// The script that runs at present, if any.
#[derive(Debug, Default)]
pub(super) struct RunningScript(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    script: Option<Script>,
    /// `is_long_at` of the transaction that was last reported as long, so that each is reported once.
    long_since: Option<Timestamp>,
}

#[derive(Debug)]
struct Script {
    is_long_at: Timestamp,
    ends: Timestamp,
    has_written: bool,
    stop: Option<Stop>,
}

impl Script {
    /// Notes that its transaction is long. Returns whether that is news.
    fn is_newly_long(&self, long_since: &mut Option<Timestamp>) -> bool {
        long_since.replace(self.is_long_at) != Some(self.is_long_at)
    }
}

/// Why a script has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A client has sent SCRIPT KILL.
    Killed,
    /// It has used up its time.
    TimedOut,
}

/// What [`RunningScript::look`] finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The script has to stop.
    pub(super) stop: Option<Stop>,
    /// The scripts of the transaction have become long; `true` once for all of them.
    pub(super) has_become_long: bool,
}

impl RunningScript {
    /// Notes that a script begins, which is long at `is_long_at` and must stop at `ends`. Both are
    /// the same for all scripts of a transaction.
    pub(super) fn begin(&self, is_long_at: Timestamp, ends: Timestamp) {
        self.0.lock().script = Some(Script { is_long_at, ends, has_written: false, stop: None });
    }

    /// Notes that the script has ended.
    pub(super) fn end(&self) {
        self.0.lock().script = None;
    }

    /// Looks at the clock for the running script.
    pub(super) fn look(&self, now: Timestamp) -> Look {
        let State { script, long_since } = &mut *self.0.lock();
        let Some(script) = script else { return Look::default() };
        if script.stop.is_none() && now >= script.ends {
            script.stop = Some(Stop::TimedOut);
        }
        let has_become_long = now >= script.is_long_at && script.is_newly_long(long_since);
        Look { stop: script.stop, has_become_long }
    }

    /// Notes that the running script is long from now on. Returns `true` once for all scripts of the
    /// transaction, as [`RunningScript::look`] does.
    pub(super) fn become_long(&self) -> bool {
        let State { script, long_since } = &mut *self.0.lock();
        script.as_ref().is_some_and(|script| script.is_newly_long(long_since))
    }

    /// Why the script has to stop, as far as is known without looking at the clock.
    pub(super) fn stop(&self) -> Option<Stop> {
        self.0.lock().script.as_ref().and_then(|script| script.stop)
    }

    /// Notes that the script is about to run a command that writes. Fails if the script has to
    /// stop.
    pub(super) fn write(&self) -> Result<(), Stop> {
        let mut state = self.0.lock();
        let Some(script) = state.script.as_mut() else { return Ok(()) };
        match script.stop {
            Some(stop) => Err(stop),
            None => {
                script.has_written = true;
                Ok(())
            }
        }
    }

    /// Asks the script to stop, for SCRIPT KILL.
    pub(super) fn kill(&self) -> Result<(), CommandError> {
        match self.0.lock().script.as_mut() {
            None => Err(CommandError::fixed("NOTBUSY No scripts in execution right now.")),
            Some(script) if script.has_written => Err(CommandError::fixed(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                 the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            )),
            Some(script) => {
                script.stop.get_or_insert(Stop::Killed);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Timestamp = Timestamp::from_nanos(100);
    const LONG: Timestamp = Timestamp::from_nanos(150);
    const ENDS: Timestamp = Timestamp::from_nanos(200);

    #[test]
    fn a_script_stops_at_its_end() {
        let running = RunningScript::default();
        assert_eq!(running.look(ENDS).stop, None);
        running.begin(LONG, ENDS);
        assert_eq!(running.look(BEGAN).stop, None);
        assert_eq!(running.look(ENDS).stop, Some(Stop::TimedOut));
        assert_eq!(running.write(), Err(Stop::TimedOut));
        running.end();
        assert_eq!(running.look(ENDS).stop, None);
    }

    #[test]
    fn the_scripts_of_a_transaction_become_long_once() {
        let running = RunningScript::default();
        assert!(!running.look(ENDS).has_become_long);
        running.begin(LONG, ENDS);
        assert!(!running.look(BEGAN).has_become_long);
        assert!(running.look(LONG).has_become_long && !running.look(ENDS).has_become_long);
        running.end();
        running.begin(LONG, ENDS);
        assert!(!running.look(ENDS).has_become_long);
        running.begin(ENDS, Timestamp::NEVER);
        assert!(!running.look(LONG).has_become_long && running.look(ENDS).has_become_long);
        running.end();
        assert!(!running.become_long());
        running.begin(LONG, Timestamp::NEVER);
        assert!(running.become_long() && !running.become_long());
        assert!(!running.look(ENDS).has_become_long, "it is no news");
    }

    #[test]
    fn a_script_that_has_written_is_not_killed() {
        let running = RunningScript::default();
        let code = |result: Result<(), CommandError>| {
            result.map_err(|error| error.text().split(' ').next().unwrap_or_default().to_owned())
        };
        assert_eq!(code(running.kill()), Err("NOTBUSY".to_owned()));
        running.begin(LONG, ENDS);
        assert_eq!(running.write(), Ok(()));
        assert_eq!(code(running.kill()), Err("UNKILLABLE".to_owned()));
        assert_eq!(running.look(BEGAN).stop, None);
        running.begin(LONG, ENDS);
        assert_eq!(code(running.kill()), Ok(()));
        assert_eq!((running.look(BEGAN).stop, running.write()), (Some(Stop::Killed), Err(Stop::Killed)));
    }
}
