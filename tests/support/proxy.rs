use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a [`Proxy`] does to a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Passes everything.
    None,
    /// Closes it at once.
    Refuse,
    /// Ends it with a reset once the request has come.
    Reset,
    /// Takes the request and says nothing.
    Hang,
    /// Passes the answer one byte at a time, this long apart.
    Slow(Duration),
    /// Resets every third connection and passes the others.
    OneInThree,
    /// Answers something that is not HTTP.
    Garbage,
    /// Answers 100 MB.
    Huge,
    /// Answers with a redirect to itself.
    Redirect,
}

/// A TCP proxy before a server, that does what it is told to each new connection.
pub struct Proxy {
    pub port: u16,
    fault: Arc<Mutex<Fault>>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// Before the server on `port` of the loopback address.
    pub fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Proxy {
            port: listener.local_addr().expect("its port").port(),
            fault: Arc::new(Mutex::new(Fault::None)),
            connections: Arc::default(),
        };
        let (fault, connections) = (proxy.fault.clone(), proxy.connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let fault = *fault.lock().expect("the fault");
                std::thread::spawn(move || drop(serve(stream, port, fault, number)));
            }
        });
        proxy
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().expect("the fault") = fault;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, port: u16, fault: Fault, number: usize) -> std::io::Result<()> {
    match fault {
        Fault::None => pass(client, port, None),
        Fault::Slow(pause) => pass(client, port, Some(pause)),
        Fault::OneInThree if number.is_multiple_of(3) => reset(client),
        Fault::OneInThree => pass(client, port, None),
        Fault::Refuse => Ok(()),
        Fault::Reset => {
            request(&mut client)?;
            reset(client)
        }
        Fault::Hang => {
            request(&mut client)?;
            std::thread::sleep(Duration::from_secs(120));
            Ok(())
        }
        Fault::Garbage => {
            request(&mut client)?;
            client.write_all(b"\x00\xff garbage\r\n\r\n")
        }
        Fault::Huge => {
            request(&mut client)?;
            client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")?;
            (0..1600).try_for_each(|_| client.write_all(&[b'0'; 65536]))
        }
        Fault::Redirect => {
            request(&mut client)?;
            write!(
                client,
                "HTTP/1.1 307 Elsewhere\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
                client.local_addr()?
            )
        }
    }
}

/// A JSON request to its end.
fn request(client: &mut TcpStream) -> std::io::Result<()> {
    let mut taken = Vec::new();
    let mut piece = [0; 4096];
    while !taken.ends_with(b"}") {
        match client.read(&mut piece)? {
            0 => break,
            read => taken.extend_from_slice(&piece[..read]),
        }
    }
    Ok(())
}

fn reset(client: TcpStream) -> std::io::Result<()> {
    socket2::Socket::from(client).set_linger(Some(Duration::ZERO))
}

fn pass(mut client: TcpStream, port: u16, pause: Option<Duration>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let Some(pause) = pause else {
        std::io::copy(&mut server, &mut client)?;
        return client.shutdown(Shutdown::Both);
    };
    let mut byte = [0];
    while server.read(&mut byte)? > 0 {
        std::thread::sleep(pause);
        client.write_all(&byte)?;
    }
    client.shutdown(Shutdown::Both)
}
