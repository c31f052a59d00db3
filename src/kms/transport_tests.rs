use std::cell::Cell;
use std::net::TcpListener;

use super::*;

thread_local! {
    static CANCEL_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn cancelled() -> bool {
    CANCEL_AT.get().is_some_and(|at| Instant::now() >= at)
}

fn watch(timeout: Duration) -> Watch {
    Watch { deadline: Instant::now() + timeout, interrupted: cancelled }
}

/// A listener nobody accepts from, with its queue full, so that further connects get no answer at all.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
        queued.push(stream);
        assert!(queued.len() < 10_000, "the queue does not fill");
    }
    (listener, queued)
}

#[test]
fn connecting_ends_at_the_deadline_and_at_a_cancel() {
    let (listener, _queued) = full_listener();
    let addrs = [listener.local_addr().unwrap()];
    let start = Instant::now();
    let late = connect(&addrs, &watch(Duration::from_millis(400)));
    assert!(matches!(late, Err(ureq::Error::Timeout(_))));
    // Far from what the system itself would wait, with room for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(10));

    let cancelled = || {
        let cancel = Instant::now() + Duration::from_millis(50);
        CANCEL_AT.set(Some(cancel));
        let given_up = connect(&addrs, &watch(Duration::from_secs(30)));
        assert!(matches!(given_up, Err(ureq::Error::Other(cause)) if cause.is::<Interrupted>()));
        cancel.elapsed()
    };
    assert!(cancelled() < Duration::from_secs(10));
}

#[test]
fn connecting_goes_on_to_the_next_address() {
    // Nobody listens on port 1.
    let gone = ([127, 0, 0, 1], 1).into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_secs(60);
    assert!(connect(&[gone, listener.local_addr().unwrap()], &watch(limit)).is_ok());
    assert!(matches!(connect(&[gone], &watch(limit)), Err(ureq::Error::Io(_))));
    let (silent, _queued) = full_listener();
    let start = Instant::now();
    assert!(connect(&[silent.local_addr().unwrap(), listener.local_addr().unwrap()], &watch(limit)).is_ok());
    assert!(start.elapsed() < Duration::from_secs(20), "a silent address holds up the next one");
}

#[test]
fn a_pause_ends_at_a_cancel() {
    let start = Instant::now();
    CANCEL_AT.set(Some(start + Duration::from_millis(60)));
    assert_eq!(watch(Duration::from_secs(30)).sleep(Duration::from_secs(20)), Err(KmsError::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn both_buffers_are_wiped_whole() {
    let mut buffers = LazyBuffers::new(64, 64);
    buffers.output().fill(7);
    buffers.input_append_buf().fill(7);
    buffers.input_appended(40);
    buffers.input_consume(10);
    wipe(&mut buffers);
    assert_eq!(buffers.output(), [0; 64]);
    assert_eq!(buffers.input_append_buf(), [0; 64]);
}
