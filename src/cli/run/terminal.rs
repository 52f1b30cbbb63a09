//! The terminal of a command: it reads from it and gets its Ctrl-C and Ctrl-Z, as if there were no
//! `octostore run` in between.
//!
//! Guarantees: the terminal is taken back when the command stops or ends. While this process is
//! stopped, so is the command. Without a terminal, nothing happens, nor where the group of this
//! process is of another PID namespace: the terminal could not be given back to it.
//!
//! The system says 0 for groups and sessions of other PID namespaces; rustix cannot represent that.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, stdin, stdout};

use nix::sys::signal::{SigSet, Signal as Blocked};
use nix::unistd::{getpgrp, getppid, getsid};
use rustix::fs::{FileType, fstat};
use rustix::process::{Pid, Signal, getpid, kill_current_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::group::Group;

/// The controlling terminal, which a process group may have borrowed.
pub(super) struct Terminal {
    tty: Option<File>,
    /// The command has it whenever this process could have it.
    is_wanted: bool,
    is_lent: bool,
}

impl Terminal {
    /// Does not lend it yet.
    pub(super) fn new() -> Terminal {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let tty = tty.ok().filter(|_| own_group().is_some());
        // A pipeline or a script shares the terminal until the command asks for it.
        let is_alone = own_group() == Some(getpid()) && stdin().is_terminal() && !is_pipe(&stdout());
        Terminal { tty, is_wanted: is_alone, is_lent: false }
    }

    /// Lends the terminal to the command if the command wants it and this process is in the
    /// foreground.
    pub(super) fn lend(&mut self, group: &Group) {
        if let Some(tty) = self.tty.as_ref().filter(|tty| self.is_wanted && is_foreground(tty, own_group())) {
            self.is_lent = tcsetpgrp(tty, group.id()).is_ok();
        }
    }

    /// Whether the command has the terminal.
    pub(super) fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// Continues the command after [`Terminal::stopped`].
    pub(super) fn resume(&mut self, group: &mut Group) {
        self.lend(group);
        group.signal(Signal::CONT);
    }

    /// Makes the group of this process the foreground group again.
    pub(super) fn take_back(&mut self) {
        let is_lent = std::mem::take(&mut self.is_lent);
        if let Some((tty, own)) = self.tty.as_ref().filter(|_| is_lent).zip(own_group()) {
            // A background process that does this is stopped, unless it has blocked the signal.
            let mut blocked = SigSet::empty();
            blocked.add(Blocked::SIGTTOU);
            if blocked.thread_block().is_ok() {
                let _ = tcsetpgrp(tty, own);
                let _ = blocked.thread_unblock();
            }
        }
    }

    /// The command was stopped by this signal. Returns whether it is to be resumed: at once if it
    /// asked for the terminal and gets it; after Ctrl-Z when the shell has continued this process,
    /// which stops, too. Nothing renews the lease meanwhile.
    pub(super) fn stopped(&mut self, group: &mut Group, by: Signal) -> bool {
        let Some(tty) = &self.tty else { return false };
        let asks = by == Signal::TTIN || by == Signal::TTOU;
        self.is_wanted |= asks;
        // It may have asked just before it got it.
        if asks && (is_foreground(tty, own_group()) || is_foreground(tty, Some(group.id()))) {
            return true;
        }
        if by == Signal::STOP && !self.is_lent {
            return false;
        }
        if !has_shell() {
            return by == Signal::TSTP;
        }
        self.take_back();
        // No process of the group may go on without this one.
        group.signal(Signal::STOP);
        stop();
        true
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Stops the group of this process, as Ctrl-Z does. Returns when the shell has continued it, or at
/// once if there is none.
pub(super) fn stop() {
    if has_shell() {
        let _ = kill_current_process_group(Signal::STOP);
    }
}

/// Whether a process of the same session has started this one, and can continue it.
fn has_shell() -> bool {
    let parent = getppid();
    let [own, theirs] =
        [None, Some(parent)].map(|process| getsid(process).map_or(0, |session| session.as_raw()));
    parent.as_raw() > 0 && own > 0 && own == theirs
}

/// Nothing if the group is of another PID namespace.
fn own_group() -> Option<Pid> {
    Pid::from_raw(getpgrp().as_raw())
}

fn is_foreground(tty: &File, group: Option<Pid>) -> bool {
    group.is_some() && tcgetpgrp(tty).ok() == group
}

fn is_pipe(file: &impl std::os::fd::AsFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
