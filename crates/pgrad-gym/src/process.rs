//! One worker process: started, asked, waited for with a deadline, ended.

use crate::layout::{Layout, PENDING, Trouble};
use crate::name::Source;
use crate::recipe::{PoolPlan, Recipe};
use crate::shared::{Shared, memory_file};
use crate::spaces::{Spaces, SpecText};
use crate::turns::Turns;
use pgrad_env::{Content, Picture};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What the processes run.
const WORKER: &str = include_str!("worker.py");
/// What is kept of what a process says.
const TAIL: usize = 4096;
/// Longest message of a process.
const MAX_MESSAGE: u32 = 1 << 28;
/// How long a process may take to end after it was told to by a signal, before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long it may take to exit by itself once its environments are closed.
const EXIT: Duration = Duration::from_secs(5);
/// Looks at the progress of a process, in the time that an environment has.
const SLICES: u32 = 4;
/// The answer of an EnvPool is looked for without sleeping where the last one took no longer: waking up takes
/// half as long as 16 of its CartPoles. Where it takes longer, sleeping costs little, and looking would take
/// a core from its threads.
const WATCH: Duration = Duration::from_micros(120);
/// Calls for which a process stays on a core: moving takes as long as a few of them.
const STAY: u32 = 64;
/// How long a process that hangs may take to say where.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The monotonic clock. Deadlines are the only use of time in this crate.
#[expect(
    clippy::disallowed_methods,
    reason = "a deadline needs a clock; nothing that is learnt from depends on it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

type Spawned = (Command, Sender<io::Result<Child>>);

/// Starts a process from a thread that lives as long as this one does: the kernel ends a child with the
/// *thread* that started it, and threads of a team come and go.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Option<Sender<Spawned>>>> = OnceLock::new();
    let sender = SPAWNER.get_or_init(|| {
        let (to, from) = channel::<Spawned>();
        let thread = std::thread::Builder::new().name("pgrad-gym-spawner".into()).spawn(move || {
            for (mut command, answer) in from {
                // Who asked may be gone; the child then has nobody to speak to and ends.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(thread.ok().map(|_| to))
    });
    let (answer, child) = channel();
    let lost = || io::Error::other("the thread that starts processes has died");
    let sent = match &*sender.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(to) => to.send((command, answer)).is_ok(),
        None => false,
    };
    if !sent {
        return Err(lost());
    }
    child.recv().map_err(|_| lost())?
}

/// How a process came to its end, or was brought to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Death {
    /// What happened.
    pub(crate) reason: String,
    /// The last of what it said.
    pub(crate) tail: String,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        if !self.tail.is_empty() {
            write!(f, "; its last words:\n{}", indented(&self.tail))?;
        }
        Ok(())
    }
}

/// Lines that stand out as somebody else's.
pub(crate) fn indented(text: &str) -> String {
    text.trim_end().lines().map(|l| format!("    | {l}")).collect::<Vec<_>>().join("\n")
}

/// Why no worker could be started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StartError {
    /// No process.
    Spawn { python: String, error: String, missing: bool },
    /// It ended, or did not answer.
    Death(Death),
    /// The environment cannot be made or used.
    Refused { text: String, missing: Option<String>, bad: bool, kinds: Vec<String> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Started {
    Spec { spec: Box<SpecText> },
    Failed { failed: String, missing: Option<String>, bad: bool, kinds: Vec<String> },
}

/// Half of a worker: the process is there, its environments are being made.
pub(crate) struct Starting {
    process: Process,
    source: Source,
    n: usize,
    /// Whether answers are looked for before sleeping.
    watched: bool,
    /// Whether it is a pool of one thread.
    alone: bool,
    deadline: Instant,
}

/// A worker with its environments made.
pub(crate) struct Worker {
    process: Process,
    pub(crate) shared: Shared,
    pub(crate) layout: Layout,
    pub(crate) spaces: Spaces,
    /// Who of an EnvPool's environments is whose.
    turns: Option<Turns>,
    /// Keeps the process of a pool with one thread on the core of who speaks to it: it works while that one
    /// waits, and waits while that one works. On one core that is a switch; on two, every turn wakes a core
    /// that has gone to sleep.
    near: Option<Near>,
}

/// Where a process is kept.
#[derive(Default)]
struct Near {
    core: Option<usize>,
    /// Calls until it may move again.
    settled: u32,
}

impl Near {
    /// Where the calling thread is, there the process `pid` shall be.
    fn follow(&mut self, pid: u32) {
        if self.settled > 0 {
            self.settled -= 1;
            return;
        }
        let core = sched_getcpu();
        if self.core == Some(core) || core >= CpuSet::MAX_CPU {
            return;
        }
        (self.core, self.settled) = (Some(core), STAY);
        let mut cores = CpuSet::new();
        cores.set(core);
        // What cannot be moved works where it is.
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let task = task.file_name().to_str().and_then(|t| t.parse().ok()).and_then(Pid::from_raw);
            let _ = task.map(|task| sched_setaffinity(Some(task), &cores));
        }
    }
}

