//! A caller that dies: the work is dropped after so many steps, and done again.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
};

/// Works on a future, and drops it when it was waiting so many times.
pub(crate) async fn die_after<T>(waits: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut left = waits;
    let mut work = pin!(work);
    std::future::poll_fn(|context: &mut Context<'_>| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// How often a work waits: it dies at each of these, and after each the `again` runs to its end.
pub(crate) async fn die_everywhere<W, A, FW, FA, T>(mut work: W, mut again: A) -> usize
where
    W: FnMut(usize) -> FW,
    A: FnMut(usize) -> FA,
    FW: Future<Output = T>,
    FA: Future<Output = ()>,
{
    for waits in 0..1_000 {
        let done = die_after(waits, work(waits)).await.is_some();
        again(waits).await;
        if done {
            return waits;
        }
    }
    panic!("it does not end");
}
