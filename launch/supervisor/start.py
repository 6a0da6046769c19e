"""Start a lab: what `chassis-launch FILE` does before the supervisor takes over (docs/labs.md).

Input: a lab file or one router's configuration. Output: processes, a run folder, and the exit status of the lab.
"""

from __future__ import annotations

import gc
import json
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from setproctitle import setproctitle

import chassis.ase.shell
import chassis.linecard.shell
import chassis.mgmt.shell
import chassis.peers.shell
import chassis.tester.shell
import chassis.xcrp.shell
from chassis.bus import regular_files
from chassis.config.diagnostics import Diagnostic, has_errors, in_order
from chassis.config.secrets import RouterSecret
from chassis.model.router import Config
from chassis.xcrp import inventory
from launch import checking, router_secrets
from launch.lab import consistency
from launch.lab.model import Lab
from launch.lab.parser import VALID_NAME, load
from launch.lab.yaml_source import LabError
from launch.run_folders import LAUNCHER_LOG, FolderError, Folders, is_fresh, node_state
from launch.supervisor.access import Access, AccessError
from launch.supervisor.active_config import Committed, committed, startup_notes
from launch.supervisor.namespaces import NamespaceError, unconfined
from launch.supervisor.processes import MANAGEMENT, EntryPoint

DESCRIPTORS = 16_384
"""Open files and sockets (count) that each process of a lab may have, if the system allows that many."""


ENTRY_POINTS: Mapping[str, EntryPoint] = {
    inventory.CONTROLLER: chassis.xcrp.shell.run,
    inventory.LINE_CARD: chassis.linecard.shell.run,
    inventory.ASP: chassis.ase.shell.run,
    "tester": chassis.tester.shell.run,
    "peers": chassis.peers.shell.run,
    MANAGEMENT: chassis.mgmt.shell.run,
}
"""What a forked process runs, by the kind of its card. All of it is imported before the first fork."""


class StartError(Exception):
    """The lab cannot be started; the text says why."""


@dataclass(frozen=True, slots=True)
class Given:
    """A router's start-up file: its text, its parsed configuration, and the commit that replaces it, if any; and
    the router's secret."""

    text: str
    config: Config
    committed: Committed | None
    secret: RouterSecret


Startup = Mapping[str, Given]
"""The start-up files by router."""


def prepare(
    file: Path, name: str | None, strict: bool, tell: Callable[[str], None], changes: Path | None = None
) -> tuple[Lab, Startup]:
    """Read a lab and its configurations; pass each remark about them to `tell`.

    `changes` is a JSON file of values that replace the lab's own: see `launch.lab.parser.load`.

    Raises:
            StartError: the file is wrong or cannot work; with `strict`, there is a warning; or a router with
                `refuse-errors` has errors in its configuration.
    """
    try:
        lab, warnings = load(file, json.loads(regular_files.read_text(changes)) if changes is not None else None)
    except LabError as error:
        raise StartError(str(error)) from None
    except (OSError, ValueError) as error:
        raise StartError(f"{changes}: {error}") from None
    if name is not None:
        if not VALID_NAME.match(name):
            raise StartError(f"{name!r} is not a lab name; expected up to 32 letters, digits, '-' and '_'")
        lab = replace(lab, name=name)
    startup: dict[str, Given] = {}
    said: set[Diagnostic] = set()
    wrong: dict[str, int] = {}
    serious = list(warnings)
    try:
        secrets = router_secrets.of(lab)
    except FolderError as error:
        raise StartError(str(error)) from None
    for router in lab.routers():
        secret = secrets[router.name]
        parsed = checking.read_config(router.config, router.modern, secret)
        try:
            text = regular_files.read_text(router.config, errors="replace")
        except OSError as error:
            raise StartError(f"{router.config} cannot be read: {error.strerror}") from None
        held = committed(node_state(lab.name, router.name), text, parsed.config, router.modern, secret)
        startup[router.name] = Given(text, parsed.config, held, secret)
        # Several routers may have one file.
        serious += [d for d in parsed.diagnostics if d.severity != "note" and d not in said]
        said.update(parsed.diagnostics)
        wrong[router.name] = sum(d.severity == "error" for d in parsed.diagnostics)
    configs = {router.config: startup[router.name].config for router in lab.routers()}
    cannot_work = in_order(consistency.faults(lab, configs))
    serious += cannot_work
    serious += checking.flashes(lab)
    for diagnostic in serious:
        tell(str(diagnostic))
    refused = []
    for router in lab.routers():
        errors = wrong[router.name]
        if errors:
            lines = "1 error: its line has" if errors == 1 else f"{errors} errors: their lines have"
            tell(f"{router.name}: {router.config} has {lines} no effect")
            refused += [router.name] if router.settings.refuse_errors else []
    if refused:
        raise StartError(
            f"errors in the configuration of {', '.join(refused)}; not started because of refuse-errors"
        )
    if has_errors(cannot_work):
        raise StartError(f"{checking.summary(cannot_work)} in {lab.file.name}: not started")
    for router in lab.routers():
        if (held := startup[router.name].committed) is not None:
            for number, line in enumerate(startup_notes(lab.name, router.name, str(router.config), held)):
                tell(f"note: {line}" if not number else line)
    anew = [name for name, given in startup.items() if given.config.manual_sas and is_fresh(lab.name, name)]
    if anew:
        # S-113: the operator may have used these keys with higher sequence numbers before.
        tell(f"note: no stored state of {', '.join(anew)}: sequence numbers of manual keys begin at 1")
    if lab.linux() and (why := unconfined()):
        tell(
            f"note: commands of Linux nodes run with all capabilities of root: no user namespace for them ({why})"
        )
    if strict and serious:
        raise StartError(f"{checking.summary(serious)}: not started")
    return lab, startup


