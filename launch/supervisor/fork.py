"""Fork a child process that ends with its parent and inherits only the descriptors it was given.

Input: a function to run. Output: a process id and a pidfd. `unshare` and `mount` wrap the system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from setproctitle import setproctitle

from chassis.bus.parent_death import die_with_parent

_libc = ctypes.CDLL(None, use_errno=True)


YOUNG_OBJECTS = 5_000
"""New objects (count) after which Python looks for cycles among them: what one set-up of a tunnel makes is gone by
itself then. With Python's own 700 a tenth of the time of many set-ups is spent on looking."""

NO_ROOM = os.EX_IOERR
"""Exit status of a child that could not write its files because the disk is full."""


@dataclass(frozen=True, slots=True)
class ForkedProcess:
    """A forked process. `pidfd` becomes readable when the process ends; the caller closes it."""

    pid: int
    pidfd: int


def unshare(flags: int) -> None:
    """Leave namespaces (`CLONE_NEW*`, unshare(2)).

    Raises:
        OSError: the kernel refuses.
    """
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Call mount(2).

    Raises:
        OSError: the mount failed; the error names the target.
    """
    arguments = [text.encode() or None for text in (source, target, kind)]
    if _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def fork(
    run: Callable[[], int],
    title: str,
    log: Path | None,
    keep: Collection[int] = (),
    parent: int | None = None,
) -> ForkedProcess:
    """Run a function in a child process and end the child with the function's result as exit status.

    The child leads a process group of its own, so that only the parent handles a terminal's Ctrl-C. Append its
    output to `log`, or share the parent's output if `log` is None. The child keeps the descriptors in `keep` only.
    `parent` is this process's id as the child sees it: 0 if the child is the first of its process namespace.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    parent = os.getpid() if parent is None else parent
    pid = os.fork()
    if pid == 0:
        _child(run, title, log, keep, parent)
    try:
        return ForkedProcess(pid, os.pidfd_open(pid))
    except OSError:
        # Without a pidfd the parent could not supervise the child.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _child(run: Callable[[], int], title: str, log: Path | None, keep: Collection[int], parent: int) -> NoReturn:
    # Never return into the parent's stack: this function always ends the process.
    status = 1
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        if log is not None:
            # Do not make a new session: Linux may share the cores among sessions first (autogroup). Then a nice
            # value or a short slice has no effect between the processes of a lab.
            os.setpgrp()
            _redirect(log)
        _close_all_but({0, 1, 2, *keep})
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 10, 10)
        setproctitle(title)
        status = run()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except OSError as error:
        # The log may be on the same full disk, so report the cause in the exit status too.
        status = NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 0xFF)


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # A program that embeds the launcher (a test runner, for example) may have replaced these streams.
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _close_all_but(keep: Collection[int]) -> None:
    start = 0
    for fd in sorted(keep):
        # close_range(2) takes an empty range as one without an end.
        if start < fd:
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def ended(status: int) -> str:
    """Describe a wait status for people: `killed by SIGKILL`, `exit status 1`."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}, no space left on device" if code == NO_ROOM else f"exit status {code}"
