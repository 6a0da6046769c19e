"""Extended sequence numbers as a lab asks for them: at both ends of a tunnel, and at one alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import CONFIGS

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

SHIPPED = CONFIGS
ASKED = "settings: {extended-sequence-numbers: true, ike-retry-delay: 100ms}"


def booted(lab_factory: LabFactory, name: str, *ends: str) -> LabClient:
    """A shipped lab without its scenario; these ends of it ask for extended numbers."""
    folder = SHIPPED / name
    text = (folder / "lab.yaml").read_text().partition("\nscenario:")[0]
    for end in ends:
        node = f"{{kind: smartedge, config: {end}.cfg}}"
        assert text.count(node) == 1
        text = text.replace(node, f"{{kind: smartedge, config: {end}.cfg, {ASKED}}}")
    return lab_factory.text(text, {file.name: file.read_text() for file in folder.glob("*.cfg")})


@pytest.mark.parametrize("name", ["site-to-site", "ikev2"])
def test_both_ends_ask(lab_factory: LabFactory, name: str) -> None:
    lab = booted(lab_factory, name, "a", "b")
    lab.wait_until("tunnels up", within=60)
    lab.start(*lab.file.flows)
    flows = list(lab.file.flows)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= 20", within=60)
    for row in lab.ask("a", "status", {})["tunnels"]:
        assert lab.ask("a", "rekey", {"tunnel": row["name"]})["errors"] == {}
    for flow in flows:
        before = lab.report(flow)["received"]
        lab.wait_until(f"flow {flow} received >= {before + 20}", within=60)
    assert not lab.unexpected()


@pytest.mark.parametrize("name", ["site-to-site", "ikev2"])
def test_one_end_alone_says_what_differs(lab_factory: LabFactory, name: str) -> None:
    lab = booted(lab_factory, name, "a")

    def reasons() -> list[str]:
        return [row["reason"] for end in ("a", "b") for row in lab.ask(end, "status", {})["tunnels"]]

    lab.wait_until(lambda: any("esn" in reason for reason in reasons()), within=60)
