//! Rests of a rotation, which tell others what they are for, and what the machine does meanwhile.

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::varlena;
use crate::pg::raw::{lock, timer};

/// What a nap is for, as rotation_progress says it.
const REASONS: [&str; 7] =
    ["pace", "max_rate", "replica lag", "checkpoint", "older transactions", "older snapshots", PAGE_IN_USE];
const PAGE_IN_USE: &str = "page in use";

/// `nap(reason text, seconds float8)`.
pub fn nap(call: Call) -> Returned {
    let reason = call.text(0)?;
    let number = number_of(&reason).ok_or_else(|| PgError::Argument(format!("unknown reason: {reason}")))?;
    let seconds = f64::from_bits(call.datum(1).value() as u64);
    if let Ok(duration) = Duration::try_from_secs_f64(seconds) {
        lock::while_marked(number, || timer::sleep(duration));
    }
    DELAY.set(delay());
    Ok(None)
}

/// Gives those who look at a page a moment.
pub fn wait_for_page(duration: Duration) {
    let number = number_of(PAGE_IN_USE).unwrap_or_default();
    lock::while_marked(number, || timer::sleep(duration));
}

fn number_of(reason: &str) -> Option<u16> {
    REASONS.iter().position(|known| *known == reason).map(|at| at as u16)
}

/// `reason_of_nap(class int4, number int4)`: of a lock as pg_locks shows it.
pub fn reason_of_nap(call: Call) -> Returned {
    let marked = lock::mark_of(call.int4(0), call.int4(1));
    let reason = marked.and_then(|number| REASONS.get(usize::from(number)));
    Ok(reason.map(|reason| varlena(reason.as_bytes()).datum()))
}

thread_local! {
    /// How long this process had waited for a processor when its last nap ended.
    static DELAY: Cell<Duration> = Cell::new(delay());
}

/// `waited_for_processor()`: how long it did since its last nap, in seconds.
pub fn waited_for_processor(_: Call) -> Returned {
    let waited = delay().saturating_sub(DELAY.get()).as_secs_f64();
    Ok(Some((waited.to_bits() as usize).into()))
}

/// The second number of schedstat, in nanoseconds; nothing where the kernel does not keep it.
fn delay() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let waited = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(waited.unwrap_or_default())
}

/// The kernel counts in hundredths of a second: less time says little.
const WINDOW: Duration = Duration::from_millis(50);

/// Time of all processors since the machine started, in the kernel's ticks.
#[derive(Clone, Copy)]
struct Ticks {
    /// Of everybody, without what gives way by itself (nice).
    busy: u64,
    idle: u64,
    /// Of this process.
    own: u64,
}

thread_local! {
    /// When it was looked last, what was found, and the share that came of it.
    static LAST: Cell<Option<(Instant, Ticks, f64)>> = const { Cell::new(None) };
}

/// `share_of_others()`: the share of all processors that others have used lately, 0 to 1; 0 where that is not known.
pub fn share_of_others(_: Call) -> Returned {
    Ok(Some((share().to_bits() as usize).into()))
}

fn share() -> f64 {
    let last = LAST.get().filter(|(when, ..)| when.elapsed() < Duration::from_secs(10));
    if let Some((when, _, share)) = last
        && when.elapsed() < WINDOW
    {
        return share;
    }
    let Some(now) = Ticks::read() else { return 0.0 };
    let share = last.map_or(0.0, |(_, then, _)| now.share_since(then));
    LAST.set(Some((Instant::now(), now, share)));
    share
}

impl Ticks {
    fn read() -> Option<Ticks> {
        let all = fs::read_to_string("/proc/stat").ok()?;
        let all = all.lines().next()?.strip_prefix("cpu ")?;
        let all: Vec<u64> = all.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let &[user, nice, system, idle, wait, interrupts, soft, steal, ..] = &*all else { return None };
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name, which may have blanks: utime and stime are the 14th and 15th field of the line.
        let mut own = own
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .skip(11)
            .map_while(|number| number.parse::<u64>().ok());
        let own = own.next()? + own.next()?;
        let idle = idle + wait + nice;
        Some(Ticks { busy: user + system + interrupts + soft + steal, idle, own })
    }

    fn share_since(self, then: Ticks) -> f64 {
        let busy = self.busy.saturating_sub(then.busy);
        let all = busy + self.idle.saturating_sub(then.idle);
        let others = busy.saturating_sub(self.own.saturating_sub(then.own));
        if all == 0 { 0.0 } else { others as f64 / all as f64 }
    }
}

/// `processors()`: how many this process may use.
pub fn processors(_: Call) -> Returned {
    let number = std::thread::available_parallelism().map_or(1, |number| number.get());
    Ok(Some((number as i32).into()))
}
