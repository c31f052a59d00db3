//! Answers of a KMS, from a server on this machine: no answer makes a client panic, hang, or take what is no key for one.
#![no_main]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use pgseal::core::secret::RootKey;
use pgseal::keys::context::{Purpose, WrapContext};
use pgseal::kms::{Environment, Kms, KmsError, Settings, Token, open};
use pgseal_fuzz::{Input, KEYRING};

/// Too short for a second attempt, which would wait at least 50 ms before it.
const TIMEOUT: Duration = Duration::from_millis(45);
/// After this a call hangs, however busy the machine is.
const HANGS: Duration = Duration::from_secs(10);
/// What nothing that a client says may hold, though every answer does.
const REMOTE: &str = "remote-words";

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (service, operation) = (input.byte(), input.byte());
    if service % 5 == 4 {
        return endpoint(input.rest());
    }
    let wrapped = input.part();
    let mut answers = VecDeque::new();
    while !input.is_empty() && answers.len() < 8 {
        answers.push_back(answer(&mut input));
    }
    let said = answers.iter().flatten().copied().collect::<Vec<_>>();
    *SERVER.answers.lock().unwrap() = answers;
    let started = Instant::now();
    called(service % 5, operation, wrapped, &said);
    assert!(started.elapsed() < HANGS);
});

/// Its status and its body, or all of it as it goes over the wire.
fn answer(input: &mut Input<'_>) -> Vec<u8> {
    let statuses = [0, 200, 400, 401, 403, 404, 429, 503, 301, 204];
    let status = statuses[usize::from(input.byte()) % statuses.len()];
    let body = input.part();
    if status == 0 {
        return body.to_vec();
    }
    let head = format!("HTTP/1.1 {status} {REMOTE}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn called(service: u8, operation: u8, wrapped: &[u8], said: &[u8]) {
    let (endpoint, key) = match service {
        0 => (format!("vault+http://127.0.0.1:{}/transit", SERVER.port), "key"),
        1 => {
            let key = "arn:aws:kms:eu-west-1:1:alias/key";
            (format!("aws-kms://eu-west-1?endpoint=http://127.0.0.1:{}", SERVER.port), key)
        }
        2 => {
            let ring = "projects/p/locations/l/keyRings/r";
            (format!("gcp-kms://{ring}?endpoint=http://127.0.0.1:{}", SERVER.port), "key")
        }
        _ => {
            let vault = "name.vault.azure.net";
            (format!("azure-kv://{vault}?endpoint=http://127.0.0.1:{}", SERVER.port), "key")
        }
    };
    let kms = open(&endpoint, &settings(service != 1)).unwrap();
    let context = WrapContext { keyring: KEYRING, purpose: Purpose::Data, version: 1 };
    let root = RootKey::take(&mut [7; 32]);
    match operation % 4 {
        0 => drop(without_words(kms.ensure_key(key))),
        1 => is_taken_back(&*kms, key, &context, kms.wrap(key, &context, &root)),
        2 => is_taken_back(&*kms, key, &context, kms.rewrap(key, &context, wrapped)),
        // No status but this one gives a key.
        _ => assert!(without_words(kms.unwrap(key, &context, wrapped)).is_err() || holds(said, b" 200")),
    }
}

/// What a client stores it sends again, and does not refuse by itself.
fn is_taken_back(kms: &dyn Kms, key: &str, context: &WrapContext, wrapped: Result<Vec<u8>, KmsError>) {
    if let Ok(wrapped) = without_words(wrapped) {
        assert!((1..=6144).contains(&wrapped.len()));
        let again = without_words(kms.unwrap(key, context, &wrapped));
        assert!(again.map_or_else(|error| !error.to_string().contains("stored key"), |_| true));
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn without_words<T>(outcome: Result<T, KmsError>) -> Result<T, KmsError> {
    if let Err(error) = &outcome {
        assert!(!error.to_string().contains(REMOTE));
        let _ = error.class();
    }
    outcome
}

/// The text of a setting; nothing is called. A directory of keys would be made.
fn endpoint(text: &[u8]) {
    if let Ok(text) = std::str::from_utf8(text)
        && !text.starts_with("file:")
    {
        let _ = without_words(open(text, &settings(true)).map(drop));
    }
}

fn settings(with_token: bool) -> Settings {
    let mut settings = Settings::new(TIMEOUT, || false);
    settings.token = with_token.then(|| Rc::new(Token::parse("token").unwrap()));
    settings.environment = Environment::new(|name| match name {
        "AWS_ACCESS_KEY_ID" => Some("id".into()),
        "AWS_SECRET_ACCESS_KEY" => Some("secret".into()),
        _ => None,
    });
    settings
}

/// Gives each connection the next answer, and none when there is no more.
struct Server {
    port: u16,
    answers: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, answers) =
            (listener.local_addr().unwrap().port(), Arc::<Mutex<VecDeque<Vec<u8>>>>::default());
        let next = answers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = next.lock().unwrap().pop_front();
                drop(serve(stream, &answer.unwrap_or_default()));
            }
        });
        Server { port, answers }
    }
}

/// Reads a request to its end before answering, so that closing resets nothing.
fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let (mut request, mut room) = (Vec::new(), [0; 4096]);
    while !is_whole(&request) {
        match stream.read(&mut room)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => request.extend_from_slice(&room[..read]),
        }
    }
    stream.write_all(answer)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
