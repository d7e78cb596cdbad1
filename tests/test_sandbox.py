"""The sandbox: programs that pass, pass; whatever else a model may write does no harm and doesn't pass."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.evaluate.answers import pass_at_1, program
from tasks.evaluate.questions import PROGRAMS
from tasks.evaluate.sandbox import passes

RIGHT = "def double(x):\n    return 2 * x\n"
TEST = "assert double(4) == 8\n"
GUARDS = (True, False)

HARMLESS = {
    "right": RIGHT,
    "says much": f"print('x' * 10**8)\n{RIGHT}",
    "thread": f"import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\n{RIGHT}",
    "library": f"import collections, datetime, decimal, functools, heapq, itertools, json, math, random, re, statistics, string\n{RIGHT}",
    "catches what is refused": f"try:\n    open('made', 'w')\nexcept OSError:\n    pass\n{RIGHT}",
}

HOSTILE = {
    "wrong": "def double(x):\n    return x\n",
    "not Python": "Sure! Here is the code:",
    "endless loop": "while True: pass",
    "sleeps": "import time\ntime.sleep(60)",
    "much memory": "kept = [bytearray(1 << 26) for _ in range(100)]",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
    "exit 0": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "starts a program": "import subprocess\nsubprocess.run(['true'])",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))",
    "writes here": "open('here', 'w').write('x')",
    "passes by saying so": "import os\nfor pipe in range(3, 32):\n    try: os.write(pipe, b'passed' * 100)\n    except OSError: pass",
    "floods the verdict": "import os\nwhile True:\n    for pipe in range(3, 32):\n        try: os.write(pipe, b'x' * 65536)\n        except OSError: pass",
    "native code": "import ctypes\nctypes.CDLL(None).getpid()",
    "native code of the jail's": "import sys\nsys.modules['__main__'].ctypes.CDLL(None).getpid()",
    "native classes left behind": "next(c for c in object.__subclasses__() if c.__module__ == '_ctypes').from_address(0)",
    "starts a program natively": f"import _posixsubprocess\n{RIGHT}",
    "the same by another name": f"import sys, importlib.util, glob\npath = glob.glob(sys.path[-1] + '/_posixsubprocess*')[0]\nspec = importlib.util.spec_from_file_location('a._posixsubprocess', path)\nimportlib.util.module_from_spec(spec)\n{RIGHT}",
    "a database": f"import sqlite3\nsqlite3.connect('made')\n{RIGHT}",
    "shared memory": f"from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=1)\n{RIGHT}",
    "another interpreter": f"import _xxsubinterpreters\n{RIGHT}",
    "a pipe by name": f"import os\nos.mkfifo('made')\n{RIGHT}",
    "packages": f"import sys\nsys.path += {sys.path!r}\nimport markupsafe._speedups\n{RIGHT}",
    "reads the tests from stdin": "import sys\ndouble = eval(sys.stdin.read())",
}


@pytest.mark.parametrize("kernel", GUARDS)
@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_right_passes(what: str, kernel: bool) -> None:
    """A right program passes under either guard, whatever it prints or imports."""
    assert passes(HARMLESS[what], TEST, kernel=kernel).passed


@pytest.mark.parametrize("kernel", GUARDS)
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_wrong_or_hostile_does_not_pass(what: str, kernel: bool) -> None:
    """Nothing else passes, and it ends soon."""
    started = time.monotonic()
    assert not passes(HOSTILE[what], TEST, seconds=1, elapsed=3, kernel=kernel).passed
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kernel", GUARDS)
def test_no_network_not_even_loopback(kernel: bool) -> None:
    """A server on this very machine is never reached."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)\n{RIGHT}"
        assert passes(code, TEST, kernel=kernel).why == "PermissionError"
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("kernel", GUARDS)
@pytest.mark.parametrize(
    "act",
    ["open({0!r}, 'w')", "os.remove({0!r})", "os.rename({0!r}, 'x')", "os.truncate({0!r}, 0)", "os.chmod({0!r}, 0)"],
)
def test_files_outside_stay_as_they_are(tmp_path: Path, act: str, kernel: bool) -> None:
    """No file can be written, emptied, removed or renamed."""
    kept = tmp_path / "kept"
    kept.write_text("kept")
    mode = kept.stat().st_mode
    assert not passes(f"import os\n{act.format(str(kept))}\n{RIGHT}", TEST, kernel=kernel).passed
    assert (kept.read_text(), kept.stat().st_mode, [*tmp_path.iterdir()]) == ("kept", mode, [kept])


def test_environment_is_empty_and_nothing_of_ours_is_there() -> None:
    """No variable, no package, no file beside it: what a program sees is the standard library."""
    tests = (
        "import os, sys\nassert not set(os.environ) - {'LC_CTYPE'}\nassert os.listdir() == []\n"
        "assert not any('site-packages' in path for path in sys.path)\nassert sys.flags.isolated"
    )
    assert passes("", tests).passed


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's guard is Linux's")
def test_the_kernel_refuses_what_the_interpreter_does_not_see() -> None:
    """A call without an audit event gets through to the kernel, which refuses it; the verdict says who kept guard."""
    code = f"import os\nos.mkfifo('pipe')\n{RIGHT}"
    found = passes(code, TEST)
    if found.guard != "kernel":
        pytest.skip("no libseccomp here")
    assert (found.passed, found.why) == (False, "PermissionError")
    assert passes(code, TEST, kernel=False).guard == "interpreter"


def test_every_problem_can_be_solved_and_isn_t_by_nothing() -> None:
    """The reference solution of every problem passes its tests, and a function that returns None passes none."""
    rows = [json.loads(line) for line in PROGRAMS.read_text(encoding="utf-8").splitlines()]
    assert len({row["name"] for row in rows}) == len(rows) >= 20
    for row in rows:
        assert row["name"] in row["prompt"]
        assert pass_at_1(f"Here it is:\n```python\n{row['solution']}```\nDone.", row["tests"]) == 1, row["name"]
    nothing = "".join(f"def {row['name']}(*_): return None\n" for row in rows)
    assert not any(pass_at_1(nothing, row["tests"]) for row in rows[:5])


@pytest.mark.parametrize(
    "answer",
    [RIGHT, f"```python\n{RIGHT}```", f"Sure.\n\n```py\n{RIGHT}```\nIt doubles.\n```\nx\n```", f"```\n{RIGHT}"],
)
def test_the_program_of_an_answer(answer: str) -> None:
    """The first fenced block, closed or not, or the whole answer."""
    assert program(answer) == RIGHT


def test_nothing_is_left_running() -> None:
    """A program that is stopped is gone, with all it started."""
    marker = f"marker_{time.time_ns()}"
    passes(f"import time\n{marker} = 1\ntime.sleep(60)", TEST, elapsed=1)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "jail.py" not in running


@pytest.mark.parametrize("kernel", GUARDS)
def test_a_database_is_not_made_outside(tmp_path: Path, kernel: bool) -> None:
    """Not even by a program that catches the refusal."""
    code = f"try:\n    import sqlite3\n    sqlite3.connect({str(tmp_path / 'made')!r})\nexcept Exception:\n    pass\n{RIGHT}"
    assert passes(code, TEST, kernel=kernel).passed
    assert not [*tmp_path.iterdir()]
