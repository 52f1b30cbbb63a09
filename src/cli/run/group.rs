//! The process group of a command.
//!
//! Guarantees: the group gets no signal once it is known to be gone, so that none reaches an
//! unrelated process whose id is the same. A group is gone when no process of it is left, not when
//! its first one has ended. Not here: when to send signals. A process that moves to another group
//! (setsid, a job of an interactive shell) is out of reach.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process_group, test_kill_process_group, wait,
};

/// A command and the processes that it has started.
#[derive(Debug)]
pub(super) struct Group {
    id: Pid,
    /// How the first process has ended.
    end: Option<WaitStatus>,
    is_gone: bool,
    /// The signal that has stopped the first process, until it is taken.
    stop: Option<Signal>,
    /// Ctrl-Z was passed on, and no stop was seen since.
    is_asked_to_stop: bool,
}

impl Group {
    /// Starts the command in a group of its own.
    pub(super) fn start(command: &mut Command) -> io::Result<Group> {
        // Processes whose parents have ended become children of this one, which can then wait for
        // them. Elsewhere than on Linux, and if this fails, the system's first process does.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let child = command.process_group(0).spawn()?;
        Ok(Group {
            id: Pid::from_child(&child),
            end: None,
            is_gone: false,
            stop: None,
            is_asked_to_stop: false,
        })
    }

    /// The id of the group.
    pub(super) fn id(&self) -> Pid {
        self.id
    }

    /// Sends a signal to every process of the group.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.is_asked_to_stop |= signal == Signal::TSTP;
        if !self.is_gone {
            // Fails only if no process is left, or if all have changed their user.
            let _ = kill_process_group(self.id, signal);
        }
    }

    /// Collects the processes that have ended.
    pub(super) fn observe(&mut self) {
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if status.stopped() => {
                    if pid == self.id {
                        self.stopped(status.stopping_signal().and_then(Signal::from_named_raw));
                    }
                }
                Ok(Some((pid, status))) if pid == self.id => self.end = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.is_gone |= self.end.is_some() && test_kill_process_group(self.id) == Err(Errno::SRCH);
    }

    fn stopped(&mut self, by: Option<Signal>) {
        // What is stopped already, because it asked for the terminal, does not see Ctrl-Z any more.
        let is_asked = std::mem::take(&mut self.is_asked_to_stop);
        self.stop = if is_asked { Some(Signal::TSTP) } else { by.or(self.stop) };
    }

    /// How the first process has ended.
    pub(super) fn end(&self) -> Option<WaitStatus> {
        self.end
    }

    /// Whether no process of the group is left.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// The signal that has stopped the first process since the last call, as Ctrl-Z does.
    pub(super) fn take_stop(&mut self) -> Option<Signal> {
        self.stop.take()
    }
}
