"""Configurations that a session over SSH sends to another machine and gets from there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import sftp
from tests.support.ssh import Shell, connected

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

LAB = """
name: urls
ssh: {user: op, password: "the lab's own"}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg, ssh: {urls: true}}
    b: {kind: smartedge, config: a.cfg}
"""
CONFIG = "context local\ncontext C1\n"


async def typed(lab: LabClient, node: str, *lines: str) -> str:
    """Type lines at a router, each when a prompt or a question waits; return what it said."""
    said = ""
    async with connected(lab, "op", node, password="the lab's own") as connection:
        shell = await Shell.open(connection)
        await shell.until("#")
        for line in lines:
            shell.type(f"{line}\r")
            said += await shell.until(": " if "://" in line and node == "a" else "#")
    return said


def test_a_configuration_goes_and_comes_by_sftp(lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory.text(LAB, {"a.cfg": CONFIG})

    async def both() -> tuple[str, str, str]:
        async with sftp.serving(tmp_path) as address:
            url = f"{address}a.cfg"
            sent = await typed(lab, "a", f"save configuration {url}", sftp.PASSWORD)
            (tmp_path / "b.cfg").write_text("context C2\n")
            got = await typed(lab, "a", f"configure {address}b.cfg", sftp.PASSWORD, "commit", "end")
            wrong = await typed(lab, "a", f"save configuration {url}", "wrong")
        return sent, got, wrong

    sent, got, wrong = asyncio.run(both())
    assert "Save to file: sftp://ann@127.0.0.1" in sent
    assert sftp.PASSWORD not in sent
    assert "\ncontext C1\n" in (tmp_path / "a.cfg").read_text()
    assert "Transaction committed" in got
    assert "\ncontext C2\n" in lab.node("a").call("config", keys=False)["text"]
    assert "% Error: Login failed" in wrong


def test_no_url_is_used_where_the_lab_does_not_say_so(lab_factory: LabFactory) -> None:
    lab = lab_factory.text(LAB, {"a.cfg": CONFIG})
    said = asyncio.run(typed(lab, "b", "configure http://127.0.0.1:9/a.cfg"))
    assert "% Error: the lab allows no URLs" in said
