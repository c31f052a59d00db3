use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port for a server that is started next, which may take the one after it too, as OpenBao does. Below those that the
/// system hands out and never given twice, so that nobody takes it meanwhile, nor once that server has gone.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() * 89;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + ((first + next) % 10_000) as u16 * 2;
        if is_free(port) && is_free(port + 1) {
            return port;
        }
    }
}
