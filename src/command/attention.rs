//! A call for the attention of one task.
//!
//! Guarantees: a call is seen by the next poll, however early it comes; several calls count as one.
//! A task that polls again and again, as a connection does, registers once. Not here: what calls.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Wakes the one task that waits for it.
#[derive(Default)]
pub(super) struct Attention {
    is_called: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// The data of `waker`, which belong to no other waker as long as that exists. Written by the
    /// task that waits, to compare without the lock.
    registered: AtomicPtr<()>,
}

impl Attention {
    /// Calls.
    pub(super) fn call(&self) {
        self.is_called.store(true, Ordering::Release);
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }

    /// Completes after a call. For one task at a time.
    pub(super) async fn called(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let own = context.waker().data().cast_mut();
        if self.registered.load(Ordering::Relaxed) != own {
            let mut waker = self.waker.lock();
            self.registered.store(own, Ordering::Relaxed);
            *waker = Some(context.waker().clone());
        }
        // After the waker is there: a caller sees it, or is seen here.
        let is_called =
            self.is_called.load(Ordering::Acquire) && self.is_called.swap(false, Ordering::AcqRel);
        if is_called { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Wakes {
        fn poll(self: &Arc<Self>, attention: &Attention) -> Poll<()> {
            let waker = Waker::from(Arc::clone(self));
            pin!(attention.called()).as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn count(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_call_is_seen_once_by_the_task_that_polls() {
        let (attention, [first, second]) = (Attention::default(), [(); 2].map(|()| Arc::<Wakes>::default()));
        attention.call();
        attention.call();
        assert_eq!([first.poll(&attention), first.poll(&attention)], [Poll::Ready(()), Poll::Pending]);
        attention.call();
        assert_eq!((first.count(), first.poll(&attention)), (1, Poll::Ready(())));
        assert_eq!(second.poll(&attention), Poll::Pending);
        attention.call();
        assert_eq!((first.count(), second.count()), (1, 1));
        assert_eq!(second.poll(&attention), Poll::Ready(()));
    }

    #[test]
    fn no_call_is_lost_between_threads() {
        let attention = Attention::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (calls, seen) = std::sync::mpsc::sync_channel(0);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while calls.send(()).is_ok() {
                    attention.call();
                }
            });
            runtime.block_on(async {
                for _ in 0..10_000 {
                    seen.recv().unwrap();
                    attention.called().await;
                }
            });
            drop(seen);
        });
    }
}
