"""The small process between Ralph and what it runs: starts one job at a time and leaves nothing of it alive.

Run as a script, `python -I -S supervisor.py FD`, with one end of a socket pair as FD; `process.py` holds the other end.
It has a session of its own and takes no notice of the signals meant for Ralph. On Linux it is child subreaper: whatever
a job leaves behind, daemonised or not, becomes its child, so it can be found and killed. When the socket is closed, or
Ralph is gone in whatever way, it kills the job's whole tree and ends; when it is itself killed, the kernel kills the job.

A request is a length (4 bytes, big endian) and fields joined by NUL, which no argument or path can contain:
    start CWD STDIN STDOUT STDERR LIMITS ARGC ARGV... NAME=VALUE...   ->  started PID | failed STAGE ERRNO TEXT
    signal NUMBER                                                     (to the job's process group)
    kill                                                              (all of the tree, at once)
Answers are lines. After `started` come `exited CODE`, at once when the job itself has ended, and, when the rest of its
tree is dead too, `gone COUNT PID...`: how many were left over, and which of them could not be killed.

Only the standard library, and as little of it as will do: this file is on the path of every start of Ralph. (json alone
would double the time that its imports take.)
"""

# ruff: noqa: PTH118, PTH208, PTH110, S606
# (pathlib alone would take a third of the start-up time; and to execute is the purpose)

import os
import select
import signal
import sys
import time
from _collections_abc import Callable, Iterator  # loaded already; collections.abc would load collections

PATIENCE = 2.0
"""Seconds after which a process that SIGKILL has not ended (it sleeps in the kernel, or belongs to root) is given up."""

DEAF_TO = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE")
"""Signals that a service manager or a terminal sends to all processes of Ralph's; the answer is Ralph's to give."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    """Do what the kernel can; elsewhere than on Linux, or without ctypes, the process group is all that is killed."""
    if not _PRCTL:  # looked up once, before there is a job: it takes longer than all else that a job's process does
        _PRCTL.append(_function())
    _PRCTL[0](option, value, 0, 0, 0)


_PRCTL: list[Callable[..., object]] = []


def _function() -> Callable[..., object]:
    try:
        import ctypes  # needed for this alone

        function = ctypes.CDLL(None).prctl
        function.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    except (ImportError, OSError, AttributeError):
        return lambda *_: (
            None
        )  # not Linux, or a Python without ctypes: what is left is the socket and the process group
    return function


# --- the process table ------------------------------------------------------------------------------------------------


def newest_first() -> Iterator[int]:
    """All process ids, the newest first and again as long as they change.

    A chain of processes that each fork and end lives some 150 µs a link, less than it takes to list /proc. The kernel
    tells the last id that it gave in 30 µs, which is soon enough to catch the link that has it.
    """
    try:
        last = b""
        for _ in range(20):
            if last != (last := read("/proc/loadavg").split()[-1]):
                yield int(last)
        yield from sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)
    except OSError:
        return  # not Linux


def read(path: str) -> bytes:
    """The first 4 KiB of a file in /proc; quicker than a file object."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def stat_of(pid: int) -> tuple[int, int, bool, str] | None:
    """Parent, process group, whether it is alive, and start time in clock ticks; None: there is no such process."""
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        # A leader that has ended while threads of it run is shown as a zombie too, but does its work.
        alive = fields[0] not in b"ZX" or int(fields[17]) > 1
        return int(fields[1]), int(fields[2]), alive, fields[19].decode()
    except (OSError, IndexError):
        return None


def send(target: int, number: int) -> None:
    """Send a signal to a process, or a group if negative; one that is gone or not ours is no error."""
    if target not in {0, -1, 1}:  # to these, kill(2) means something else
        try:
            os.kill(target, number)
        except OSError:
            pass


# --- the job's side of the fork ---------------------------------------------------------------------------------------


