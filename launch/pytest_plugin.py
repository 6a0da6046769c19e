"""Pytest plugin: labs of real processes as fixtures, for the tests of this and of other projects.

Pytest loads it if the package is installed. A test uses `lab_factory` to start labs from files:

    def test_the_second_asp_takes_over(lab_factory):
        lab = lab_factory("lab.yaml", settings={"restart-delay": "never"})
        lab.wait_until("tunnels up")
        lab.start("forward")
        lab.wait_until("flow forward received >= 100")
        killed = lab.kill("a", "asp 1/1")
        lab.wait_until("flow forward via a asp 2/1")
        assert lab.report("forward", since=killed)["window_lost"] < 100

or has the mark `@pytest.mark.lab("lab.yaml")` and uses `lab`. Files are searched beside the test and then from the
root of the test run. Every lab has run and state folders of its own and ends with the test; the logs of a failed
test are kept in a folder that the failure names.

Labs of `shared_lab_factory` end with the last test of their file: a fixture of scope "module" starts a lab that
all tests of the file use. Each test must restore the lab's state.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.scenario.boot import BootedLab

KEPT = Path("build", "failed-labs")
"""Folder of the logs of failed tests, below the root of the test run."""

_LABS = pytest.StashKey["list[BootedLab]"]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab(file, **options): the lab file that the fixture `lab` starts")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when != "teardown":
        target = item.config.rootpath / KEPT / re.sub(r"[^A-Za-z0-9_.-]+", "-", item.nodeid)[-120:]
        module = item.getparent(pytest.Module)
        shared = module.stash.get(_LABS, []) if module is not None else []
        for booted in [*item.stash.get(_LABS, []), *shared]:
            report.sections.append(("lab", f"logs of lab {booted.lab.name} are in {booted.keep(target)}"))
    return report


class LabFactory:
    """Start labs for one test, or for the tests of a file."""

    def __init__(self, item: pytest.Item | pytest.Module, folder: Path) -> None:
        self._item = item
        self._folder = folder
        self._booted: list[BootedLab] = []
        item.stash[_LABS] = self._booted

    def __call__(
        self,
        file: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
        flows: Mapping[str, Mapping[str, Any]] | None = None,
        ready: bool = True,
    ) -> LabClient:
        """Start the lab of a file and wait until its cards are up (unless `ready` is false).

        `settings` replaces settings of the lab (`{"restart-delay": "never"}`), `flows` values of its flows
        (`{"forward": {"rate": 500}}`). `lab.boot_ms` is the boot time (ms).
        """
        from launch.scenario.boot import boot

        booted = boot(self._find(file), settings=settings, flows=flows, ready=ready)
        self._booted.append(booted)
        return booted.client

    def text(self, lab: str, files: Mapping[str, str] | None = None, **options: Any) -> LabClient:
        """Start a lab given as text, with the configuration files that it names."""
        folder = self._folder / f"lab-{len(self._booted) + 1}"
        folder.mkdir()
        for name, content in (files or {}).items():
            (folder / name).write_text(content)
        path = folder / "lab.yaml"
        path.write_text(lab)
        return self(path, **options)

    def end(self, lab: LabClient) -> None:
        """End a lab before its test ends."""
        for booted in [booted for booted in self._booted if booted.client is lab]:
            self._booted.remove(booted)
            booted.close()

    def close(self) -> None:
        while self._booted:
            self._booted.pop().close()

    def _find(self, file: str | Path) -> Path:
        path = Path(file)
        for folder in (self._item.path.parent, self._item.config.rootpath, Path.cwd()):
            if (folder / path).is_file():
                return folder / path
        raise pytest.UsageError(f"no lab file {file} beside the test or in {self._item.config.rootpath}")


@pytest.fixture
def lab_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LabFactory]:
    """Yield a factory of labs of real processes; end the labs with the test."""
    factory = LabFactory(request.node, tmp_path)
    yield factory
    factory.close()


@pytest.fixture(scope="module")
def shared_lab_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabFactory]:
    """Yield a factory of labs that all tests of a file share; end the labs with the last test."""
    factory = LabFactory(request.node, tmp_path_factory.mktemp("shared"))
    yield factory
    factory.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, lab_factory: LabFactory) -> LabClient:
    """Start the lab of the test's mark `lab("file.yaml")`."""
    mark = request.node.get_closest_marker("lab")
    if mark is None:
        raise pytest.UsageError('the fixture `lab` needs a mark: @pytest.mark.lab("lab.yaml")')
    return lab_factory(*mark.args, **mark.kwargs)
