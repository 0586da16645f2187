//! How long a connection may be open without a request, how long a request's head may take, and how long what we send may wait
//! for who asked for it.
//!
//! hyper has one limit for both, from the last answer to the end of the next head. But a connection that waits for its
//! browser's next request is worth keeping for a while, and one that sends a head byte by byte is not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What is limited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    /// From a head's first byte to its last; for a new connection, from its beginning.
    pub(crate) head: Duration,
    /// From an answer, or what was last sent of it, to the next head's first byte; and from what was last taken of an answer, or
    /// on a socket, to the next byte that is taken.
    pub(crate) idle: Duration,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// A head has begun, or has to begin at once.
    Head = 0,
    /// The next request.
    Idle = 1,
    /// Us: its request is being answered, or it has become a socket.
    Answer = 2,
}

impl Phase {
    const fn limit(self, limits: TimeLimits) -> Option<Duration> {
        match self {
            Self::Head => Some(limits.head),
            Self::Idle => Some(limits.idle),
            Self::Answer => None,
        }
    }
}

/// What a connection is waiting for, as its stream and its requests both know it. They live in one task, so it is never
/// changed by two at a time.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<AtomicU8>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Phase::Head as u8)))
    }

    fn get(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Head,
            1 => Phase::Idle,
            _ => Phase::Answer,
        }
    }

    fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// A request's head is here.
    pub(crate) fn request_has_come(&self) {
        self.set(Phase::Answer);
    }

    /// The body of the answer, after which the connection is idle; for ever busy where `becomes_socket`.
    pub(crate) fn answer(&self, body: Body, becomes_socket: bool) -> AnswerBody {
        AnswerBody { body, _then: (!becomes_socket).then(|| ThenIdle(self.clone())) }
    }
}

#[derive(Debug)]
struct ThenIdle(Progress);

impl Drop for ThenIdle {
    fn drop(&mut self) {
        self.0.set(Phase::Idle);
    }
}

/// The body of an answer. hyper drops it when it has taken over all of it.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Body,
    _then: Option<ThenIdle>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails when it waits for too long. It looks at the time only where there is nothing to read.
#[derive(Debug)]
pub(crate) struct TimedStream<S> {
    stream: S,
    progress: Progress,
    limits: TimeLimits,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set for, if for anything.
    set_for: Option<Phase>,
    /// Runs while something waits to be taken.
    not_taken: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    pub(crate) fn new(stream: S, limits: TimeLimits) -> Self {
        let timer = Box::pin(tokio::time::sleep(limits.head));
        Self { stream, progress: Progress::new(), limits, timer, set_for: Some(Phase::Head), not_taken: None }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Ready when there was no progress for too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.progress.get();
        let Some(limit) = phase.limit(self.limits) else {
            self.set_for = None;
            return Poll::Pending;
        };
        if self.set_for != Some(phase) {
            self.set_for = Some(phase);
            self.timer.as_mut().reset(Instant::now() + limit);
        }
        self.timer.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                if buffer.filled().len() > filled && self.progress.get() == Phase::Idle {
                    self.progress.set(Phase::Head);
                    // Most heads are here at once, and need no timer.
                    self.set_for = None;
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                ready!(self.poll_overdue(cx));
                Poll::Ready(Err(timed_out()))
            }
        }
    }
}

fn timed_out() -> io::Error {
    metrics::counter!("throughline_connections_timed_out_total").increment(1);
    io::ErrorKind::TimedOut.into()
}

impl<S: AsyncWrite + Unpin> TimedStream<S> {
    /// What came of writing. Whoever still takes what we send is not idle.
    fn written(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) && self.set_for == Some(Phase::Idle) {
            self.set_for = None;
        }
        self.taken(written, cx)
    }

    /// Whether something was taken. For who takes nothing, nothing is kept for ever.
    fn taken<T>(&mut self, taken: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if taken.is_ready() {
            self.not_taken = None;
            return taken;
        }
        let limit = self.limits.idle;
        let not_taken = self.not_taken.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(not_taken.as_mut().poll(cx));
        Poll::Ready(Err(timed_out()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.taken(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.taken(shut_down, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const LIMITS: TimeLimits = TimeLimits { head: Duration::from_secs(10), idle: Duration::from_secs(60) };

    fn connected() -> (TimedStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(64);
        (TimedStream::new(ours, LIMITS), theirs)
    }

    /// After how many seconds reading fails, where nothing comes.
    async fn fails_after(stream: &mut TimedStream<DuplexStream>) -> u64 {
        let since = Instant::now();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        since.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_in_gain_no_time() {
        let (mut stream, mut client) = connected();
        let since = Instant::now();
        let trickling = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = client.write_u8(b'x').await;
            }
        };
        let reading = async { while stream.read_u8().await.is_ok() {} };
        tokio::select! {
            () = reading => {}
            () = trickling => panic!("the stream goes on"),
        }
        assert_eq!(since.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_its_own_time_and_the_next_head_begins_with_its_first_byte() {
        let (mut stream, mut client) = connected();
        let progress = stream.progress();
        client.write_u8(b'x').await.unwrap();
        stream.read_u8().await.unwrap();
        progress.request_has_come();
        drop(progress.answer(Body::empty(), false));
        let next = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(59)).await;
            client.write_u8(b'x').await.unwrap();
            client
        });
        stream.read_u8().await.unwrap();
        let _client = next.await.unwrap();
        assert_eq!(fails_after(&mut stream).await, 10);

        let (mut stream, _client) = connected();
        stream.progress().request_has_come();
        drop(stream.progress().answer(Body::empty(), false));
        assert_eq!(fails_after(&mut stream).await, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_what_is_sent_is_not_idle() {
        let (mut stream, _client) = connected();
        stream.progress().request_has_come();
        drop(stream.progress().answer(Body::empty(), false));
        let reading = tokio::time::timeout(Duration::from_secs(50), stream.read_u8()).await;
        assert!(reading.is_err(), "it has 60 seconds");
        stream.write_u8(b'x').await.unwrap();
        assert_eq!(fails_after(&mut stream).await, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up() {
        let (mut stream, mut client) = connected();
        stream.progress().request_has_come();
        let taking = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(59)).await;
                client.read_u8().await.unwrap();
            }
            client
        });
        let since = Instant::now();
        assert_eq!(stream.write_all(&[b'x'; 1000]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed().as_secs(), 10 * 59 + 60, "each byte that is taken gains time");
        drop(taking.await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_answered_and_a_socket_are_not_looked_at() {
        for becomes_socket in [false, true] {
            let (mut stream, _client) = connected();
            let progress = stream.progress();
            progress.request_has_come();
            let answer = progress.answer(Body::empty(), becomes_socket);
            let kept = (!becomes_socket).then_some(answer);
            let reading = tokio::time::timeout(Duration::from_secs(3600), stream.read_u8()).await;
            assert!(reading.is_err(), "it fails");
            drop(kept);
        }
    }
}
