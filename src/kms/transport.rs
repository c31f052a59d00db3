//! The transport under ureq: connects, reads and writes in slices, and wipes what ureq buffered.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket as Socket2, Type};
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use zeroize::Zeroize;

use super::KmsError;

/// Longest wait without asking whether to stop.
const SLICE: Duration = Duration::from_millis(50);
/// Between two looks at a connection that is being opened, and until the next address is tried beside it.
const PAUSE: Duration = Duration::from_millis(5);
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

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

/// The first of `addrs` that answers. An address that is silent does not hold up the next one: the attempts run
/// beside each other (RFC 8305, without its sorting).
fn connect(addrs: &[SocketAddr], watch: &Watch) -> Result<TcpStream, ureq::Error> {
    let mut waiting: Vec<Socket2> = Vec::new();
    let mut addrs = addrs.iter();
    let mut refusal = None;
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if (waiting.is_empty() || now >= next)
            && let Some(addr) = addrs.next()
        {
            next = now + NEXT_ADDRESS;
            match begin(addr) {
                Ok(socket) => waiting.push(socket),
                Err(error) => refusal = Some(error),
            }
        }
        if let Some(socket) = first_connected(&mut waiting, &mut refusal) {
            socket.set_nonblocking(false)?;
            return Ok(socket.into());
        }
        if waiting.is_empty() && addrs.len() == 0 {
            return Err(refusal.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()).into());
        }
        std::thread::sleep(PAUSE.min(watch.left()?));
    }
}

/// A connection that is being opened.
fn begin(addr: &SocketAddr) -> std::io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(*addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&(*addr).into()) {
        Err(error) if !is_in_progress(&error) => Err(error),
        _ => Ok(socket),
    }
}

/// std has no stable name for it.
fn is_in_progress(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Takes the first that is open; those that failed go.
fn first_connected(waiting: &mut Vec<Socket2>, refusal: &mut Option<std::io::Error>) -> Option<Socket2> {
    let mut at = 0;
    while at < waiting.len() {
        match waiting[at].take_error() {
            Ok(None) if waiting[at].peer_addr().is_ok() => return Some(waiting.swap_remove(at)),
            Ok(None) => at += 1,
            Ok(Some(error)) | Err(error) => {
                *refusal = Some(error);
                waiting.swap_remove(at);
            }
        }
    }
    None
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
