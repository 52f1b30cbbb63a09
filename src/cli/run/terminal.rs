//! The terminal of a command: it reads from it and gets its Ctrl-C, as if there were no
//! `octostore run` in between.
//!
//! Guarantees: the terminal is taken back when the command stops or ends. Without a terminal, and
//! in the background, nothing happens.

use std::io::{IsTerminal, Stdin, stdin};

use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::process::{Pid, Signal, getpgrp, kill_current_process_group, kill_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal on stdin, lent to a process group.
pub(super) struct Terminal {
    stdin: Stdin,
    is_lent: bool,
}

impl Terminal {
    /// Does not lend it yet.
    pub(super) fn new() -> Terminal {
        Terminal { stdin: stdin(), is_lent: false }
    }

    /// Makes `group` the foreground group if this process is in it.
    pub(super) fn lend(&mut self, group: Pid) {
        let is_ours = self.stdin.is_terminal() && tcgetpgrp(&self.stdin) == Ok(getpgrp());
        self.is_lent = is_ours && tcsetpgrp(&self.stdin, group).is_ok();
        if self.is_lent {
            // It may have read before.
            let _ = kill_process_group(group, Signal::CONT);
        }
    }

    /// Makes the group of this process the foreground group again.
    pub(super) fn take_back(&mut self) {
        if std::mem::take(&mut self.is_lent) {
            // A background process that does this is stopped, unless it has blocked the signal.
            let mut blocked = SigSet::empty();
            blocked.add(Blocked::SIGTTOU);
            let is_blocked = blocked.thread_block().is_ok();
            if is_blocked {
                let _ = tcsetpgrp(&self.stdin, getpgrp());
                let _ = blocked.thread_unblock();
            }
        }
    }

    /// After Ctrl-Z: stops this process, too, so that the shell goes on. Returns when the shell has
    /// continued it. Nothing renews the lease meanwhile. Returns at once if the terminal is not
    /// lent.
    pub(super) fn stop_with_command(&mut self) -> bool {
        let is_lent = self.is_lent;
        if is_lent {
            self.take_back();
            let _ = kill_current_process_group(Signal::STOP);
        }
        is_lent
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}
