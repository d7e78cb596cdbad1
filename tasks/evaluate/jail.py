"""The process in which a model's code runs: started by `sandbox`, alone, on the standard library, with nothing to gain.

Python keeps no secrets from code in the same process: this keeps others from harm, not a figure from a determined cheat.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import resource
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
    "pty.", "resource.prlimit", "resource.setrlimit", "signal.pthread_kill",
)  # fmt: skip
"""Beginnings of the interpreter's audit events (PEP 578) that are refused on every system."""


class Compared(ctypes.Structure):
    """libseccomp's `scmp_arg_cmp`: argument `arg` of a call, masked with `a`, equals `b`."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


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
    try:
        return _filtered(ctypes.CDLL("libseccomp.so.2"))
    except OSError:
        return False


def _filtered(library: Any) -> bool:
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
    writes = event == "open" and isinstance(found[2], int) and found[2] & WRITING
    if writes or event.startswith(REFUSED):
        raise PermissionError(f"not allowed here: {event}")


def main(verdict: int) -> None:
    """Read a program from stdin, run it, and write into the pipe `verdict` how it ended: the password, or an error's name."""
    asked = json.loads(sys.stdin.buffer.readline())
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    space: dict[str, Any] = {"__name__": "answer"}
    limit(asked["seconds"], asked["memory"])
    kernel = asked["kernel"] and confine()
    sys.addaudithook(watch)
    os.write(verdict, b"kernel\n" if kernel else b"interpreter\n")
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