def start(
    lab: Lab,
    startup: Startup,
    on_booted: Callable[[str, list[str]], None],
    *,
    with_pid: int | None = None,
    show: str = "",
    background: bool = False,
) -> int:
    """Run the lab in this process until it ends. Return the exit status.

    Call `on_booted` as `Supervisor.run` does, with lines on how to log in beside what is missing.
    `show`: `live` shows the lab's status on this terminal; `once` prints it when the flows run and ends the lab.
    With `background` this process writes its output to a file of the run folder, and ends a lab that does not
    boot.

    Raises:
            StartError: a lab of that name already runs, or a folder or the machine does not allow the start.
    """
    from launch.supervisor.supervisor import Supervisor

    _open_more()
    try:
        folders = Folders(lab.name, lab.nodes)
    except FolderError as error:
        raise StartError(str(error)) from None
    try:
        router_secrets.keep(folders, {name: given.secret for name, given in startup.items()})
        access = Access(lab.routers(), folders)
    except (AccessError, FolderError, OSError) as error:
        folders.close()
        raise StartError(str(error)) from None
    if background:
        fd = os.open(folders.run / LAUNCHER_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)
    setproctitle(f"chassis-launch {lab.name}")
    files = {router.name: str(router.config) for router in lab.routers()}
    supervisor = Supervisor(
        lab,
        folders,
        ENTRY_POINTS,
        {name: inventory.cards_of(given.config) for name, given in startup.items()},
        {name: (given.text, files[name]) for name, given in startup.items()},
        {name: given.committed for name, given in startup.items()},
        access,
    )
    administered = {
        name
        for name, given in startup.items()
        if any(context.administrators for context in given.config.contexts.values())
    }
    if show:
        from launch.client.status_view import follow

        run = folders.run
        supervisor.on_started = lambda: supervisor.helper(
            lambda: follow(run, once=show == "once"), "chassisctl status"
        )
    # All children share the objects that exist now; a collection would write to them and unshare the memory.
    gc.collect()
    gc.freeze()
    try:
        return supervisor.run(
            lambda problem: on_booted(problem, access.lines(administered)), with_pid=with_pid, must_boot=background
        )
    except (NamespaceError, OSError) as error:
        raise StartError(str(error)) from None


def _open_more() -> None:
    """Raise the limit of open files of this process and of those that it forks to `DESCRIPTORS`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
