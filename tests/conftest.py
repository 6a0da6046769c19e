"""Options and fixtures that every test may use."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import settings

from tests.support import flake, parallel
from tests.support.statements import MARKER, Statements

pytest_plugins = ["pytester"]

_SLOTS = pytest.StashKey[IO[bytes]]()

# Property tests have no bound on time: a busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--spec-dir",
        type=Path,
        default=None,
        help="folder with the operator's guide as data (commands.yaml, messages.yaml, examples/); "
        "tests that compare with it are skipped without it",
    )
    parser.addoption(
        "--write-statements",
        type=Path,
        default=None,
        help="file that takes the names of the guide's statements that the collected tests carry (`make docs`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f'{MARKER}(*names): proves these statements of the guide, such as "B-113"')
    config.pluginmanager.register(Statements(config))
    told = _worker(config)
    # `make flake` is there to crowd labs.
    if told and flake.SETTINGS not in os.environ:
        config.pluginmanager.register(parallel.Limit(parallel.Slots(Path(told[parallel.FILE]))))


def _worker(config: pytest.Config) -> dict[str, Any]:
    """What xdist tells this worker; nothing in a process that is none."""
    return getattr(config, "workerinput", {})


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker where the run's slots are: in a file without a name, so that nothing is left of it."""
    slots = node.config.stash.setdefault(_SLOTS, tempfile.TemporaryFile())  # noqa: SIM115
    node.workerinput[parallel.FILE] = f"/proc/{os.getpid()}/fd/{slots.fileno()}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    # Next to nothing of what is collected is garbage: to look for it again and again takes long.
    gc.disable()
    try:
        if told := _worker(session.config):
            parallel.import_part(session.config, int(told["workerid"].removeprefix("gw")), told["workercount"])
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if told := _worker(config):
        items[:] = parallel.placed(items, told["workercount"])


@pytest.fixture(scope="session")
def spec_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of the guide's own files; skips the test where none was given."""
    folder: Path | None = request.config.getoption("--spec-dir")
    if folder is None:
        pytest.skip("needs the guide's own files: give their folder with --spec-dir")
    return folder


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ch-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


MEASURED = "measured"


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says what a test measured: printed after the last test, whichever process ran it."""
    return lambda line: record_property(MEASURED, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        str(value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == MEASURED
    ]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
