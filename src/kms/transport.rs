//! The transport under ureq: connects, reads and writes in slices, and wipes what ureq buffered.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use zeroize::Zeroize;

use super::KmsError;

/// Longest wait without asking whether to stop.
const SLICE: Duration = Duration::from_millis(50);
const FIRST_CONNECT: Duration = Duration::from_millis(250);
const LONGEST_CONNECT: Duration = Duration::from_secs(1);

/// Travels through ureq and rustls as the cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// When to stop waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    pub deadline: Instant,
    pub interrupted: fn() -> bool,
}

impl Watch {
    /// The time left, more than zero, or why to stop.
    fn left(&self) -> Result<Duration, ureq::Error> {
        if (self.interrupted)() {
            return Err(ureq::Error::Other(Box::new(Interrupted)));
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ureq::Error::Timeout(ureq::Timeout::Global)) } else { Ok(left) }
    }

    /// Waits for `pause` or a cancel.
    pub fn sleep(&self, pause: Duration) -> Result<(), KmsError> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            if (self.interrupted)() {
                return Err(KmsError::Cancelled);
            }
            std::thread::sleep(SLICE.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}

/// An agent on this transport.
pub(super) fn agent(config: ureq::config::Config, watch: Watch) -> ureq::Agent {
    let connector = ().chain(TcpConnector(watch)).chain(RustlsConnector::default()).chain(WipingConnector);
    ureq::Agent::with_parts(config, connector, Names)
}

/// ureq's resolver with one error for every failed lookup.
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(uri, config, timeout).map_err(|_| ureq::Error::HostNotFound)
    }
}

#[derive(Debug)]
struct TcpConnector(Watch);

impl Connector for TcpConnector {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Socket>, ureq::Error> {
        let stream = connect(&details.addrs, &self.0)?;
        stream.set_nodelay(true)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Socket { stream, buffers, watch: self.0 }))
    }
}

/// The first of `addrs` that answers, in rounds whose attempts grow longer.
fn connect(addrs: &[SocketAddr], watch: &Watch) -> Result<TcpStream, ureq::Error> {
    let mut longest = FIRST_CONNECT;
    loop {
        let mut refusal = None;
        let mut silent = false;
        for addr in addrs {
            match TcpStream::connect_timeout(addr, longest.min(watch.left()?)) {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == ErrorKind::TimedOut => silent = true,
                Err(error) => refusal = Some(error),
            }
        }
        if let (Some(error), false) = (refusal, silent) {
            return Err(error.into());
        }
        longest = LONGEST_CONNECT.min(longest * 2);
    }
}

/// A TCP connection that waits in slices.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    watch: Watch,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut sent = 0;
        while sent < amount {
            self.stream.set_write_timeout(Some(SLICE.min(self.watch.left()?)))?;
            match self.stream.write(&self.buffers.output()[sent..amount]) {
                Ok(0) => return Err(ureq::Error::Io(ErrorKind::BrokenPipe.into())),
                Ok(written) => sent += written,
                Err(error) if is_slice_end(error.kind()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        loop {
            self.stream.set_read_timeout(Some(SLICE.min(self.watch.left()?)))?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) if is_slice_end(error.kind()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

fn is_slice_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Last in the chain, above TLS: wipes the buffers that held the request and the answer in the clear.
#[derive(Debug)]
struct WipingConnector;

#[derive(Debug)]
struct Wiping<T: Transport>(T);

impl<T: Transport> Connector<T> for WipingConnector {
    type Out = Wiping<T>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<T>) -> Result<Option<Wiping<T>>, ureq::Error> {
        Ok(chained.map(Wiping))
    }
}

impl<T: Transport> Transport for Wiping<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

impl<T: Transport> Drop for Wiping<T> {
    fn drop(&mut self) {
        wipe(self.0.buffers());
    }
}

/// All of both buffers: once everything is consumed, the free part of the input is the whole.
fn wipe(buffers: &mut dyn Buffers) {
    buffers.output().zeroize();
    let unread = buffers.input().len();
    buffers.input_consume(unread);
    buffers.input_append_buf().zeroize();
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
