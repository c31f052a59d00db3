//! Instructions of the core's operations, as callgrind counts them, against those that `counts.txt` has. They say what a change
//! costs where times do not: on a busy machine.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// What callgrind calls the function of `program/main.rs` that calls the operations.
const COUNTED: &str = "core_counts::counted";
/// Of the number written down, that a count may be off.
const TOLERANCE: f64 = 0.05;
/// Of it, by which counts of the same code differ.
const NOISE: f64 = 0.005;
/// First line of the file.
const TITLE: &str =
    "Instructions of one operation: tests/bench/README.md. `make core-counts` writes them anew.";

/// What was counted, and with what.
#[derive(Debug, PartialEq)]
struct Counts {
    /// Of other ones, counts say nothing: compiler, valgrind, and the processor that it shows.
    conditions: Vec<String>,
    /// By the name of the operation, in the order in which they were counted.
    operations: Vec<(String, u64)>,
}

impl Counts {
    fn of(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("counts");
        let said = below_callgrind(program, &dump);
        let after = |start| said.lines().filter_map(move |line| line.strip_prefix(start));
        let calls: u64 = after("calls: ").next().unwrap().parse().unwrap();
        let operations = after("operation: ").zip(1..).map(|(name, number)| {
            let total = total(&dump.with_extension(number.to_string()));
            (name.to_owned(), total / calls)
        });
        let processor = after("processor: ").next().unwrap().to_owned();
        let conditions = vec![version("rustc"), version("valgrind"), processor];
        Counts { conditions, operations: operations.collect() }
    }

    fn parse(text: &str) -> Self {
        let comments = text.lines().filter_map(|line| line.strip_prefix("# "));
        let counts = text.lines().filter(|line| !line.starts_with('#'));
        let operations = counts.map(|line| {
            let (count, name) = line.trim().split_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        });
        Counts { conditions: comments.skip(1).map(str::to_owned).collect(), operations: operations.collect() }
    }

    fn to_text(&self) -> String {
        let comments = std::iter::once(TITLE).chain(self.conditions.iter().map(String::as_str));
        let comments = comments.map(|comment| format!("# {comment}\n"));
        let counts = self.operations.iter().map(|(name, count)| format!("{count:>6} {name}\n"));
        comments.chain(counts).collect()
    }

    /// The same, with the number written down where it is as good as the one counted: what is written anew is what changed.
    fn without_noise(mut self, written: &Counts) -> Self {
        let then: BTreeMap<_, _> = written.operations.iter().cloned().collect();
        for (name, count) in &mut self.operations {
            *count = then.get(name).copied().filter(|then| is_near(*then, *count, NOISE)).unwrap_or(*count);
        }
        self
    }

    /// What is not as it was written down, each operation in a line.
    fn changes_since(&self, written: &Counts) -> Vec<String> {
        let now: BTreeMap<_, _> = self.operations.iter().cloned().collect();
        let then: BTreeMap<_, _> = written.operations.iter().cloned().collect();
        let names = now.keys().chain(then.keys().filter(|name| !now.contains_key(*name)));
        names.filter_map(|name| change(name, then.get(name).copied(), now.get(name).copied())).collect()
    }
}

fn change(name: &str, then: Option<u64>, now: Option<u64>) -> Option<String> {
    match (then, now) {
        (Some(then), Some(now)) => {
            let percent = 100.0 * (now as f64 / then as f64 - 1.0);
            (!is_near(then, now, TOLERANCE)).then(|| format!("{name}: {then} to {now}, {percent:+.1} %"))
        }
        (then, now) => Some(format!("{name}: {then:?} to {now:?}")),
    }
}

fn is_near(then: u64, now: u64, tolerance: f64) -> bool {
    now.abs_diff(then) as f64 <= tolerance * then as f64
}

/// Runs the program, and gives what it says. Callgrind writes `dump.1` and so on each time the counted function returns.
fn below_callgrind(program: &Path, dump: &Path) -> String {
    let mut command = Command::new("valgrind");
    command.args(["-q", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", dump.display()));
    command.args([format!("--zero-before={COUNTED}"), format!("--dump-after={COUNTED}")]);
    output(command.arg(program))
}

/// Name and number, without the commit that it was built from.
fn version(tool: &str) -> String {
    let said = output(Command::new(tool).arg("--version"));
    said.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// The instructions in a file of callgrind's.
fn total(dump: &Path) -> u64 {
    let text = fs::read_to_string(dump).unwrap_or_else(|_| panic!("callgrind has not found {COUNTED}"));
    text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap().trim().parse().unwrap()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[allow(clippy::explicit_write, reason = "what eprintln says is not shown where a test passes")]
fn say(what: &str) {
    writeln!(io::stderr(), "instructions of the core: {what}").unwrap();
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core_counts/counts.txt")
}

#[test]
fn the_core_takes_the_instructions_written_down() {
    let Some(program) = env::var_os("PGSEAL_CORE_COUNTS").filter(|program| !program.is_empty()) else {
        return say(
            "not counted: PGSEAL_CORE_COUNTS names no program, make test does where there is valgrind",
        );
    };
    let counted = Counts::of(Path::new(&program));
    let written = Counts::parse(&fs::read_to_string(file()).unwrap());
    if env::var_os("PGSEAL_CORE_COUNTS_WRITE").is_some() {
        fs::write(file(), counted.without_noise(&written).to_text()).unwrap();
        return say("written to tests/core_counts/counts.txt");
    }
    let changes = counted.changes_since(&written).join("\n");
    if counted.conditions != written.conditions {
        return say(&format!(
            "not compared: here is {:?}, written down are counts of {:?}\n{changes}",
            counted.conditions, written.conditions
        ));
    }
    assert!(
        changes.is_empty(),
        "{changes}\nwhere that is meant: make core-counts, and commit what it writes"
    );
    say(&format!("{} operations as written down", counted.operations.len()));
}

fn counts(operations: &[(&str, u64)]) -> Counts {
    let operations = operations.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Counts { conditions: vec!["rustc 1".into(), "valgrind 2".into()], operations }
}

#[test]
fn a_count_that_is_off_either_way_is_a_change() {
    let written = counts(&[("seal it", 1_000), ("open it", 2_000)]);
    let changes = |one, other| counts(&[("seal it", one), ("open it", other)]).changes_since(&written);
    assert!(changes(1_050, 1_900).is_empty());
    assert_eq!(changes(1_051, 2_000), ["seal it: 1000 to 1051, +5.1 %"]);
    assert_eq!(changes(1_000, 1_890), ["open it: 2000 to 1890, -5.5 %"]);
    let other = counts(&[("seal it", 1_000), ("fold it", 3)]).changes_since(&written);
    assert_eq!(other, ["fold it: None to Some(3)", "open it: Some(2000) to None"]);
}

#[test]
fn noise_is_not_written_anew() {
    let written = counts(&[("seal it", 1_000), ("open it", 2_000)]);
    let anew = counts(&[("seal it", 1_005), ("open it", 1_989), ("fold it", 3)]).without_noise(&written);
    assert_eq!(anew, counts(&[("seal it", 1_000), ("open it", 1_989), ("fold it", 3)]));
}

#[test]
fn counts_read_back_as_they_were_written() {
    let written = counts(&[("seal 1 kB, kept subkey", 1_000), ("open it", 20)]);
    assert_eq!(Counts::parse(&written.to_text()), written);
}
