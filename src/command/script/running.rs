//! The script that runs at present.
//!
//! Guarantees: at most one script runs. A script that has written anything cannot be killed.
//! Not here: the interpreter.

use parking_lot::Mutex;

use crate::command::CommandError;
use crate::domain::Timestamp;

/// The script that runs at present, if any.
#[derive(Debug, Default)]
pub struct RunningScript(Mutex<Option<State>>);

#[derive(Debug)]
struct State {
    began: Timestamp,
    ends: Timestamp,
    has_written: bool,
    stop: Option<Stop>,
}

/// Why a script has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A client has sent SCRIPT KILL.
    Killed,
    /// It has used up its time.
    TimedOut,
}

impl RunningScript {
    /// Notes that a script begins, which must stop at `ends`.
    pub(super) fn begin(&self, began: Timestamp, ends: Timestamp) {
        *self.0.lock() = Some(State { began, ends, has_written: false, stop: None });
    }

    /// Notes that the script has ended.
    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    /// When the script that runs at present began.
    pub fn began(&self) -> Option<Timestamp> {
        self.0.lock().as_ref().map(|state| state.began)
    }

    /// Whether the running script has to stop.
    pub(super) fn must_stop(&self, now: Timestamp) -> Option<Stop> {
        let mut running = self.0.lock();
        let state = running.as_mut()?;
        if state.stop.is_none() && now >= state.ends {
            state.stop = Some(Stop::TimedOut);
        }
        state.stop
    }

    /// Notes that the script is about to run a command that writes. Fails if the script has to
    /// stop.
    pub(super) fn write(&self) -> Result<(), Stop> {
        let mut running = self.0.lock();
        let Some(state) = running.as_mut() else { return Ok(()) };
        match state.stop {
            Some(stop) => Err(stop),
            None => {
                state.has_written = true;
                Ok(())
            }
        }
    }

    /// Asks the script to stop, for SCRIPT KILL.
    pub(super) fn kill(&self) -> Result<(), CommandError> {
        match self.0.lock().as_mut() {
            None => Err(CommandError::fixed("NOTBUSY No scripts in execution right now.")),
            Some(state) if state.has_written => Err(CommandError::fixed(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                 the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            )),
            Some(state) => {
                state.stop.get_or_insert(Stop::Killed);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Timestamp = Timestamp::from_nanos(100);
    const ENDS: Timestamp = Timestamp::from_nanos(200);

    #[test]
    fn a_script_stops_at_its_end() {
        let running = RunningScript::default();
        assert_eq!(running.must_stop(ENDS), None);
        running.begin(BEGAN, ENDS);
        assert_eq!((running.began(), running.must_stop(BEGAN)), (Some(BEGAN), None));
        assert_eq!(running.must_stop(ENDS), Some(Stop::TimedOut));
        assert_eq!(running.write(), Err(Stop::TimedOut));
        running.end();
        assert_eq!((running.began(), running.must_stop(ENDS)), (None, None));
    }

    #[test]
    fn a_script_that_has_written_is_not_killed() {
        let running = RunningScript::default();
        let code = |result: Result<(), CommandError>| {
            result.map_err(|error| error.text().split(' ').next().unwrap_or_default().to_owned())
        };
        assert_eq!(code(running.kill()), Err("NOTBUSY".to_owned()));
        running.begin(BEGAN, ENDS);
        assert_eq!(running.write(), Ok(()));
        assert_eq!(code(running.kill()), Err("UNKILLABLE".to_owned()));
        assert_eq!(running.must_stop(BEGAN), None);
        running.begin(BEGAN, ENDS);
        assert_eq!(code(running.kill()), Ok(()));
        assert_eq!((running.must_stop(BEGAN), running.write()), (Some(Stop::Killed), Err(Stop::Killed)));
    }
}