def become(orders: int, report: int, supervisor: int, ignored: list[int]) -> None:
    """Wait in this freshly forked process for a job, and turn into it; never returns.

    The fields of the job come from `orders`, up to its end; what goes wrong is written to `report`.
    """
    stage = b"set-up"
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            return  # it died before the line above took effect
        for each in ignored:  # what is caught is set back by exec
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        job = b""
        while more := os.read(orders, 1 << 16):
            job += more
        if not job:
            return  # there is none
        cwd, stdin, stdout, stderr, limits, count, *rest = job.split(b"\0")
        argv, env = rest[: int(count)], dict(item.split(b"=", 1) for item in rest[int(count) :])
        stage = b"files"
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        # Appending, so that a script's `echo > /dev/stderr`, which truncates the file, leaves no hole in it.
        os.dup2(os.open(stdout, os.O_WRONLY | os.O_APPEND), 1)
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_APPEND), 2)
        stage = b"cwd"
        os.chdir(cwd)
        stage = b"limits"
        limit(limits.split())
        stage = b"exec"
        execute(argv, env)
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        os.write(report, b"%s %d %s" % (stage, number, str(error).encode(errors="replace")))
    finally:
        os._exit(127)


def limit(limits: list[bytes]) -> None:
    """Set limits such as `RLIMIT_AS=1000000`, never above what is allowed already."""
    if not limits:
        return
    import resource  # in the child, and only where limits are asked for

    for item in limits:
        name, _, value = item.decode().partition("=")
        which, soft = getattr(resource, name), int(value)
        hard = soft + 5 if name == "RLIMIT_CPU" else soft  # SIGXCPU first, which can be caught; then SIGKILL
        allowed = resource.getrlimit(which)[1]
        if allowed != resource.RLIM_INFINITY:
            soft, hard = min(soft, allowed), min(hard, allowed)
        resource.setrlimit(which, (soft, hard))


def execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """Execute `argv` with the environment `env`, found on the PATH of `env`. Returns only by raising.

    `os.execvpe` does the same, but imports `warnings` on its way.
    """
    name = argv[0]
    if b"/" in name:
        os.execve(name, argv, env)
    refused: OSError | None = None
    for folder in env.get(b"PATH", os.defpath.encode()).split(b":"):
        try:
            os.execve(os.path.join(folder, name), argv, env)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            refused = refused or error
    raise refused or FileNotFoundError(2, "not found on PATH")


# --- the supervisor's side --------------------------------------------------------------------------------------------


