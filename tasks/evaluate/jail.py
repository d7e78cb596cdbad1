"""The process in which a model's code runs: started by `sandbox`, alone, on the standard library, with nothing to gain.

Python keeps no secrets from code in the same process: this keeps others from harm, not a figure from a determined cheat.
Where the kernel doesn't confine it, it keeps them from what a model writes by mistake, not from an attack on the interpreter.
"""

from __future__ import annotations

import errno
import io
import json
import os
import posix
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

ALLOWED = (
    "read readv pread64 write writev close fstat stat lstat newfstatat fstatat64 statx lseek mmap mprotect munmap mremap "
    "madvise brk rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack access faccessat faccessat2 getdents64 getcwd "
    "readlink readlinkat poll ppoll select pselect6 futex getpid getppid gettid getuid geteuid getgid getegid uname "
    "sysinfo getrusage times getrlimit clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom "
    "sched_getaffinity sched_yield pipe2 dup dup2 dup3 set_robust_list rseq membarrier exit exit_group"
)
"""What a program may ask of Linux: memory, time, threads, and reading files. No socket, no process, no signal, no limit."""

REFUSED = (
    "socket.", "subprocess.", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn",
    "os.startfile", "os.system", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.symlink", "os.truncate", "os.utime", "os.putenv", "os.setxattr", "os.removexattr", "shutil.", "ctypes.", "fcntl.",
    "pty.", "resource.prlimit", "resource.setrlimit", "signal.pthread_kill", "sqlite3.",
)  # fmt: skip
"""Beginnings of the interpreter's audit events (PEP 578) that are refused on every system."""

NATIVE = frozenset({
    "_ctypes", "_ctypes_test", "_dbm", "_gdbm", "_interpreters", "_multiprocessing", "_posixshmem", "_posixsubprocess",
    "_sqlite3", "_ssl", "_testcapi", "_testinternalcapi", "_tkinter", "_xxsubinterpreters", "ctypes", "readline",
})  # fmt: skip
"""Modules that start processes, write files, touch memory or begin an interpreter without an event: never imported."""

UNSEEN = ("mkfifo", "mknod", "pidfd_open", "sched_setaffinity", "sched_setparam", "sched_setscheduler", "setpriority")
"""Functions of `os` without an event that reach beyond the process: taken away where the kernel doesn't refuse them."""

FOLDERS = frozenset(sys.path)
"""Where the standard library's own extensions lie; an extension from elsewhere isn't loaded."""


def limit(seconds: int, memory: int) -> None:
    """Processor time, memory, files; none of which can be raised again."""
    wanted = {
        "RLIMIT_CPU": seconds, "RLIMIT_AS": memory, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 32, "RLIMIT_CORE": 0,
    }  # fmt: skip
    for name, most in wanted.items():
        with suppress(AttributeError, OSError, ValueError):  # macOS knows them all and keeps some
            resource.setrlimit(getattr(resource, name), (most, most))


def confine() -> bool:
    """Let the kernel refuse everything but `ALLOWED`, of this process and for good; False where it can't (seccomp)."""
    if sys.platform != "linux":
        return False
    import ctypes  # here alone: from the classes it leaves behind, native code can be reached

    try:
        return _filtered(ctypes.CDLL("libseccomp.so.2"))
    except OSError:
        return False


def _filtered(library: Any) -> bool:
    import ctypes

    class Compared(ctypes.Structure):
        """libseccomp's `scmp_arg_cmp`: argument `arg` of a call, masked with `a`, equals `b`."""

        _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))

    allow, refuse, masked_equal = 0x7FFF0000, 0x00050000, 7
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compared),
    )  # fmt: skip
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    made = library.seccomp_init(refuse | errno.EPERM)

    def rule(action: int, call: str, *compared: Compared) -> None:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # some calls aren't there on every processor
            library.seccomp_rule_add_array(made, action, number, len(compared), (Compared * len(compared))(*compared))

    for call in ALLOWED.split():
        rule(allow, call)
    rule(allow, "openat", Compared(2, masked_equal, WRITING, 0))
    rule(allow, "open", Compared(1, masked_equal, WRITING, 0))
    rule(allow, "fcntl", Compared(1, masked_equal, 0xFFFFFFFC, 0))  # duplicates and flags; no signals to others
    thread = 0x10000
    rule(allow, "clone", Compared(0, masked_equal, thread, thread))
    rule(refuse | errno.ENOSYS, "clone3")  # its flags can't be seen: glibc then asks with clone
    rule(refuse | errno.ENOTTY, "ioctl")
    return bool(made) and library.seccomp_load(made) == 0


def watch(event: str, found: tuple[Any, ...]) -> None:
    """The interpreter's own refusal, where the kernel has none: an audit hook, which can't be taken off."""
    if event == "import":
        if found[0].rpartition(".")[2] in NATIVE or (found[1] and found[1].rpartition("/")[0] not in FOLDERS):
            raise ImportError(f"not allowed here: {found[0]}")
        return
    writes = event == "open" and isinstance(found[2], int) and found[2] & WRITING
    if writes or event.startswith(REFUSED):
        raise PermissionError(f"not allowed here: {event}")


def forget() -> None:
    """Take away what the audit hook would not see."""
    for module in (os, posix):
        for name in UNSEEN:
            if hasattr(module, name):
                delattr(module, name)
    if hasattr(signal, "pidfd_send_signal"):
        del signal.pidfd_send_signal


def main(verdict: int) -> None:
    """Read a program from stdin, run it, and write into the pipe `verdict` how it ended: the password, or an error's name."""
    asked = json.loads(sys.stdin.buffer.readline())
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    space: dict[str, Any] = {"__name__": "answer"}
    limit(asked["seconds"], asked["memory"])
    if not asked["kernel"]:
        forget()
    elif not confine():
        os.write(
            verdict, b"unconfined\n"
        )  # and with native code in reach: the interpreter's guard wants another process
        os._exit(0)
    for name in NATIVE & sys.modules.keys():
        del sys.modules[name]
    sys.addaudithook(watch)
    os.write(verdict, b"kernel\n" if asked["kernel"] else b"interpreter\n")
    try:
        exec(compile(asked["code"], "answer", "exec"), space)
        exec(compile(asked["tests"], "tests", "exec"), space)
    except BaseException as error:
        ended = type(error).__name__
    else:
        ended = asked["password"]
    os.write(verdict, ended.encode()[:64])
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
