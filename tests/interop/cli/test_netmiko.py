"""Netmiko's driver `ericsson_ipos`, unchanged, works at a router over SSH; ntc-templates read what it gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import ssh_lab
from tests.support.exec_forms import EXAMPLES, show_lines
from tests.support.ssh_lab import NAMES, SshLab

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = [
    pytest.mark.multiprocess,
    pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning:netmiko"),
]

RATE = 1000

ABSENT = re.compile(r"show (pki (key-pair t0|certificate .* (identity|handle) )|tunnel ipsec .* statistics ike)")
"""Commands about what the router does not have: certificates, keys, and IKE of a tunnel with manual keys."""

KEYS = ("5a" * 20, "a5" * 16, "NeverShownToAnybody")


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> SshLab:
    ssh_lab.need("ntc_templates", "netmiko")
    return ssh_lab.start(shared_lab_factory, tmp_path_factory.mktemp("netmiko"), RATE)


@pytest.fixture(scope="module")
def detected(lab: SshLab) -> Iterator[Future[str | None]]:
    """What Netmiko takes router b for. It waits 13 s in all, meanwhile other tests run."""
    from netmiko import SSHDetect

    def detect() -> str | None:
        found: str | None = SSHDetect(**lab.netmiko("b", device_type="autodetect")).autodetect()
        return found

    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(detect)


@pytest.fixture
def router(lab: SshLab, detected: Future[str | None]) -> Iterator[Any]:
    """Netmiko's connection to router a."""
    from netmiko import ConnectHandler

    with ConnectHandler(**lab.netmiko("a")) as connection:
        yield connection


def test_every_show_command_answers_and_no_packet_is_lost_meanwhile(lab: SshLab, router: Any) -> None:
    assert router.base_prompt == "[local]a"
    assert router.check_enable_mode()
    lab.client.start("forward0")
    lab.client.wait_until("flow forward0 received >= 100")
    router.send_command("context lan", expect_string=r"\[lan\]a#")
    router.set_base_prompt()
    lines = show_lines({**EXAMPLES, **NAMES})
    said = {line: router.send_command(line) for line in lines}
    lab.client.stop("forward0")

    assert len(lines) > 90
    refused = {line: text for line, text in said.items() if re.search("^ *%", text, re.MULTILINE)}
    assert {line for line in refused if not ABSENT.match(line)} == set(), refused
    assert not [line for line, text in said.items() if any(key in text for key in KEYS)]
    assert [line for line, text in said.items() if "---(more)---" in text or "[lan]a" in text] == []
    assert re.search(r"^t0 +manual +9\.9\.1\.1 +9\.9\.2\.1 +1/1 +\d+ +Up$", said["show tunnel"], re.MULTILINE)
    assert said["show configuration"].endswith("\nend")
    assert "pre-shared-key" in said["show ike policy spare"]

    flow = lab.client.report("forward0", final=True)
    assert flow["sent"] > 3 * RATE
    assert (flow["lost"], flow["duplicated"], flow["reordered"], flow["corrupted"]) == (0, 0, 0, 0)


def test_templates_find_the_fields_of_version_and_arp(lab: SshLab, router: Any) -> None:
    from netmiko import ConnectHandler

    router.send_command("context wan", expect_string=r"\[wan\]a#")
    router.set_base_prompt()
    rows = router.send_command("show arp", use_textfsm=True, raise_parsing_error=True)
    assert {(row["host"], row["type"], row["circuit"]) for row in rows} == {
        ("172.16.0.1", "ARPA", "3/2"),
        ("172.16.0.2", "ARPA", "3/2"),
    }
    own, other = sorted(rows, key=lambda row: row["host"])
    assert own["ttl"] == "-"
    assert 0 < int(other["ttl"]) <= 3600
    assert re.fullmatch("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", other["mac_address"])
    rows = router.send_command("show arp all-context", use_textfsm=True, raise_parsing_error=True)
    assert {(row["host"], row["context"], row["context_id"]) for row in rows} >= {
        ("11.255.255.254", "lan", "0x40080002"),
        ("172.16.0.2", "wan", "0x40080003"),
    }
    with ConnectHandler(**lab.netmiko("b")) as other_router:
        (version,) = other_router.send_command("show version", use_textfsm=True, raise_parsing_error=True)
    assert version["version"] == "20.3.1.803.142"
    assert re.fullmatch(r"\d+ hours \d+ minutes \d+ seconds", version["uptime"])


def test_a_wrong_password_does_not_log_in(lab: SshLab) -> None:
    from netmiko import ConnectHandler, NetmikoAuthenticationException

    with pytest.raises(NetmikoAuthenticationException):
        ConnectHandler(**lab.netmiko("a", password="wrong"))


def test_the_driver_is_found_by_the_banner(detected: Future[str | None]) -> None:
    assert detected.result(timeout=60) == "ericsson_ipos"