/// A process, until it is dropped.
struct Process {
    child: Child,
    control: UnixStream,
    pidfd: OwnedFd,
    words: File,
    memory: File,
    tail: Vec<u8>,
    over: bool,
    /// How long to look for an answer before sleeping, where the last one was as quick.
    watch: Duration,
    quick: bool,
    /// [`oom_kills`] when it was started.
    oom_kills: Option<u64>,
}

/// What a process answered.
enum Answer {
    Ring,
    Message(Vec<u8>),
}

impl Starting {
    /// Starts a process that makes `n` environments; those of an EnvPool as `pool` says.
    ///
    /// # Errors
    /// When there is no process to be had.
    pub(crate) fn new(recipe: &Recipe, n: usize, pool: Option<PoolPlan>) -> Result<Self, StartError> {
        let settings = &recipe.settings;
        let failed = |e: &io::Error| StartError::Spawn {
            python: settings.python.clone(),
            error: e.to_string(),
            missing: matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied),
        };
        let mut process = Process::start(&settings.python).map_err(|e| failed(&e))?;
        let deadline = now() + Duration::from_secs_f64(settings.env_start_secs);
        // A process that is already gone says so when it is waited for.
        let _ = process.tell(&recipe.setup(n, pool.as_ref()));
        let (watched, alone) = pool.map_or((false, false), |pool| (pool.watched, pool.threads == 1));
        Ok(Self { process, source: recipe.source, n, watched, alone, deadline })
    }
    /// Waits until the environments are made, and shares memory with the process.
    ///
    /// # Errors
    /// When they could not be made, in the time that they have.
    pub(crate) fn finish(mut self) -> Result<(Worker, SpecText), StartError> {
        let what = "to start";
        let message = match self.process.wait(self.deadline, what).map_err(StartError::Death)? {
            Answer::Message(message) => message,
            Answer::Ring => return Err(StartError::Death(self.process.broken("an answer out of order"))),
        };
        let spec = match serde_json::from_slice(&message) {
            Ok(Started::Spec { spec }) => *spec,
            Ok(Started::Failed { failed, missing, bad, kinds }) => {
                return Err(StartError::Refused { text: failed, missing, bad, kinds });
            }
            Err(e) => return Err(StartError::Death(self.process.broken(&e.to_string()))),
        };
        let refused = |text| StartError::Refused { text, missing: None, bad: true, kinds: Vec::new() };
        let spaces = Spaces::new(&spec).map_err(refused)?;
        let layout = Layout::new(self.n, &spaces, self.source);
        let shared = Shared::new(&self.process.memory, layout.size);
        let shared = shared.map_err(|e| StartError::Spawn {
            python: "shared memory".to_owned(),
            error: e.to_string(),
            missing: false,
        })?;
        let _ = self.process.tell(&layout.json(&spaces));
        match self.process.wait(self.deadline, what).map_err(StartError::Death)? {
            Answer::Ring => {
                let turns = layout.pool.map(|pool| Turns::new(pool, &layout, &spaces, &shared));
                if self.watched {
                    self.process.watch = WATCH;
                }
                let near = self.alone.then(Near::default);
                Ok((Worker { process: self.process, shared, layout, spaces, turns, near }, spec))
            }
            Answer::Message(_) => Err(StartError::Death(self.process.broken("an answer out of order"))),
        }
    }
}