class Keeper:
    """Has at most one job, and kills everything that descends from it."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.me, self.parent = os.getpid(), os.getppid()
        self.job = 0
        self.spare = (
            0,
            -1,
            -1,
        )  # a process that waits for its job: its id, where it takes it from, and where it reports
        self.ignored = [number for number in range(1, signal.NSIG) if signal.getsignal(number) is signal.SIG_IGN]
        self.immortal: set[int] = set()  # what was given up; it delays nothing a second time

    def serve(self) -> None:
        """Do what is asked until the channel is closed or the parent is gone."""
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.tell(b"ready")  # the import of ctypes that follows needs some ms, in which Ralph has other things to do
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        # The second belt: a process that Ralph forked without exec would hold the socket open after Ralph's death. This
        # signal also comes when the thread that started us ends, so it only makes us look.
        prctl(PR_SET_PDEATHSIG, signal.SIGCHLD)
        poller = select.poll()
        poller.register(woken, select.POLLIN)
        poller.register(self.channel, select.POLLIN)
        inbox = b""
        while os.getppid() == self.parent:
            if not self.job and not self.spare[0]:
                self.prepare()
            ready = {number for number, _ in poller.poll()}
            if woken in ready:
                os.read(woken, 4096)
                job = self.job
                self.reap()
                if job and not self.job:
                    self.sweep(job)
            if self.channel in ready:
                more = os.read(self.channel, 1 << 20)
                if not more:
                    return
                inbox = self.obey(inbox + more)

    def obey(self, inbox: bytes) -> bytes:
        """Carry out the requests that are whole; returns the rest."""
        while len(inbox) >= 4 and len(inbox) - 4 >= (size := int.from_bytes(inbox[:4], "big")):
            verb, _, rest = inbox[4 : 4 + size].partition(b"\0")
            inbox = inbox[4 + size :]
            if verb == b"start":
                self.start(rest)
            elif verb == b"signal" and self.job:
                send(-self.job, int(rest))
            elif verb == b"kill" and self.job:
                self.sweep(self.job)
        return inbox

    def tell(self, line: bytes) -> None:
        try:
            os.write(self.channel, line + b"\n")
        except OSError:
            pass  # nobody listens: the next read says so

    def prepare(self) -> str:
        """Fork the process of the next job, while nobody waits for it; why not, if that can't be done."""
        orders, order = os.pipe()
        reader, report = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            for each in (orders, order, reader, report):
                os.close(each)
            return f"fork {error.errno or 0} {error}"
        if not pid:
            for each in (self.channel, order, reader):
                os.close(each)
            become(orders, report, self.me, self.ignored)
        os.close(orders)
        os.close(report)
        self.spare = pid, order, reader
        return ""

    def dismiss(self) -> int:
        """Have no process any more that waits for a job; the id that it had, or 0."""
        pid, order, reader = self.spare
        if pid:
            self.spare = (0, -1, -1)
            os.close(order)
            os.close(reader)
        return pid

    def start(self, job: bytes) -> None:
        """Start a job; it runs when the answer is `started`, since exec has closed the pipe by which it reports."""
        if not self.spare[0] and (failure := self.prepare()):
            self.tell(b"failed " + failure.encode())
            return
        pid, order, reader = self.spare
        self.spare = (0, -1, -1)
        try:
            while job:
                job = job[os.write(order, job) :]
        except OSError:
            pass  # it was killed while it waited: it is reported as started, and then as killed
        os.close(order)
        report = os.read(reader, 4096)
        os.close(reader)
        if report:
            os.waitpid(pid, 0)
            self.tell(b"failed " + report.replace(b"\n", b" "))
        else:
            self.job = pid
            self.tell(b"started %d" % pid)

    def reap(self) -> bool:
        """Take leave of children that have ended, reporting the job; returns whether there is any left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            self.immortal.discard(pid)
            if pid == self.spare[0]:
                self.dismiss()
            if pid == self.job:
                self.job = 0
                self.tell(b"exited %d" % os.waitstatus_to_exitcode(status))

    def sweep(self, job: int) -> None:
        """Kill and reap all descendants, and report; `job` is not counted among what was left over."""
        met: set[int] = set()
        deadline, pause, quiet = time.monotonic() + PATIENCE, 0.001, 0
        while self.reap() and quiet < 3:
            found = self.freeze(job)
            met |= found
            self.strike(signal.SIGKILL, job)
            quiet = quiet + 1 if self.immortal and not found else 0
            if time.monotonic() > deadline:
                self.immortal |= found
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        self.job = 0
        stuck = b" ".join(b"%d" % pid for pid in sorted(met & self.immortal))
        self.tell(b"gone %d %s" % (len(met - {job}), stuck))

    def freeze(self, job: int) -> set[int]:
        """Stop the descendants, until a look finds nobody new: stopped, they can't fork away while they are killed."""
        found: set[int] = set()
        for _ in range(20):
            fresh = self.strike(signal.SIGSTOP, job) - found
            found |= fresh
            if not fresh:
                break
        return found

    def strike(self, number: int, job: int) -> set[int]:
        """Send a signal to each live descendant the moment it is seen; returns their ids, without those given up.

        Its process group gets it too: for a group the kernel leaves no gap between a fork and the signal. All members of
        such a group descend from the job, because the job began a session.
        """
        known = {0: False, 1: False, self.me: True}
        found: set[int] = set()
        groups: set[int] = set()
        if not os.path.exists("/proc/self/stat"):
            send(-job, number)
        for pid in newest_first():
            stat = stat_of(pid)
            if stat is None or pid == self.me or not stat[2] or not descends(pid, known):
                continue
            if stat[1] not in groups:
                groups.add(stat[1])
                send(-stat[1], number)
            send(pid, number)
            if pid not in self.immortal:
                found.add(pid)
        return found


def descends(pid: int, known: dict[int, bool]) -> bool:
    """Whether the line of its parents leads to one that is known to belong; what is learnt is added to `known`."""
    line: list[int] = []
    while pid not in known and (stat := stat_of(pid)):
        line.append(pid)
        pid = stat[0]
    known.update(dict.fromkeys(line, answer := known.get(pid, False)))
    return answer


def main() -> None:
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    for name in DEAF_TO:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    keeper = Keeper(channel)
    try:
        keeper.serve()
    except OSError:
        pass  # the channel broke: the same as closed
    finally:
        if waiting := keeper.dismiss():
            send(waiting, signal.SIGKILL)
            os.waitpid(waiting, 0)
        keeper.sweep(keeper.job)


if __name__ == "__main__":
    main()
