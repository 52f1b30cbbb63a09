//! Signals to `octostore run`.
//!
//! Guarantees: a signal that was ignored when the program started stays ignored, as `nohup` and
//! background jobs of shells expect.

use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal;

/// The signals that are passed on to the command.
const PASSED_ON: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::TSTP, Signal::USR1, Signal::USR2];

/// The signals that this process receives.
pub(super) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// Receives signals from now on.
    pub(super) fn catch() -> io::Result<Signals> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let wanted = PASSED_ON.into_iter().filter(|signal| ignored & bit(*signal) == 0);
        let streams = wanted.chain([Signal::CHILD]).map(|wanted| {
            let stream = signal(SignalKind::from_raw(wanted.as_raw()))?;
            Ok((wanted, stream))
        });
        streams.collect::<io::Result<_>>().map(Signals)
    }

    /// The next signal. [`Signal::CHILD`] says that a process of the command may have changed.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next signal that asks to end. Without a command, Ctrl-Z stops this process.
    pub(super) async fn next_to_end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Signal::TSTP => terminal::stop(),
                Signal::CHILD | Signal::USR1 | Signal::USR2 => {}
                signal => return signal,
            }
        }
    }
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// The set of ignored signals, from the text of `/proc/self/status`.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found() {
        let set = ignored("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n");
        assert_eq!((set & bit(Signal::HUP), set & bit(Signal::PIPE)), (1, 0x1000));
        assert_eq!(set & bit(Signal::INT), 0);
        assert_eq!(ignored(""), 0);
    }
}