impl Worker {
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }
    /// Lets the process do what the memory asks for. [`Worker::wait`] must follow.
    pub(crate) fn ring(&mut self) {
        if let Some(turns) = &mut self.turns
            && !turns.ask(&self.shared)
        {
            return;
        }
        let pid = self.pid();
        if let Some(near) = &mut self.near {
            near.follow(pid);
        }
        // A process that is gone is found by `wait`.
        let _ = self.process.control.write_all(b"s");
    }
    /// Waits until that is done; what went wrong in environments. While there is progress (`pending` becomes
    /// fewer) the time begins anew: it is that of one environment.
    ///
    /// # Errors
    /// When the process ended, or was ended because it took too long.
    pub(crate) fn wait(&mut self, step: Duration) -> Result<Vec<Trouble>, Death> {
        if self.turns.as_ref().is_some_and(|turns| !turns.is_asked()) {
            return Ok(Vec::new());
        }
        let mut troubles = self.wait_for_process(step, "did not answer")?;
        if let Some(turns) = &mut self.turns {
            turns.settle(&self.shared, &mut troubles);
        }
        Ok(troubles)
    }
    fn wait_for_process(&mut self, step: Duration, not: &str) -> Result<Vec<Trouble>, Death> {
        // In slices, so that what hangs is found soon after its time, whatever came before it.
        let (mut pending, mut still) = (self.pending(), 0);
        loop {
            match self.process.answer(now() + step / SLICES) {
                Ok(Some(Answer::Ring)) => return Ok(Vec::new()),
                Ok(Some(Answer::Message(text))) => {
                    return serde_json::from_slice(&text).map_err(|e| self.process.broken(&e.to_string()));
                }
                Ok(None) => {
                    let left = self.pending();
                    still = if left < pending { 0 } else { still + 1 };
                    if still >= SLICES {
                        // What it still does when signals shake it is too late, and must not hide who hung.
                        let then =
                            [self.layout.status, self.layout.first_status].map(|at| (at, self.bytes(at)));
                        let death = self.process.end_hanging(&format!("{not} within {step:?}"));
                        then.iter().for_each(|(offset, bytes)| self.shared.write(*offset, bytes));
                        return Err(death);
                    }
                    pending = left;
                }
                Err(death) => return Err(death),
            }
        }
    }
    /// A byte of each environment.
    fn bytes(&self, offset: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; self.layout.n];
        self.shared.read(offset, &mut bytes);
        bytes
    }
    /// Environments that have not answered.
    fn pending(&self) -> usize {
        let status = self.bytes(self.layout.status);
        status.iter().filter(|s| **s == PENDING).count()
    }
    /// What environment `i` looks like; why there is no picture of it.
    pub(crate) fn picture(&mut self, i: usize, time: Duration) -> Result<Picture, String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shown {
            Picture { width: u32, height: u32, fps: f64 },
            Failed { failed: String },
        }
        let i = self.turns.as_ref().map_or(i, |turns| turns.active(i));
        // A process that is gone is found when it is waited for.
        let _ = self.process.control.write_all(b"p");
        let _ = self.process.tell(&serde_json::json!({ "env": i }));
        let deadline = now() + time;
        let mut message = || match self.process.wait(deadline, "to draw") {
            Ok(Answer::Message(message)) => Ok(message),
            Ok(Answer::Ring) => Err("its process answered out of order".to_owned()),
            Err(death) => Err(format!("its process {death}")),
        };
        match serde_json::from_slice(&message()?).map_err(|e| e.to_string())? {
            Shown::Failed { failed } => Err(failed),
            Shown::Picture { width, height, fps } => {
                let rgb = message()?;
                if rgb.len() as u64 != u64::from(width) * u64::from(height) * 3
                    || !(fps > 0.0 && fps.is_finite())
                {
                    let bytes = rgb.len();
                    return Err(format!("{bytes} bytes of {width} x {height} pixels, {fps} a second"));
                }
                Ok(Picture { frames_per_second: fps, content: Content::Pixels { width, height, rgb } })
            }
        }
    }
    /// Asks the process to close its environments and end. [`Worker::close`] must follow.
    pub(crate) fn leave(&mut self) {
        self.shared.write(self.layout.status, &vec![PENDING; self.layout.n]);
        // A process that is gone is found when it is waited for.
        let _ = self.process.control.write_all(b"q");
    }
    /// Waits until the environments are closed, each in the time `step`, and the process has exited as Python
    /// does, with what it cleans up then; what went wrong.
    pub(crate) fn close(mut self, step: Duration) -> Vec<Trouble> {
        let trouble = |env, text| Trouble { env, during: "close".to_owned(), bad: false, text };
        let closed = self.wait_for_process(step, "did not close it");
        let mut troubles = match closed {
            Ok(troubles) => troubles,
            Err(death) => {
                let done = self.bytes(self.layout.status);
                let env = done.iter().position(|s| *s == PENDING).unwrap_or(0);
                return vec![trouble(env, format!("its process {death}"))];
            }
        };
        if !self.process.exited_within(EXIT) {
            let death = self
                .process
                .end_hanging(&format!("did not exit within {EXIT:?} after its environments were closed"));
            troubles.push(trouble(0, format!("its process {death}")));
        }
        troubles
    }
}

