"""Netmiko's driver `ericsson_ipos`, unchanged, works at routers over SSH; ntc-templates read what it gets.

Netmiko waits seconds for output that does not come, so its scripts run at once, as those of several operators do,
while packets go through a tunnel between the two routers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
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

RATE = 200
"""Packets a second through the tunnel."""

ABSENT = re.compile(
    r"show (pki (key-pair t0|certificate .* (identity|handle) )|tunnel ipsec .* (on-demand|ike)|.* candidate)"
)
"""Commands about what is not there: certificates, keys, an on-demand tunnel, IKE of a tunnel with manual keys, and
a candidate in exec mode."""

KEYS = ("5a" * 20, "a5" * 16, "NeverShownToAnybody")

Script = Callable[[SshLab], None]


def login(lab: SshLab, node: str, **more: Any) -> Any:
    """Netmiko's connection to a router."""
    from netmiko import ConnectHandler

    return ConnectHandler(**lab.netmiko(node, **more))


def every_show_command_answers(lab: SshLab) -> None:
    with login(lab, "a") as router:
        assert router.base_prompt == "[local]a"
        assert router.check_enable_mode()
        router.send_command("context lan", expect_string=r"\[lan\]a#")
        router.set_base_prompt()
        lines = show_lines({**EXAMPLES, **NAMES})
        said = {line: router.send_command(line) for line in lines}
    assert len(lines) > 90
    refused = {line: text for line, text in said.items() if re.search("^ *%", text, re.MULTILINE)}
    assert {line for line in refused if not ABSENT.match(line)} == set(), refused
    assert [line for line, text in said.items() if any(key in text for key in KEYS)] == []
    assert [line for line, text in said.items() if "---(more)---" in text or "[lan]a" in text] == []
    assert re.search(r"^t0 +manual +9\.9\.1\.1 +9\.9\.2\.1 +1/1 +\d+ +Up$", said["show tunnel"], re.MULTILINE)
    assert said["show configuration"].endswith("\nend")
    assert "pre-shared-key" in said["show ike policy spare"]


def templates_find_the_fields_of_version_and_arp(lab: SshLab) -> None:
    with login(lab, "a") as router:
        router.send_command("context wan", expect_string=r"\[wan\]a#")
        router.set_base_prompt()
        rows = router.send_command("show arp", use_textfsm=True, raise_parsing_error=True)
        of_all = router.send_command("show arp all-context", use_textfsm=True, raise_parsing_error=True)
    assert {(row["host"], row["type"], row["circuit"]) for row in rows} == {
        ("172.16.0.1", "ARPA", "3/2"),
        ("172.16.0.2", "ARPA", "3/2"),
    }
    own, other = sorted(rows, key=lambda row: str(row["host"]))
    assert own["ttl"] == "-"
    assert 0 < int(other["ttl"]) <= 3600
    assert re.fullmatch("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", other["mac_address"])
    assert {(row["host"], row["context"], row["context_id"]) for row in of_all} >= {
        ("11.255.255.254", "lan", "0x40080002"),
        ("172.16.0.2", "wan", "0x40080003"),
    }
    with login(lab, "b") as router:
        (version,) = router.send_command("show version", use_textfsm=True, raise_parsing_error=True)
    assert version["version"] == "20.3.1.803.142"
    assert re.fullmatch(r"\d+ hours \d+ minutes \d+ seconds", version["uptime"])


def lines_are_committed(lab: SshLab) -> None:
    with login(lab, "a") as router:
        said = router.send_config_set(["context lan", "interface made", "ip address 10.77.0.1/24"])
        assert "[local]a(config-if)#" in said
        assert "%" not in said
        # The driver wants the router's word that it is done.
        assert "Transaction committed" in router.commit(comment="by a script")
        assert router.find_prompt() == "[local]a#"
        assert "interface made\n  ip address 10.77.0.1/24" in router.send_command("show configuration")


def errors_are_seen_and_commit_nothing(lab: SshLab) -> None:
    from netmiko.exceptions import ConfigInvalidException

    with login(lab, "a") as router:
        lines = ["context lan", "interface never", "ip address 10.77.999.1/24", "interface neither"]
        with pytest.raises(ConfigInvalidException, match=r"ip address 10\.77\.999\.1/24, matched error: % "):
            router.send_config_set(lines, error_pattern=r"^% ")
        # Each line is right: that the tunnel's SPI is another's already is seen on the whole.
        second = [
            "tunnel ipsec never manual",
            "peer-end-point local 9.9.1.1 remote 9.9.2.1 context wan",
            "seq 10 security-association sa0",
        ]
        assert "%" not in router.send_config_set(second, enter_config_mode=False)
        with pytest.raises(
            ValueError, match=r"(?s)Commit failed.*\n% Error: .*SPI 10000 to 9\.9\.1\.1"
        ) as refused:
            router.commit()
        assert "Transaction committed" not in str(refused.value)
        assert "Transaction aborted" in router.send_command("abort", expect_string="#")
        router.send_command("end", expect_string=r"\[local\]a#")
        assert "never" not in router.send_command("show configuration")


