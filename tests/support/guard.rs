use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

/// A shell that waits with `cat` for the end of its input, which comes when this value is dropped or this process
/// ends in whatever way, and then cleans up.
pub struct Guard(Child);

impl Guard {
    /// `shell` is the command "sh", to be run by the right user; the script sees `arguments` as `$1`, `$2` and so on.
    pub fn new<S: AsRef<OsStr>>(mut shell: Command, script: &str, arguments: &[S]) -> Guard {
        // An interrupt at the terminal reaches this shell too, and must not stop it.
        let script = format!("trap '' HUP INT TERM; {script}");
        shell.args(["-c", &script, "guard"]).args(arguments);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Guard(shell.spawn().expect("a shell that cleans up"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