impl Process {
    fn start(python: &str) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let (words, their_words) = io::pipe()?;
        let memory = memory_file()?;
        let mut command = Command::new(python);
        command
            .args(["-u", "-c", WORKER, &std::process::id().to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(memory.try_clone()?))
            .stderr(Stdio::from(OwnedFd::from(their_words)))
            // A group of its own: what is typed at the terminal reaches only us, and it can be ended as a
            // whole.
            .process_group(0);
        let child = spawn(command)?;
        let pid = Pid::from_child(&child);
        let words = File::from(OwnedFd::from(words));
        fcntl_setfl(&words, fcntl_getfl(&words)? | OFlags::NONBLOCK)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            child,
            control,
            pidfd,
            words,
            memory,
            tail: Vec::new(),
            over: false,
            watch: Duration::ZERO,
            quick: false,
            oom_kills: oom_kills(),
        })
    }
    fn tell(&mut self, value: &serde_json::Value) -> io::Result<()> {
        let text = value.to_string();
        let mut message = vec![b'm'];
        message.extend((text.len() as u32).to_le_bytes());
        message.extend(text.as_bytes());
        self.control.write_all(&message)
    }
    /// Waits for an answer, and ends the process when there is none in time.
    fn wait(&mut self, deadline: Instant, what: &str) -> Result<Answer, Death> {
        let began = now();
        match self.answer(deadline)? {
            Some(answer) => Ok(answer),
            None => {
                let seconds = (now() - began).as_secs_f64();
                Err(self.end_hanging(&format!("took more than {seconds:.1} s {what}")))
            }
        }
    }
    /// An answer; `None` at the deadline.
    fn answer(&mut self, deadline: Instant) -> Result<Option<Answer>, Death> {
        if self.watch.is_zero() {
            return self.answer_by(deadline, deadline);
        }
        let began = now();
        let answer = self.answer_by(deadline, began + if self.quick { self.watch } else { Duration::ZERO });
        self.quick = now() - began < self.watch;
        answer
    }
    /// An answer; looks for it without sleeping until `watched`, unless that is the deadline.
    fn answer_by(&mut self, deadline: Instant, watched: Instant) -> Result<Option<Answer>, Death> {
        loop {
            let watching = watched < deadline && now() < watched;
            let left = if watching { Duration::ZERO } else { deadline.saturating_duration_since(now()) };
            let timeout =
                Timespec { tv_sec: left.as_secs() as _, tv_nsec: i64::from(left.subsec_nanos()) as _ };
            let (answered, died, spoke) = {
                let mut fds = [
                    PollFd::new(&self.control, PollFlags::IN),
                    PollFd::new(&self.pidfd, PollFlags::IN),
                    PollFd::new(&self.words, PollFlags::IN),
                ];
                match poll(&mut fds, Some(&timeout)) {
                    Ok(0) if watching => {
                        std::thread::yield_now();
                        continue;
                    }
                    Ok(0) => return Ok(None),
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(e) => return Err(self.broken(&format!("cannot wait for it: {e}"))),
                    Ok(_) => {}
                }
                (!fds[0].revents().is_empty(), !fds[1].revents().is_empty(), !fds[2].revents().is_empty())
            };
            if spoke {
                self.listen();
            }
            if answered {
                let mut byte = [0u8];
                match self.control.read(&mut byte) {
                    Ok(1) if byte[0] == b'.' => return Ok(Some(Answer::Ring)),
                    Ok(1) if byte[0] == b'm' => {
                        return self.message(deadline).map(|m| Some(Answer::Message(m)));
                    }
                    Ok(1) => return Err(self.broken("it sent an invalid answer")),
                    // The end of the stream: the process closed it, or died.
                    Ok(_) | Err(_) => return Err(self.ended()),
                }
            }
            if died {
                return Err(self.ended());
            }
        }
    }
    /// The rest of a message.
    fn message(&mut self, deadline: Instant) -> Result<Vec<u8>, Death> {
        let left = deadline.saturating_duration_since(now()).max(Duration::from_secs(1));
        let read = |control: &mut UnixStream| -> io::Result<Vec<u8>> {
            control.set_read_timeout(Some(left))?;
            let mut length = [0u8; 4];
            control.read_exact(&mut length)?;
            let length = u32::from_le_bytes(length);
            if length > MAX_MESSAGE {
                return Err(io::Error::other(format!("a message of {length} bytes")));
            }
            let mut text = vec![0u8; length as usize];
            control.read_exact(&mut text)?;
            control.set_read_timeout(None)?;
            Ok(text)
        };
        read(&mut self.control).map_err(|e| self.broken(&e.to_string()))
    }
    /// Takes in what the process says, and keeps the last of it.
    fn listen(&mut self) {
        let mut piece = [0u8; 8192];
        while let Ok(n @ 1..) = self.words.read(&mut piece) {
            self.tail.extend(&piece[..n]);
            let extra = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..extra);
        }
    }
    fn tail(&mut self) -> String {
        self.listen();
        String::from_utf8_lossy(&std::mem::take(&mut self.tail)).trim().to_owned()
    }
    /// The process ended by itself, or is about to.
    fn ended(&mut self) -> Death {
        let status = self.end(LAST_WORDS);
        let mut reason = status.map_or_else(|| "ended".to_owned(), said);
        let killed = status.and_then(|s| s.signal()) == Some(Signal::KILL.as_raw());
        if killed && oom_kills().zip(self.oom_kills).is_some_and(|(now, then)| now > then) {
            reason += " (the kernel killed a process because memory ran out; use fewer environments, or \
                fewer processes with `env_workers`)";
        }
        Death { reason, tail: self.tail() }
    }
    /// The process does what it should not.
    fn broken(&mut self, what: &str) -> Death {
        self.end(Duration::ZERO);
        Death { reason: format!("broke off: {what}"), tail: self.tail() }
    }
    /// Ends a process that does not answer, after asking it where it is.
    fn end_hanging(&mut self, reason: &str) -> Death {
        self.signal(Signal::USR2);
        self.exited_within(LAST_WORDS);
        self.listen();
        self.signal(Signal::TERM);
        self.end(GRACE);
        Death { reason: reason.to_owned(), tail: self.tail() }
    }
    fn signal(&self, signal: Signal) {
        if !self.over {
            // It may be gone by now.
            let _ = kill_process_group(Pid::from_child(&self.child), signal);
        }
    }
    /// Whether the process exits within a time.
    fn exited_within(&self, time: Duration) -> bool {
        let timeout = Timespec { tv_sec: time.as_secs() as _, tv_nsec: i64::from(time.subsec_nanos()) as _ };
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        matches!(poll(&mut fds, Some(&timeout)), Ok(1..))
    }
    /// Gives the process some time to exit, kills it and all that it started, and takes leave of it.
    fn end(&mut self, time: Duration) -> Option<ExitStatus> {
        if self.over {
            return None;
        }
        self.exited_within(time);
        // Before it is waited for: as long as it is not, its number is nobody else's.
        self.signal(Signal::KILL);
        self.over = true;
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// How many processes the kernel has killed because memory was used up, if it says so.
fn oom_kills() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/vmstat").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// `exited with code 1`, `was killed by SIGSEGV`.
fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => {
            let name = match signal {
                4 => "SIGILL",
                6 => "SIGABRT",
                7 => "SIGBUS",
                8 => "SIGFPE",
                9 => "SIGKILL",
                11 => "SIGSEGV",
                15 => "SIGTERM",
                _ => return format!("was killed by signal {signal}"),
            };
            format!("was killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}
