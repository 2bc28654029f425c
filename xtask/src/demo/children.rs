//! The processes of the demo: each writes a log, none outlives it.

use crate::{Result, shell};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time that a process has to end by itself once it is told to.
const END_SECS_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at a process.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that an error shows.
const TAIL_LINES: usize = 15;

/// Processes that end when this is dropped: the last started first.
pub(crate) struct Children {
    logs: PathBuf,
    running: Vec<Running>,
    /// Set by Ctrl-C, SIGTERM and SIGHUP. Every wait here then fails, and the way out ends the processes.
    interrupted: Arc<AtomicBool>,
}

struct Running {
    name: String,
    child: Child,
}

/// How a process ended that was waited for.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// What it wrote, both outputs together.
    pub(crate) output: String,
}

impl Children {
    /// Logs go into this directory, which must exist.
    pub(crate) fn new(logs: PathBuf) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The second Ctrl-C ends us at once; registered first, so that the first one does not count for it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self { logs, running: Vec::new(), interrupted })
    }

    /// Starts a process that runs beside us, its outputs in the log of that name. Returns its pid.
    pub(crate) fn spawn(&mut self, name: &str, command: &Command) -> Result<u32> {
        let log = File::create(self.log(name))?;
        let mut command = bound_to_us(command);
        // In a group of its own, so that Ctrl-C reaches us alone, and we end the processes in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| format!("{name}: {}: {error}", shell::display(&command)))?;
        let pid = child.id();
        self.running.push(Running { name: name.into(), child });
        Ok(pid)
    }

    /// Waits until `probe` finds the process of that name ready.
    ///
    /// # Errors
    /// If it ends before, or the time is over: with the end of its log.
    pub(crate) fn wait_ready<T>(
        &mut self,
        name: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            // Looked at first, so that what the process said before it ended still counts.
            let ended = self.exit_of(name)?;
            if let Some(ready) = probe() {
                return Ok(ready);
            }
            if let Some(status) = ended {
                return Err(self.failure(name, &format!("ended with {status} before it was ready")));
            }
            if start.elapsed() > limit {
                return Err(self.failure(name, &format!("was not ready within {} s", limit.as_secs())));
            }
            self.pause()?;
        }
    }

    /// Waits for a line of its log that has this text in it, and returns the line.
    pub(crate) fn wait_for_line(&mut self, name: &str, limit: Duration, text: &str) -> Result<String> {
        let log = self.log(name);
        self.wait_ready(name, limit, || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            // A line that is not finished may not say all.
            let finished = &said[..said.rfind('\n')?];
            finished.lines().find(|line| line.contains(text)).map(str::to_string)
        })
    }

    /// Runs a process to its end. A failure is no error here: a refusal is what some steps want to see.
    pub(crate) fn run(&mut self, name: &str, command: &Command, limit: Duration) -> Result<Finished> {
        let start = Instant::now();
        self.spawn(name, command)?;
        let status = loop {
            if let Some(status) = self.exit_of(name)? {
                break status;
            }
            if start.elapsed() > limit {
                let error = self.failure(name, &format!("did not end within {} s", limit.as_secs()));
                self.end(name)?;
                return Err(error);
            }
            self.pause()?;
        };
        self.end(name)?;
        let output = String::from_utf8_lossy(&fs::read(self.log(name))?).into_owned();
        Ok(Finished { status, output })
    }

    /// Runs a process that must succeed.
    pub(crate) fn run_ok(&mut self, name: &str, command: &Command, limit: Duration) -> Result<Finished> {
        let finished = self.run(name, command, limit)?;
        if finished.status.success() {
            Ok(finished)
        } else {
            Err(self.failure(name, &format!("ended with {}", finished.status)))
        }
    }

    /// Ends one process and all that it started.
    pub(crate) fn end(&mut self, name: &str) -> Result<()> {
        let at = self
            .running
            .iter()
            .position(|running| running.name == name)
            .ok_or_else(|| format!("{name} does not run"))?;
        self.running.remove(at).end();
        Ok(())
    }

    /// The id of a process that was started and not ended.
    pub(crate) fn pid(&self, name: &str) -> Result<u32> {
        let running = self.running.iter().find(|running| running.name == name);
        Ok(running.ok_or_else(|| format!("{name} does not run"))?.child.id())
    }

    /// Waits for Ctrl-C. Says so if one of the processes ends meanwhile.
    pub(crate) fn until_interrupted(&mut self) -> Result<()> {
        while !self.interrupted.load(Ordering::Relaxed) {
            for running in &mut self.running {
                if let Some(status) = running.child.try_wait()? {
                    let name = running.name.clone();
                    return Err(self.failure(&name, &format!("ended with {status}")));
                }
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn exit_of(&mut self, name: &str) -> Result<Option<ExitStatus>> {
        let running = self.running.iter_mut().find(|running| running.name == name);
        Ok(running.ok_or_else(|| format!("{name} does not run"))?.child.try_wait()?)
    }

    fn pause(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        thread::sleep(POLL);
        Ok(())
    }

    fn failure(&self, name: &str, what: &str) -> Box<dyn std::error::Error> {
        let log = self.log(name);
        format!("{name} {what}; the end of {}:\n{}", log.display(), shell::tail(&log, 0, TAIL_LINES)).into()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        while let Some(running) = self.running.pop() {
            running.end();
        }
    }
}

impl Running {
    fn end(mut self) {
        let pid = Pid::from_child(&self.child);
        // A process that ended already is no failure, here and below.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(pid, Signal::TERM);
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < END_SECS_MAX {
                thread::sleep(POLL);
            }
        }
        // What is left of its group: itself if it did not listen, and what it started and did not end.
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The command, told by the kernel to end should we be killed. (That is: should the thread that spawns it end.)
fn bound_to_us(command: &Command) -> Command {
    let mut bound = match shell::which("setpriv") {
        Some(setpriv) => {
            let mut bound = Command::new(setpriv);
            bound.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program());
            bound
        }
        None => Command::new(command.get_program()),
    };
    bound.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn children(name: &str) -> Children {
        let logs = std::env::temp_dir().join(format!("xtask-children-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).unwrap();
        Children::new(logs).unwrap()
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn is_running(pid: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    fn ends(pid: u32) -> bool {
        let start = Instant::now();
        while is_running(pid) && start.elapsed() < LIMIT {
            thread::sleep(POLL);
        }
        !is_running(pid)
    }

    #[test]
    fn dropping_ends_a_process_and_what_it_started() {
        let mut children = children("drop");
        let pid = children.spawn("a", &sh("sleep 600 & echo child $!; wait")).unwrap();
        let line = children.wait_for_line("a", LIMIT, "child").unwrap();
        let grandchild: u32 = line.trim_start_matches("child ").parse().unwrap();
        assert!(is_running(pid) && is_running(grandchild));
        drop(children);
        assert!(ends(pid) && ends(grandchild));
    }

    #[test]
    fn process_that_ends_early_fails_with_its_log() {
        let mut children = children("early");
        children.spawn("a", &sh("echo no such key >&2; exit 3")).unwrap();
        let error = children.wait_for_line("a", LIMIT, "ready").unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such key"), "{error}");
    }

    #[test]
    fn process_that_is_not_ready_in_time_fails() {
        let mut children = children("late");
        children.spawn("a", &sh("sleep 600")).unwrap();
        let error = children.wait_for_line("a", Duration::from_millis(100), "ready").unwrap_err().to_string();
        assert!(error.contains("not ready within"), "{error}");
    }

    #[test]
    fn refusal_is_a_result_and_its_output_is_kept() {
        let mut children = children("refusal");
        let finished = children.run("a", &sh("echo wrong-pcr; exit 4"), LIMIT).unwrap();
        assert_eq!((finished.status.code(), finished.output.as_str()), (Some(4), "wrong-pcr\n"));
        assert!(children.run_ok("a", &sh("exit 4"), LIMIT).is_err());
        assert!(children.run("a", &sh("sleep 600"), Duration::from_millis(100)).is_err());
        assert!(children.running.is_empty());
    }

    #[test]
    fn interrupt_ends_every_wait() {
        let mut children = children("interrupt");
        children.spawn("a", &sh("sleep 600")).unwrap();
        children.interrupted.store(true, Ordering::Relaxed);
        assert_eq!(children.wait_for_line("a", LIMIT, "ready").unwrap_err().to_string(), "interrupted");
        children.until_interrupted().unwrap();
    }
}
