//! Handles the rest of a request's body once the response is ready.
//!
//! Guarantees: a client that is still sending can read the response. A body that its route leaves
//! unread is read and dropped, up to a bound in bytes and time. Beyond it, the response announces
//! that the connection closes, and the listener closes it slowly. Not here: what bodies mean, and
//! the bound of those that are kept.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

/// Longest rest of a body that is read to keep the connection, in bytes.
const DRAIN_BYTES_MAX: u64 = 256 << 10;
/// How long the rest of a body may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Shared with the listener: whether the connection ends while its client may still be sending.
#[derive(Debug, Clone, Default)]
pub(super) struct Lingers(Arc<AtomicBool>);

impl Lingers {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body that a route receives. Dropping it returns the unread rest to [`Unread`].
struct Watched {
    body: Body,
    is_begun: bool,
    is_over: bool,
    left: Arc<Mutex<Option<Rest>>>,
}

struct Rest {
    body: Body,
    is_begun: bool,
    /// Its framing is broken, or the client is gone.
    has_failed: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_begun = true;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => {}
            None => self.is_over = true,
            Some(Err(_)) => {
                self.is_over = true;
                self.leave(true);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Watched {
    fn leave(&mut self, has_failed: bool) {
        let rest = Rest { body: std::mem::take(&mut self.body), is_begun: self.is_begun, has_failed };
        *self.left.lock() = Some(rest);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_over && !http_body::Body::is_end_stream(&self.body) {
            self.leave(false);
        }
    }
}

/// Takes over the unread rest of a request's body.
pub(super) struct Unread {
    left: Arc<Mutex<Option<Rest>>>,
    /// The client waits for `100 Continue`, which reading would send.
    waits_for_continue: bool,
    lingers: Option<Lingers>,
}

impl Unread {
    /// Watches the request's body; `None` if it has none.
    pub(super) fn watch(request: Request) -> (Request, Option<Unread>) {
        if http_body::Body::is_end_stream(request.body()) {
            return (request, None);
        }
        let expected = request.headers().get(header::EXPECT);
        let unread = Unread {
            left: Arc::default(),
            waits_for_continue: expected
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            lingers: request.extensions().get::<Lingers>().cloned(),
        };
        let left = Arc::clone(&unread.left);
        let watched = |body| Body::new(Watched { body, is_begun: false, is_over: false, left });
        (request.map(watched), Some(unread))
    }

    /// Reads the rest, or makes the response the last one of the connection.
    pub(super) async fn finish(self, response: &mut Response) {
        let rest = self.left.lock().take();
        let Some(rest) = rest else { return };
        if !self.drain(rest).await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            if let Some(Lingers(lingers)) = self.lingers {
                lingers.store(true, Ordering::Relaxed);
            }
        }
    }

    async fn drain(&self, mut rest: Rest) -> bool {
        let is_long = http_body::Body::size_hint(&rest.body).lower() > DRAIN_BYTES_MAX;
        if rest.has_failed || is_long || (self.waits_for_continue && !rest.is_begun) {
            return false;
        }
        let drained = async {
            let mut room = DRAIN_BYTES_MAX;
            while let Some(frame) = rest.body.frame().await {
                let Ok(frame) = frame else { return false };
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = room.checked_sub(length) else { return false };
                room = left;
            }
            true
        };
        tokio::time::timeout(DRAIN_TIME_MAX, drained).await.unwrap_or(false)
    }
}
