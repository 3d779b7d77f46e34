"""Real processes, killed in every way that came to mind. Whatever is started here also ends by itself within a minute."""

import asyncio
import gc
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from ralph_core.contracts import LINE_LIMIT, Command, SpawnError
from ralph_core.errors import StoreError
from ralph_core.processes.job import ProcessLimits
from ralph_core.processes.process import Supervisor
from ralph_core.processes.survivors import kill_survivors, process_identity

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guarantees tested here are Linux's")

RUN = f"test-{os.getpid()}"  # what runs in parallel must not be taken for survivors of ours
SOON = ((signal.SIGTERM, 0.2),)
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
DAEMONISE = """
import os, sys, time
def note(pid):
    with open(sys.argv[1], "a") as file:
        file.write(f"{pid}\\n")
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            note(os.getpid())
            time.sleep(60)
        os._exit(0)
"""


def run(scenario, *, limit=60):
    return asyncio.run(asyncio.wait_for(scenario, limit))


def python(code, *arguments, **options):
    options = {"env": ENV, "cwd": "/", **options}
    return Command((sys.executable, "-I", "-S", "-c", code, *map(str, arguments)), **options)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def waiting_of(supervisor, other_than=0):
    """The process that waits to become the next job, as soon as there is one."""
    for _ in range(1000):
        if (found := children_of(supervisor.pid)) and other_than not in found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("no process waits")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(condition, *, limit=15.0):
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + limit
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return result


