//! How the program ends: as its command did.
//!
//! Guarantees: if a signal that asks to end has ended the command, or came during the wait, the same
//! signal ends this process. A shell that runs a script stops at Ctrl-C only if it sees that: with an
//! exit code, it takes the signal for handled and goes on. Not here: the release of the locks, which
//! comes first.

use std::process::ExitCode;

use rustix::process::{Signal, WaitStatus, getpid, kill_current_process_group};

/// Exit codes of shells for a command that a signal has ended.
const SIGNAL_CODE: i32 = 128;
/// The signals by which people and supervisors end programs. The others say what has happened to the
/// command, and would be wrong of this process.
const ASK_TO_END: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
/// The signals that a terminal sends to all processes in its foreground.
const OF_TERMINALS: [Signal; 2] = [Signal::INT, Signal::QUIT];

/// How the first process of the command has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) status: WaitStatus,
    /// The command had borrowed the terminal, so its signals have not reached the group of this
    /// process.
    pub(super) has_terminal: bool,
}

impl End {
    /// Ends as the command did, or returns its exit code.
    pub(super) fn repeat(self) -> ExitCode {
        let by = self.status.terminating_signal();
        if let Some(signal) = ASK_TO_END.into_iter().find(|signal| by == Some(signal.as_raw())) {
            if self.has_terminal && OF_TERMINALS.contains(&signal) {
                // The shell of a script, and the rest of a pipeline.
                let _ = kill_current_process_group(signal);
            }
            return end_by(signal);
        }
        let code = self.status.exit_status().or_else(|| by.map(|signal| SIGNAL_CODE + signal));
        ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}

/// Ends this process by a signal. Returns the exit code that shells show for it if that is impossible.
pub(super) fn end_by(signal: Signal) -> ExitCode {
    // The system keeps signals from the first process of a container.
    if !getpid().is_init() {
        // If there is a core, it is the command's.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        let _ = signal_hook::low_level::emulate_default_handler(signal.as_raw());
    }
    ExitCode::from(u8::try_from(SIGNAL_CODE + signal.as_raw()).unwrap_or(u8::MAX))
}
