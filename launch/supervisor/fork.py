"""A child process by fork: born warm, dies with its parent, holds nothing that is not its own."""

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


NO_ROOM = os.EX_IOERR
"""Exit status of a child that found no room for its files."""


@dataclass(frozen=True, slots=True)
class ForkedProcess:
    """A forked process. `pidfd` becomes readable when it ends, and is the holder's to close."""

    pid: int
    pidfd: int


def unshare(flags: int) -> None:
    """Leave namespaces (`CLONE_NEW*`); OSError where the kernel does not let us."""
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2); OSError where it fails, with the target in it."""
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
    """Run a function in a child process and end it with what the function returns.

    The child leads a process group of its own, so that a terminal's Ctrl-C is its parent's business; its output
    goes to `log` (appended), or stays the parent's where that is None. Of the parent's descriptors it has `keep`.
    `parent` is this process as the child sees it: 0 where the child is the first of its process namespace.
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
        # Nobody could watch over it.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _child(run: Callable[[], int], title: str, log: Path | None, keep: Collection[int], parent: int) -> NoReturn:
    # Nothing of the parent's stack may run on here: whatever happens, this function ends the process.
    status = 1
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        if log is not None:
            # No session of its own: Linux may share the cores among sessions first (autogroup), and then neither
            # a nice value nor a short slice means anything between the processes of a lab.
            os.setpgrp()
            _redirect(log)
        _close_all_but({0, 1, 2, *keep})
        gc.freeze()
        setproctitle(title)
        status = run()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except OSError as error:
        # Its log may be on the same disk: the status says it too.
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
    # A program that embeds the launcher (a test runner, say) may have put something else in their place.
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _close_all_but(keep: Collection[int]) -> None:
    start = 0
    for fd in sorted(keep):
        # An empty range would count as one without an end.
        if start < fd:
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def ended(status: int) -> str:
    """A wait status for people: `killed by SIGKILL`, `exit status 1`."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}, no space left on device" if code == NO_ROOM else f"exit status {code}"