async def until_async(condition, *, limit=15.0):
    deadline = time.monotonic() + limit
    while not (result := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110 -- it watches another process
        await asyncio.sleep(0.01)
    return result


def numbers(path, count):
    """The pids that were noted in the file, once there are `count` of them."""
    read = lambda: [int(line) for line in path.read_text().split()] if path.exists() else []  # noqa: E731
    assert until(lambda: len(read()) >= count), f"{path} has {read()}"
    return read()


async def finished(command, folder, **options):
    """Run one command to its end: its lines, its exit and the job."""
    async with await Supervisor.open(RUN) as supervisor:
        job = await supervisor.start(command, output=folder / "out", **options)
        lines = [line async for line in job.lines()]
        return lines, await job.wait(), job


def lines_of(code, folder, *arguments):
    return run(finished(python(code, *arguments), folder))[0]


class TestLines:
    def test_lines_come_without_their_ends_and_all_is_on_disk(self, tmp_path):
        lines, end, _ = run(finished(python("print('one'); print(); print('three')"), tmp_path))
        assert lines == [b"one", b"", b"three"]
        assert Path(end.output).read_bytes() == b"one\n\nthree\n"

    def test_files_are_private_even_if_they_were_not_before(self, tmp_path):
        (tmp_path / "out").write_text("old")
        (tmp_path / "out").chmod(0o644)
        lines, _, _ = run(finished(python("print('new')"), tmp_path))
        assert lines == [b"new"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}

    def test_a_last_line_without_an_end_is_delivered(self, tmp_path):
        assert lines_of("import sys; sys.stdout.write('a\\nb')", tmp_path) == [b"a", b"b"]

    def test_no_output_is_no_line(self, tmp_path):
        assert lines_of("pass", tmp_path) == []

    def test_invalid_utf8_and_nul_pass_untouched(self, tmp_path):
        raw = bytes(range(256)).replace(b"\n", b"") + "漢🙂".encode()
        assert lines_of(f"import os; os.write(1, {raw!r} + b'\\n')", tmp_path) == [raw]

    def test_a_line_of_5_mb_comes_whole_between_its_neighbours(self, tmp_path):
        code = "import sys; sys.stdout.write('a\\n' + 'x' * 5_000_000 + 'y\\n' + 'b\\n')"
        first, middle, last = lines_of(code, tmp_path)
        assert (first, last) == (b"a", b"b")
        assert middle == b"x" * 5_000_000 + b"y"

    def test_a_line_over_the_limit_is_cut_and_the_next_one_whole(self, tmp_path):
        code = f"import sys\nfor _ in range(35): sys.stdout.write('x' * {2**20})\nprint(); print('next'); print('z' * {LINE_LIMIT + 9}, end='')"
        first, second, last = lines_of(code, tmp_path)
        assert (len(first), second, len(last)) == (LINE_LIMIT, b"next", LINE_LIMIT)

    def test_a_line_written_in_pieces_is_one_line(self, tmp_path):
        code = "import os, time\nfor c in b'abc\\nd\\n': os.write(1, bytes([c])); time.sleep(0.03)"
        assert lines_of(code, tmp_path) == [b"abc", b"d"]

    def test_lines_arrive_while_the_process_runs(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(
                    python("import time; print('early', flush=True); time.sleep(60)"), output=tmp_path / "out"
                )
                async with aclosing(job.lines()) as lines:
                    assert await anext(lines) == b"early"
                assert not job.ended
                await job.stop(now=True)

        run(scenario(), limit=30)

    def test_closed_stdout_does_not_end_the_process(self, tmp_path):
        code = "import os, time; os.write(1, b'x\\n'); os.close(1); os.close(2); time.sleep(0.5); os._exit(7)"
        lines, end, _ = run(finished(python(code), tmp_path))
        assert (lines, end.code) == ([b"x"], 7)

    def test_a_lingering_child_that_writes_on_holds_nothing_up(self, tmp_path):
        code = """
import os, time
os.write(1, b'result\\n')
if os.fork() == 0:
    for _ in range(600):
        time.sleep(0.1)
        os.write(1, b'late\\n')
"""
        began = time.monotonic()
        lines, end, job = run(finished(python(code), tmp_path))
        assert time.monotonic() - began < 20
        assert (lines[0], end.code, job.leftovers) == (b"result", 0, 1)

    def test_a_file_truncated_by_the_job_is_read_on_from_its_new_beginning(self, tmp_path):
        code = "import os, time; os.write(1, b'before it\\n'); time.sleep(0.7); os.truncate('/dev/stdout', 0); os.write(1, b'after\\n')"
        assert lines_of(code, tmp_path) == [b"before it", b"after"]

    def test_output_stays_readable_when_the_job_deletes_the_file(self, tmp_path):
        code = "import os, sys; os.unlink(sys.argv[1]); print('still here')"
        assert lines_of(code, tmp_path, tmp_path / "out") == [b"still here"]

    def test_a_second_reader_gets_everything(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(python("print('a'); print('b')"), output=tmp_path / "out")
                assert [line async for line in job.lines()] == [b"a", b"b"]
                assert [line async for line in job.lines()] == [b"a", b"b"]

        run(scenario())

    def test_200_mb_stream_through_bounded_memory(self, tmp_path):
        program = f"""
import asyncio, resource, sys
from pathlib import Path
from ralph_core.contracts import Command
from ralph_core.processes.process import Supervisor
WRITER = "import os; block = (b'x' * 99 + b'\\\\n') * 10_000\\nfor _ in range(200): os.write(1, block)"
async def main():
    async with await Supervisor.open("big") as supervisor:
        command = Command((sys.executable, "-I", "-S", "-c", WRITER), {{}}, "/")
        job = await supervisor.start(command, output=Path({str(tmp_path / "out")!r}))
        size = 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async for line in job.lines():
            size += len(line) + 1
        print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, (await job.wait()).code)
asyncio.run(main())
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        size, grown, code = map(int, done.stdout.split())
        assert (size, code) == (200_000_000, 0)
        assert grown < 20_000  # KiB


class TestExit:
    @pytest.mark.parametrize("code", [0, 1, 42, 255])
    def test_the_code_is_reported(self, tmp_path, code):
        assert run(finished(python(f"import os; os._exit({code})"), tmp_path))[1].code == code

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
    def test_a_signal_is_reported_as_its_negative(self, tmp_path, number):
        end = run(finished(python(f"import os; os.kill(os.getpid(), {int(number)})"), tmp_path))[1]
        assert (end.code, end.words) == (-number, f"killed by {number.name}")

    def test_the_end_of_stderr_is_kept(self, tmp_path):
        code = "import os; os.write(2, b'a' * 20_000 + b'\\xff\\nthe end')"
        end = run(finished(python(code), tmp_path))[1]
        assert end.stderr.endswith("a\ufffd\nthe end")
        assert len(end.stderr) == 8192
        assert (tmp_path / "out.err").stat().st_size == 20_009

    def test_stdout_and_stderr_reopened_with_truncation_leave_no_holes(self, tmp_path):
        command = Command(("sh", "-c", "echo 1234567 >&2; echo 2 >/dev/stderr; echo 3 >&2"), ENV, "/")
        assert run(finished(command, tmp_path))[1].stderr == "2\n3\n"


class TestStdin:
    def test_1_mb_arrives_byte_identical_and_then_ends(self, tmp_path):
        data = os.urandom(1_000_000)
        code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data)"
        _, end, _ = run(finished(python(code, stdin=data), tmp_path))
        assert Path(end.output).read_bytes() == data
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.err"]

    @pytest.mark.parametrize("stdin", [None, b""])
    def test_nothing_is_end_of_file_at_once(self, tmp_path, stdin):
        lines, _, _ = run(finished(python("import sys; print(len(sys.stdin.read()))", stdin=stdin), tmp_path))
        assert lines == [b"0"]

    def test_a_process_that_never_reads_it_holds_nothing_up(self, tmp_path):
        assert run(finished(python("print('done')", stdin=b"x" * 3_000_000), tmp_path))[0] == [b"done"]


ECHO = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    print("heard", line, end="", flush=True)
    if line.strip() == "cancel":
        break
print("over", flush=True)
"""


class TestConversation:
    """Standard input that stays open, for protocols."""

    @staticmethod
    def talk(command, scenario, tmp_path):
        """Start the command, and give the job to the scenario."""

        async def begin():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(command, output=tmp_path / "out")
                return await scenario(job), await job.wait()

        return run(begin())

    def test_question_and_answer_until_the_input_is_closed(self, tmp_path):
        async def scenario(job):
            heard = []
            async with aclosing(job.lines()) as lines:
                async for line in lines:
                    heard.append(line)
                    if len(heard) < 3:
                        await job.write(b"%d\n" % len(heard))
                    elif len(heard) == 3:
                        job.close_input()
            return heard

        heard, end = self.talk(python(ECHO, converses=True), scenario, tmp_path)
        assert heard == [b"ready", b"heard 1", b"heard 2", b"over"]
        assert end.code == 0
        assert Path(end.output).read_bytes().splitlines() == heard
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.err"]

    def test_3_mb_arrive_byte_identical_at_a_reader_that_is_slow_to_begin(self, tmp_path):
        data = os.urandom(3_000_000)
        code = "import sys, time; time.sleep(0.5); sys.stdout.buffer.write(sys.stdin.buffer.read())"

        async def scenario(job):
            await job.write(data)
            job.close_input()

        _, end = self.talk(python(code, converses=True), scenario, tmp_path)
        assert Path(end.output).read_bytes() == data

    @pytest.mark.parametrize(
        "code", ["import time; time.sleep(0.5)", "import os; os.close(0); import time; time.sleep(0.5)"]
    )
    def test_a_process_that_never_reads_holds_nothing_up_once_it_is_gone(self, tmp_path, code):
        async def scenario(job):
            await job.write(b"x" * 3_000_000)
            await job.wait()
            await job.write(b"more")

        assert self.talk(python(code, converses=True), scenario, tmp_path)[1].code == 0

    def test_it_is_told_before_it_is_signalled_and_may_end_by_that(self, tmp_path):
        async def scenario(job):
            async with aclosing(job.lines()) as lines:
                assert await anext(lines) == b"ready"
                job.farewell = b"cancel\n"
                await job.stop()

        stop = ((0, 30.0), (signal.SIGTERM, 30.0))
        _, end = self.talk(python(ECHO, converses=True, stop=stop), scenario, tmp_path)
        assert (end.code, Path(end.output).read_text()) == (0, "ready\nheard cancel\nover\n")

    def test_one_that_does_not_listen_is_signalled_all_the_same(self, tmp_path):
        async def scenario(job):
            job.farewell = b"cancel\n"
            writing = asyncio.ensure_future(job.write(b"x" * 3_000_000))
            await asyncio.sleep(0.1)
            await job.stop()
            await writing

        code = "import time; time.sleep(60)"
        _, end = self.talk(python(code, converses=True, stop=((0, 0.1), (signal.SIGTERM, 30.0))), scenario, tmp_path)
        assert end.code == -signal.SIGTERM

    def test_killed_at_once_it_is_not_told(self, tmp_path):
        async def scenario(job):
            async with aclosing(job.lines()) as lines:
                await anext(lines)
            job.farewell = b"cancel\n"
            await job.stop(now=True)

        _, end = self.talk(python(ECHO, converses=True), scenario, tmp_path)
        assert (end.code, Path(end.output).read_text()) == (-signal.SIGKILL, "ready\n")

    def test_50_of_them_leak_no_descriptor(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                for number in range(50):
                    job = await supervisor.start(python("pass", converses=True), output=tmp_path / f"out{number % 3}")
                    await job.wait()
                    if number == 5:
                        before = len(os.listdir("/proc/self/fd"))
                return len(os.listdir("/proc/self/fd")) - before

        assert run(scenario()) == 0

    def test_a_place_where_no_pipe_can_be_is_named(self, tmp_path):
        (tmp_path / "out.in").mkdir()

        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                await supervisor.start(python("pass", converses=True), output=tmp_path / "out")

        with pytest.raises(StoreError, match=r"can't make the pipe .*out\.in"):
            run(scenario())


class TestSpawnErrors:
    def refused(self, tmp_path, *argv, cwd="/", env=ENV):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                with pytest.raises(SpawnError) as caught:
                    await supervisor.start(Command(argv, env, str(cwd)), output=tmp_path / "out")
                job = await supervisor.start(python("print('works')"), output=tmp_path / "out")
                assert [line async for line in job.lines()] == [b"works"]
            return str(caught.value)

        return run(scenario())

    def test_unknown_program(self, tmp_path):
        assert "'no-such-agent': not found on PATH" in self.refused(tmp_path, "no-such-agent")

    def test_unknown_path(self, tmp_path):
        assert "no such file" in self.refused(tmp_path, str(tmp_path / "nothing"))

    def test_the_path_searched_is_the_commands_own(self, tmp_path):
        assert "not found on PATH (/nowhere)" in self.refused(tmp_path, "sh", env={"PATH": "/nowhere"})

    def test_file_that_is_not_executable(self, tmp_path):
        (tmp_path / "agent").write_text("#!/bin/sh\n")
        message = self.refused(tmp_path, "agent", env={"PATH": f"/nowhere:{tmp_path}"})
        assert f"{tmp_path}/agent is not executable" in message

    def test_directory(self, tmp_path):
        assert "not executable" in self.refused(tmp_path, str(tmp_path))

    def test_missing_interpreter_is_named(self, tmp_path):
        (tmp_path / "agent").write_text("#!/opt/gone/node\n")
        (tmp_path / "agent").chmod(0o755)
        assert "interpreter that is missing: /opt/gone/node" in self.refused(tmp_path, str(tmp_path / "agent"))

    def test_script_without_interpreter_line(self, tmp_path):
        (tmp_path / "agent").write_text("echo\n")
        (tmp_path / "agent").chmod(0o755)
        assert "#! line" in self.refused(tmp_path, "./agent", cwd=tmp_path)

    def test_missing_working_directory(self, tmp_path):
        message = self.refused(tmp_path, "sh", cwd=tmp_path / "gone")
        assert f"working directory '{tmp_path}/gone': No such file" in message

    def test_argument_too_long(self, tmp_path):
        assert "too long" in self.refused(tmp_path, "echo", "x" * 200_000)

    def test_nul_in_an_argument(self, tmp_path):
        assert "NUL" in self.refused(tmp_path, "echo", "a\0b")

    def test_empty_command(self, tmp_path):
        assert "can't start ''" in self.refused(tmp_path)

    def test_output_that_cannot_be_created_names_the_path(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                (tmp_path / "file").write_text("")
                with pytest.raises(StoreError, match=f"{tmp_path}/file/out: "):
                    await supervisor.start(python("pass"), output=tmp_path / "file" / "out")
                with pytest.raises(StoreError, match=f"{tmp_path}: "):
                    await supervisor.start(python("pass"), output=tmp_path / "out", errors=tmp_path)
                await (await supervisor.start(python("pass"), output=tmp_path / "out")).wait()

        run(scenario())


class TestSurroundings:
    def seen(self, tmp_path, code, **options):
        lines, _, _ = run(finished(python(f"import json, os, signal\nprint(json.dumps({code}))"), tmp_path, **options))
        return json.loads(lines[0])

    def test_the_environment_is_exactly_the_one_given_and_the_marker(self, tmp_path):
        command = Command(("/usr/bin/env", "-0"), {"A": "1\n2", "B": "", "C": "x=y", "D": "\udcff"}, "/")
        _, end, _ = run(finished(command, tmp_path))
        given = set(Path(end.output).read_bytes().split(b"\0")) - {b""}
        assert given == {b"A=1\n2", b"B=", b"C=x=y", b"D=\xff", f"RALPH_RUN_ID={RUN}".encode()}

    def test_arguments_and_directory_pass_untouched(self, tmp_path):
        (tmp_path / "漢 字").mkdir()
        code = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd()]))"
        command = python(code, "", "a\nb", "'\"$x", "\udcfe", cwd=str(tmp_path / "漢 字"))
        assert json.loads(run(finished(command, tmp_path))[0][0]) == [["", "a\nb", "'\"$x", "\udcfe"], command.cwd]

    def test_no_descriptor_leaks_into_the_job(self, tmp_path):
        with open("/dev/null", "rb") as extra:
            os.set_inheritable(extra.fileno(), True)
            code = "[n for n in sorted(map(int, os.listdir('/proc/self/fd'))) if os.path.exists(f'/proc/self/fd/{n}')]"
            assert self.seen(tmp_path, code) == [0, 1, 2]

    def test_signals_are_at_their_defaults(self, tmp_path):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            command = Command(("cat", "/proc/self/status"), ENV, "/")
            lines, _, _ = run(finished(command, tmp_path))
        finally:
            signal.signal(signal.SIGHUP, before)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        masks = {
            line[:6]: int(line[7:], 16) for line in lines if line[:6] in {b"SigPnd", b"SigBlk", b"SigIgn", b"SigCgt"}
        }
        # 31 and 32 are the C library's own; posix_spawn, which make uses, leaves one of them ignored.
        masks = {name: mask & ~(0b11 << 31) for name, mask in masks.items()}
        assert masks == {b"SigPnd": 0, b"SigBlk": 0, b"SigIgn": 0, b"SigCgt": 0}

    def test_the_job_leads_a_session_and_has_no_terminal(self, tmp_path):
        code = "[os.getsid(0) == os.getpid() == os.getpgrp(), [os.isatty(n) for n in range(3)]]"
        assert self.seen(tmp_path, code) == [True, [False] * 3]

    def test_limits_hold_in_the_job_and_not_in_ralph(self, tmp_path):
        before = [resource.getrlimit(which) for which in range(10)]
        limits = ProcessLimits(memory_bytes=2**30, cpu_seconds=30, file_bytes=2**20, processes=5000)
        names = ("AS", "CPU", "FSIZE", "NPROC")
        code = f"[__import__('resource').getrlimit(getattr(__import__('resource'), 'RLIMIT_' + n))[0] for n in {names}]"
        assert self.seen(tmp_path, code, limits=limits) == [2**30, 30, 2**20, 5000]
        assert [resource.getrlimit(which) for which in range(10)] == before

    def test_output_over_the_file_limit_ends_the_job_and_is_kept_up_to_there(self, tmp_path):
        limits = ProcessLimits(file_bytes=100_000)
        _, end, _ = run(finished(Command(("yes",), ENV, "/"), tmp_path, limits=limits), limit=30)
        assert end.words == "killed by SIGXFSZ"
        assert Path(end.output).stat().st_size == 100_000

    def test_limits_that_cannot_be_set_are_named(self, tmp_path):
        with pytest.raises(SpawnError, match="limits"):
            run(finished(python("pass"), tmp_path, limits=ProcessLimits(cpu_seconds=2**70)))


class TestStop:
    def stopped(self, tmp_path, command, *, pids=0, now=False):
        """Start, wait until the pids are noted, stop: seconds that took, the job, the pids."""
        noted = tmp_path / "pids"

        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(command, output=tmp_path / "out")
                found = await asyncio.to_thread(numbers, noted, pids) if pids else []
                began = time.monotonic()
                await job.stop(now=now)
                took = time.monotonic() - began
                assert not [pid for pid in (job.pid, *found) if alive(pid)]
                await job.stop()
                return took, job, found, await job.wait()

        return run(scenario())

    def test_it_is_asked_first_in_the_order_the_command_says(self, tmp_path):
        code = """
import os, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: print("int", flush=True))
signal.signal(signal.SIGTERM, lambda *_: (print("term", flush=True), sys.exit(3)))
open(sys.argv[1], "w").write(str(os.getpid()))
while True: time.sleep(0.01)
"""
        stop = ((signal.SIGINT, 0.3), (signal.SIGTERM, 30.0))
        took, _, _, end = self.stopped(tmp_path, python(code, tmp_path / "pids", stop=stop), pids=1)
        assert Path(end.output).read_text() == "int\nterm\n"
        assert end.code == 3
        assert 0.3 <= took < 20  # not the whole of the second grace

    def test_the_whole_group_is_asked(self, tmp_path):
        code = f"echo $$ >> {tmp_path}/pids; (trap 'echo child; exit' TERM; while :; do sleep 0.01; done) & wait"
        stop = ((signal.SIGTERM, 0.5),)
        *_, end = self.stopped(tmp_path, Command(("sh", "-c", code), ENV, "/", stop=stop), pids=1)
        assert end.code == -signal.SIGTERM

    def test_now_does_not_ask(self, tmp_path):
        code = "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: print('asked'))\nopen(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
        command = python(code, tmp_path / "pids", stop=((signal.SIGTERM, 30.0),))
        took, _, _, end = self.stopped(tmp_path, command, pids=1, now=True)
        assert (end.code, Path(end.output).read_bytes()) == (-signal.SIGKILL, b"")
        assert took < 5

    def test_daemonised_grandchildren_of_one_that_ignores_term_die(self, tmp_path):
        code = (
            DAEMONISE
            + "import signal; signal.signal(15, signal.SIG_IGN); daemon(); daemon(); note(os.getpid()); time.sleep(60)"
        )
        took, job, found, _ = self.stopped(tmp_path, python(code, tmp_path / "pids"), pids=3)
        assert took < 5
        assert (len(found), job.leftovers, job.unkillable) == (3, 2, ())

    @pytest.mark.parametrize("session", [False, True], ids=["same group", "each in a session of its own"])
    def test_a_chain_that_keeps_forking_dies(self, tmp_path, session):
        code = (
            DAEMONISE
            + f"""
import signal
signal.signal(15, signal.SIG_IGN)
begin = time.monotonic()
note(0)
if os.fork() == 0:
    while time.monotonic() - begin < 30:
        if os.fork():
            os._exit(0)
        {"os.setsid()" if session else ""}
        os.write(1, b".")
    os._exit(0)
time.sleep(60)
"""
        )
        took, job, _, end = self.stopped(tmp_path, python(code, tmp_path / "pids", stop=SOON), pids=1)
        size = Path(end.output).stat().st_size
        assert size > 10
        time.sleep(0.3)
        assert Path(end.output).stat().st_size == size
        assert took < 5
        assert job.unkillable == ()

    def test_a_process_that_forks_without_end_dies_within_5_s(self, tmp_path):
        code = (
            DAEMONISE
            + """
import signal
signal.signal(15, signal.SIG_IGN)
note(0)
begin = time.monotonic()
while time.monotonic() - begin < 30:
    if os.fork() == 0:
        os.setsid()
        time.sleep(30)
        os._exit(0)
    time.sleep(0.01)
"""
        )
        took, job, _, _ = self.stopped(tmp_path, python(code, tmp_path / "pids", stop=SOON), pids=1)
        assert took < 5
        assert job.leftovers > 10

    def test_many_callers_and_a_cancelled_one(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
                job = await supervisor.start(python(code, stop=((15, 30.0),)), output=tmp_path / "out")
                async with aclosing(job.lines()) as lines:
                    await anext(lines)
                calls = [asyncio.ensure_future(job.stop()) for _ in range(3)]
                await asyncio.sleep(0.1)
                calls[0].cancel()
                assert alive(job.pid)
                await job.stop(now=True)
                assert not alive(job.pid)
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(result) for result in results] == [asyncio.CancelledError, type(None), type(None)]

        run(scenario(), limit=20)

    def test_what_is_left_after_a_normal_end_is_killed_and_counted(self, tmp_path):
        code = (
            DAEMONISE
            + "daemon(); daemon()\nwhile len(open(sys.argv[1], 'a+').seek(0) or open(sys.argv[1]).readlines()) < 2: time.sleep(0.01)\nos._exit(5)"
        )

        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(python(code, tmp_path / "pids"), output=tmp_path / "out")
                end = await job.wait()
                assert (end.code, job.leftovers) == (5, 2)
                assert not [pid for pid in numbers(tmp_path / "pids", 2) if alive(pid)]

        run(scenario())

    def test_orphans_that_end_by_themselves_leave_no_zombie(self, tmp_path):
        code = "import os, time\nfor _ in range(20):\n  if os.fork() == 0:\n    if os.fork() == 0: time.sleep(0.1)\n    os._exit(0)\ntime.sleep(60)"

        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(python(code), output=tmp_path / "out")
                await asyncio.sleep(1)
                children = [stat for stat in map(stat_words, all_pids()) if stat[1:2] == [str(supervisor.pid)]]
                assert len(children) == 1
                await job.stop(now=True)

        run(scenario())

    def test_last_output_grows_with_either_stream_and_rests_in_silence(self, tmp_path):
        code = "import os, time\nfor n in 1, 2: time.sleep(0.5); os.write(n, b'x')\ntime.sleep(60)"

        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(python(code), output=tmp_path / "out")
                began = job.last_output
                assert await until_async(lambda: job.last_output > began)
                first = job.last_output
                assert await until_async(lambda: job.last_output > first)
                second = job.last_output
                await asyncio.sleep(0.3)
                assert job.last_output == second
                await job.stop(now=True)

        run(scenario())


def stat_words(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class TestSupervisor:
    def test_one_job_at_a_time(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(python("import time; time.sleep(60)"), output=tmp_path / "1")
                with pytest.raises(RuntimeError, match="still running"):
                    await supervisor.start(python("pass"), output=tmp_path / "2")
                stopping = asyncio.ensure_future(job.stop(now=True))
                await asyncio.sleep(0)
                second = await supervisor.start(python("print(2)"), output=tmp_path / "2")
                assert not alive(job.pid)
                assert [line async for line in second.lines()] == [b"2"]
                assert [line async for line in job.lines()] == []  # its files are closed
                await stopping
            with pytest.raises(RuntimeError, match="closed"):
                await supervisor.start(python("pass"), output=tmp_path / "3")

        run(scenario())

    def test_close_kills_the_job_and_leaves_no_zombie(self, tmp_path):
        async def scenario():
            supervisor = await Supervisor.open(RUN)
            code = DAEMONISE + "daemon(); note(os.getpid()); time.sleep(60)"
            job = await supervisor.start(python(code, tmp_path / "pids"), output=tmp_path / "out")
            found = await asyncio.to_thread(numbers, tmp_path / "pids", 2)
            helper = supervisor.pid
            await supervisor.close()
            await supervisor.close()
            assert (await job.wait()).code == -signal.SIGKILL
            assert not [pid for pid in (*found, helper) if os.path.exists(f"/proc/{pid}")]

        run(scenario())

    def test_a_cancelled_close_kills_all_the_same(self, tmp_path):
        async def scenario():
            supervisor = await Supervisor.open(RUN)
            code = DAEMONISE + "daemon(); note(os.getpid()); time.sleep(60)"
            await supervisor.start(python(code, tmp_path / "pids"), output=tmp_path / "out")
            found = await asyncio.to_thread(numbers, tmp_path / "pids", 2)
            closing = asyncio.ensure_future(supervisor.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert until(lambda: not any(map(alive, found)))

        run(scenario())

    def test_a_cancelled_open_leaves_no_helper(self):
        async def scenario():
            opening = asyncio.ensure_future(Supervisor.open(f"{RUN}-cancelled"))
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert kill_survivors(f"{RUN}-cancelled") == 0

        run(scenario())

    def test_a_cancelled_start_leaves_nothing_running_and_the_next_one_works(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                code = DAEMONISE + "daemon(); time.sleep(60)"
                for wait in (0, 0.001, 0.003, 0.01):
                    start = asyncio.ensure_future(
                        supervisor.start(python(code, tmp_path / "pids", stdin=b"x" * 300_000), output=tmp_path / "out")
                    )
                    await asyncio.sleep(wait)
                    if not start.done():
                        start.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await start
                    else:
                        await start.result().stop(now=True)
                    assert await until_async(lambda: supervisor._job is None or supervisor._job.stopping)
                    last = await supervisor.start(python("print('next')"), output=tmp_path / "out2")
                    assert [line async for line in last.lines()] == [b"next"]
                    await last.wait()

        run(scenario())

    def test_the_process_that_waits_for_the_next_job_is_the_only_one_and_ends_with_the_supervisor(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                (waiting,) = await waiting_of(supervisor)
                job = await supervisor.start(python("print(input())", converses=True), output=tmp_path / "one")
                assert job.pid == waiting
                assert children_of(supervisor.pid) == [job.pid], "while a job runs, none waits"
                await job.write(b"1\n")
                assert (await job.wait()).code == 0
                assert job.leftovers == 0
                (waiting,) = await waiting_of(supervisor)
                assert waiting != job.pid
            assert not alive(waiting)

        run(scenario())

    def test_a_waiting_process_that_is_killed_is_replaced(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                (waiting,) = await waiting_of(supervisor)
                os.kill(waiting, signal.SIGKILL)
                await waiting_of(supervisor, other_than=waiting)
                job = await supervisor.start(python("print(1)"), output=tmp_path / "one")
                assert [line async for line in job.lines()] == [b"1"]
                assert (await job.wait()).code == 0

        run(scenario())

    def test_a_job_may_be_larger_than_a_pipe_takes(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                env = {f"LARGE_{number}": "x" * 100_000 for number in range(8)}
                job = await supervisor.start(
                    python("import os; print(sum(map(len, os.environ.values())) >= 800_000)", env=ENV | env),
                    output=tmp_path / "one",
                )
                assert [line async for line in job.lines()] == [b"True"]

        run(scenario())

    def test_50_jobs_leak_no_descriptor(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                counts = []
                for number in range(50):
                    job = await supervisor.start(
                        python("print(input())", converses=True), output=tmp_path / f"{number}"
                    )
                    counts.append((len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{supervisor.pid}/fd"))))
                    await job.write(b"1\n")
                    assert [line async for line in job.lines()] == [b"1"]
                assert len(set(counts[2:])) == 1

        gc.collect()
        before = os.listdir("/proc/self/fd")
        run(scenario())
        assert len(os.listdir("/proc/self/fd")) == len(before)

    def test_signals_meant_for_ralph_do_not_end_it(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                for number in (
                    signal.SIGINT,
                    signal.SIGTERM,
                    signal.SIGHUP,
                    signal.SIGQUIT,
                    signal.SIGUSR1,
                    signal.SIGUSR2,
                ):
                    os.kill(supervisor.pid, number)
                job = await supervisor.start(python("print('lives')"), output=tmp_path / "out")
                assert [line async for line in job.lines()] == [b"lives"]
                assert os.getsid(supervisor.pid) == supervisor.pid

        run(scenario())

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
    def test_without_its_helper_the_job_ends_as_killed_and_a_new_helper_comes(self, tmp_path, number):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                code = DAEMONISE + "daemon(); note(os.getpid()); time.sleep(60)"
                job = await supervisor.start(python(code, tmp_path / "pids"), output=tmp_path / "out")
                found = await asyncio.to_thread(numbers, tmp_path / "pids", 2)
                os.kill(supervisor.pid, number)
                if number == signal.SIGSTOP:
                    await job.stop(now=True)
                assert [line async for line in job.lines()] == []
                end = await job.wait()
                assert end.code == -signal.SIGKILL
                assert "supervisor process ended unexpectedly" in end.stderr
                assert not [pid for pid in found if alive(pid)]
                again = await supervisor.start(python("print('again')"), output=tmp_path / "out")
                assert [line async for line in again.lines()] == [b"again"]

        run(scenario(), limit=30)

    def test_a_helper_that_dies_in_the_middle_of_a_request_is_replaced(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                os.kill(supervisor.pid, signal.SIGSTOP)
                env = {f"V{number}": "x" * 100_000 for number in range(15)}
                start = asyncio.ensure_future(supervisor.start(python("pass", env=env), output=tmp_path / "out"))
                await asyncio.sleep(0.1)
                os.kill(supervisor.pid, signal.SIGKILL)
                with pytest.raises(SpawnError, match="supervisor process ended unexpectedly"):
                    await start
                job = await supervisor.start(
                    python("import os; print(sum(n[0] == 'V' for n in os.environ))", env=env), output=tmp_path / "out"
                )
                assert [line async for line in job.lines()] == [b"15"]

        run(scenario())

    def test_a_helper_that_cannot_start_says_why(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(SpawnError, match="supervisor process ended unexpectedly"):
            run(Supervisor.open(RUN))
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(SpawnError, match="/nowhere/python"):
            run(Supervisor.open(RUN))


RALPH = (
    """
import asyncio, os, sys, time
from pathlib import Path
from ralph_core.contracts import Command
from ralph_core.processes.process import Supervisor
async def main():
    folder = Path(sys.argv[1])
    supervisor = await Supervisor.open(sys.argv[2])
    if sys.argv[3] == "fork":
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    code = """
    + repr(
        DAEMONISE
        + "\nimport signal; signal.signal(15, signal.SIG_IGN); daemon(); daemon(); note(os.getpid()); time.sleep(60)"
    )
    + """
    argv = (sys.executable, "-I", "-S", "-c", code, str(folder / "pids"))
    command = Command(argv, {}, "/", converses=sys.argv[3] == "converses")
    job = await supervisor.start(command, output=folder / "out")
    print(supervisor.pid, job.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
)


class TestDeath:
    def ralph(self, tmp_path, run_id, *, fork="no"):
        """A process like Ralph with daemonised grandchildren: it, and the pids of helper, job, and grandchildren."""
        program = [sys.executable, "-c", RALPH, str(tmp_path), run_id, fork]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        with process.stdout as stdout:
            helper, agent = map(int, stdout.readline().split())
        return process, helper, agent, set(numbers(tmp_path / "pids", 3)) - {agent}

    @pytest.mark.parametrize(
        "fork", ["no", "fork", "converses"], ids=["alone", "its fork holds the socket", "conversing"]
    )
    def test_kill_9_of_ralph_kills_all(self, tmp_path, fork):
        process, *pids, daemons = self.ralph(tmp_path, f"kill-{os.getpid()}", fork=fork)
        process.kill()
        process.wait(10)
        assert until(lambda: not [pid for pid in (*pids, *daemons) if alive(pid)], limit=10)

    def test_kill_9_of_both_leaves_survivors_which_the_next_start_finds(self, tmp_path):
        run_id = f"both-{os.getpid()}"
        process, helper, agent, daemons = self.ralph(tmp_path, run_id)
        os.kill(helper, signal.SIGSTOP)  # it must not see Ralph die
        process.kill()
        process.wait(10)
        os.kill(helper, signal.SIGKILL)
        assert until(lambda: not alive(agent))  # by the kernel
        assert all(map(alive, daemons))
        assert kill_survivors("another-run") == 0
        assert kill_survivors(run_id) == 2
        assert not any(map(alive, daemons))
        assert kill_survivors(run_id) == 0

    def test_a_survivor_without_marker_is_known_by_the_recorded_pid_unless_that_is_anothers_by_now(self):
        with subprocess.Popen(["env", "-i", "sh", "-c", "sleep 50 & wait"], start_new_session=True) as agent:
            assert until(lambda: len(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()) == 1)
            identity = process_identity(agent.pid)
            assert kill_survivors("cleared", (agent.pid, identity + "0")) == 0
            assert kill_survivors("cleared", (agent.pid, identity)) == 2
            assert agent.wait(10) == -signal.SIGKILL

    def test_survivors_are_found_with_their_children_and_the_searcher_is_spared(self, tmp_path):
        run_id = f"spared-{os.getpid()}"
        program = f"""
import os, subprocess, sys
from ralph_core.processes.survivors import kill_survivors
sleeper = subprocess.Popen(["sh", "-c", "env -i sleep 50 & wait"], start_new_session=True)
import time; time.sleep(0.3)
count = kill_survivors({run_id!r})
print(count, sleeper.wait(10))
"""
        env = {**os.environ, "RALPH_RUN_ID": run_id}
        wrapped = ["sh", "-c", f"{sys.executable} -c '{program.replace(chr(39), chr(34))}'; echo parent lives"]
        done = subprocess.run(wrapped, env=env, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == ["2 -9", "parent lives"], done.stderr


class TestIdentity:
    def test_it_is_stable_differs_between_processes_and_ends_with_the_process(self):
        with subprocess.Popen(["sleep", "50"]) as other:
            time.sleep(0.05)
            mine = process_identity(os.getpid())
            assert mine == process_identity(os.getpid())
            assert process_identity(other.pid) not in {mine, None}
            other.kill()
            assert until(lambda: process_identity(other.pid) is None)  # a zombie runs no more
        assert process_identity(other.pid) is None

    def test_a_job_has_one(self, tmp_path):
        async def scenario():
            async with await Supervisor.open(RUN) as supervisor:
                job = await supervisor.start(python("import time; time.sleep(60)"), output=tmp_path / "out")
                assert job.identity == process_identity(job.pid) is not None
                await job.stop(now=True)

        run(scenario())