def a_commit_on_trial_is_confirmed(lab: SshLab) -> None:
    with login(lab, "b") as router:
        router.send_config_set(["context lan", "interface tried", "ip address 10.78.0.1/24"])
        said = router.commit(confirm=True, confirm_delay=7)
        assert "Commit confirmed ,it will be rolled back within 7 minutes" in said
        assert "interface tried" in router.send_command("show configuration")
        router.send_command("configure", expect_string=r"\(config\)#")
        assert "Transaction committed" in router.send_command("commit", expect_string=r"\(config\)#")


def the_configuration_is_saved(lab: SshLab) -> None:
    with login(lab, "a") as router:
        router.send_command("save configuration", expect_string=r"\[local\]a#")
        # The driver answers yes to the question whether the file may be written again.
        said = router.save_config()
        assert "overwrite" in said
        assert "%" not in said
        assert "redback.cfg" in router.send_command("dir /flash")


def a_first_save_asks_nothing(lab: SshLab) -> None:
    with login(lab, "b") as router:
        # The driver's yes is then a command, and a wrong one.
        assert re.search(r"\[local\]b#yes\n +\^\n% Invalid input", router.save_config())
        assert "redback.cfg" in router.send_command("dir /flash")


def privileges_are_asked_for_and_given_back(lab: SshLab) -> None:
    given = {"username": ssh_lab.READER, "password": ssh_lab.READER_PASSWORD}
    with login(lab, "a", secret="none of these", **given) as reader:
        assert reader.find_prompt() == "[local]a>"
        assert "Invalid input" in reader.send_command("configure")
        with pytest.raises(ValueError, match="Failed to enter enable mode"):
            reader.enable()
        assert not reader.check_enable_mode()
        reader.secret = ssh_lab.ENABLE_PASSWORD
        assert ssh_lab.ENABLE_PASSWORD not in reader.enable()
        assert reader.find_prompt() == "[local]a#"
        reader.exit_enable_mode()
        assert reader.find_prompt() == "[local]a>"


def a_wrong_password_does_not_log_in(lab: SshLab) -> None:
    from netmiko import NetmikoAuthenticationException

    with pytest.raises(NetmikoAuthenticationException):
        login(lab, "a", password="wrong")


def the_driver_is_found_by_the_banner(lab: SshLab) -> None:
    from netmiko import SSHDetect

    assert SSHDetect(**lab.netmiko("b", device_type="autodetect")).autodetect() == "ericsson_ipos"


SCRIPTS: tuple[Script, ...] = (
    every_show_command_answers,
    the_driver_is_found_by_the_banner,
    lines_are_committed,
    errors_are_seen_and_commit_nothing,
    a_commit_on_trial_is_confirmed,
    the_configuration_is_saved,
    a_first_save_asks_nothing,
    privileges_are_asked_for_and_given_back,
    a_wrong_password_does_not_log_in,
    templates_find_the_fields_of_version_and_arp,
)


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> SshLab:
    ssh_lab.need("ntc_templates", "netmiko")
    return ssh_lab.start(shared_lab_factory, tmp_path_factory.mktemp("netmiko"), RATE)


@pytest.fixture(scope="module")
def ran(lab: SshLab) -> Mapping[Script, Future[None]]:
    """Every script, run to its end while packets flowed."""
    # The first packets find the neighbours: more would not wait for them.
    lab.client.start("forward0", count=5)
    lab.client.wait_until("flow forward0 received >= 5")
    lab.client.start("forward0")
    with ThreadPoolExecutor(len(SCRIPTS)) as threads:
        running = {script: threads.submit(script, lab) for script in SCRIPTS}
        wait(running.values())
    lab.client.stop("forward0")
    lab.client.drain("forward0")
    return running


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.__name__))
def test_a_script_does_its_work(ran: Mapping[Script, Future[None]], script: Script) -> None:
    ran[script].result()


@pytest.mark.usefixtures("ran")
def test_no_packet_is_lost_meanwhile(lab: SshLab) -> None:
    flow = lab.client.report("forward0", final=True)
    assert flow["sent"] > 5 * RATE
    ledger = lab.client.accounting()
    assert flow["lost"] == 0, f"dropped {ledger.dropped}, overflowed {ledger.overflowed}, {ledger.unexplained}"
    assert (flow["duplicated"], flow["reordered"], flow["corrupted"]) == (0, 0, 0)
