//! A small real HTTP server for what a real service does not do on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Call {
    /// Such as `GET /path`.
    pub line: String,
    /// By name in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Answers every request by `answer`, which gives status and body, and keeps the requests. Ends with the process.
pub struct Stub {
    pub port: u16,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Stub {
    pub fn new(answer: impl Fn(&Call) -> (u16, String) + Send + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let kept = calls.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(call) = read(&stream) else { continue };
                kept.lock().expect("calls").push(call.clone());
                let (status, body) = answer(&call);
                let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}", body.len());
                let _ = write!(stream, "{head}\r\nconnection: close\r\n\r\n{body}");
            }
        });
        Stub { port, calls }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests since the last time, in order.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("calls"))
    }
}

fn read(stream: &TcpStream) -> Option<Call> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.first()?.strip_suffix(" HTTP/1.1")?.to_owned();
    let pairs = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let headers: HashMap<_, _> =
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").map_or(Some(0), |text| text.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Call { line, headers, body: String::from_utf8(body).ok()? })
}
