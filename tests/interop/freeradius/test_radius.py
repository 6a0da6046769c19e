"""The RADIUS client against FreeRADIUS: keys and profiles, rejects, fail-over, accounting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.aaa.accounting_record import AccountingRecord, Status, TerminateCause
from chassis.aaa.actions import AccountingAcknowledged, Authorized, Rejected, Unreachable
from chassis.aaa.answers import AccessAnswer
from chassis.aaa.settings import AaaConfig, AaaSettings, ServerAddress
from tests.support import ROOT
from tests.support.freeradius import FreeRadius, SocketClient, require_freeradius

pytestmark = pytest.mark.multiprocess

USERS = """\
DEFAULT Service-Type != Outbound-User, Auth-Type := Reject

gw.example.com Cleartext-Password := "Redback"
    Security-Service = "ike pre-shared-key secret1;ipsec profile branch",
    Framed-IP-Address = 10.50.0.7,
    Framed-IP-Netmask = 255.255.255.0,
    Framed-Pool = "clients",
    Session-Timeout = 3600,
    Acct-Interim-Interval = 600,
    Client-DNS-Pri = 10.0.0.53,
    MS-Primary-DNS-Server = 10.0.1.53,
    Class = 0x3078414200ff,
    Message-Authenticator = 0x00

hex.example.com Cleartext-Password := "Redback"
    Security-Service = "ike pre-shared-key hex 00ff7a",
    Message-Authenticator = 0x00

unsigned.example.com Cleartext-Password := "Redback"
    Security-Service = "ike pre-shared-key secret2"

closed.example.com Auth-Type := Reject
    Reply-Message = "account closed",
    Message-Authenticator = 0x00
"""


PAGE = (ROOT / "docs" / "radius.md").read_text().partition("```users\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeRadius]:
    require_freeradius()
    made = FreeRadius(tmp_path_factory.mktemp("radius"), USERS)
    made.start()
    yield made
    made.kill()


def config(*servers: ServerAddress, books: FreeRadius | None = None) -> AaaConfig:
    listed = () if books is None else (books.accounting,)
    return AaaConfig("R1", {"vpn": AaaSettings(servers, listed, timeout=1.0, accounting=books is not None)})


@pytest.fixture
def client(server: FreeRadius) -> Iterator[SocketClient]:
    made = SocketClient(config(server.authentication, books=server))
    yield made
    made.close()


@pytest.mark.behaviour("B-094", "B-095")
def test_keys_profiles_and_terms_come_from_the_server(client: SocketClient, server: FreeRadius) -> None:
    answer = client.ask("gw.example.com")
    assert isinstance(answer, Authorized), answer
    assert answer.answer == AccessAnswer(
        key=b"secret1", profile="branch", address="10.50.0.7", netmask="255.255.255.0", pool="clients",
        session_timeout=3600, interim_interval=600, dns=("10.0.0.53", "10.0.1.53"), classes=(b"0xAB\0\xff",),
        server=f"RADIUS server 127.0.0.1 port {server.authentication.port} of context vpn",
    )  # fmt: skip
    answer = client.ask("hex.example.com")
    assert isinstance(answer, Authorized), answer
    assert (answer.answer.key, answer.answer.profile) == (b"\0\xffz", None)


def test_the_users_of_the_page_have_the_keys_that_it_says(tmp_path: Path) -> None:
    require_freeradius()
    server = FreeRadius(tmp_path, PAGE)
    server.start()
    client = SocketClient(config(server.authentication))
    try:
        answers = [client.ask(name) for name in ("gw.example.com", "lyon.example.com", "nobody.example.com")]
        first, second, nobody = answers
        assert isinstance(first, Authorized)
        assert isinstance(second, Authorized)
        assert isinstance(nobody, Rejected)
        assert (first.answer.key, first.answer.profile) == (b"secret1", None)
        assert (second.answer.key, second.answer.profile, second.answer.pool) == (
            b"\0\xffz",
            "branches",
            "clients",
        )
    finally:
        client.close()
        server.kill()


def test_a_reject_comes_with_its_reason(client: SocketClient) -> None:
    closed = client.ask("closed.example.com")
    assert isinstance(closed, Rejected)
    assert closed.reason.endswith("rejected: account closed")
    assert len(client.sent) == 1


def test_wrong_secrets_and_unsigned_accepts_are_no_answers(server: FreeRadius) -> None:
    """The server drops a question under another secret, and we an accept that is not signed."""
    for address, identity in (
        (replace(server.authentication, secret=b"another"), "gw.example.com"),
        (server.authentication, "unsigned.example.com"),
    ):
        client = SocketClient(AaaConfig("R1", {"vpn": AaaSettings((address,), timeout=0.2, retries=1)}))
        assert isinstance(client.ask(identity), Unreachable)
        client.close()
    assert client.client.status()[0].counters["unsigned replies"] >= 1
    relaxed = SocketClient(config(replace(server.authentication, signed=False)))
    assert isinstance(relaxed.ask("unsigned.example.com"), Authorized)
    relaxed.close()


def record(number: int, status: Status, **other: object) -> AccountingRecord:
    values = {"user": "gw.example.com", "time": time.time(), "address": "10.50.0.7", "profile": "branch"}
    return AccountingRecord(f"3-{number}-{status}", f"3-{number}", status, "vpn", **{**values, **other})  # type: ignore[arg-type]


def test_sessions_are_in_the_books(client: SocketClient, server: FreeRadius) -> None:
    counts = {
        "input_octets": (2 << 32) + 5,
        "output_octets": 7,
        "input_packets": (1 << 32) + 3,
        "output_packets": 4,
    }
    client.account(record(1, "start", classes=(b"0xAB\0\xff",)))
    client.account(record(1, "interim", seconds=600, **counts))
    client.run_until(lambda: len([one for one in client.done if isinstance(one, AccountingAcknowledged)]) == 2)
    client.account(record(1, "stop", seconds=700, cause=TerminateCause.SESSION_TIMEOUT, **counts))
    client.run_until(lambda: AccountingAcknowledged("3-1-stop") in client.done)
    books = [entry for entry in server.detail() if entry["Acct-Session-Id"] == '"3-1"']
    assert [entry["Acct-Status-Type"] for entry in books] == ["Start", "Interim-Update", "Stop"]
    start, _, stop = books
    assert (start["Class"], start["NAS-Identifier"], start["Security-Service"]) == (
        "0x3078414200ff", '"R1"', '"ipsec profile branch"',
    )  # fmt: skip
    assert (stop["Acct-Input-Gigawords"], stop["Acct-Input-Octets"], stop["Acct-Input-Packets-64"]) == (
        "2", "5", str((1 << 32) + 3),
    )  # fmt: skip
    assert (stop["Acct-Session-Time"], stop["Acct-Terminate-Cause"]) == ("700", "Session-Timeout")


@pytest.mark.behaviour("B-098")
def test_another_server_is_asked_when_one_dies_and_no_report_is_lost(server: FreeRadius, tmp_path: Path) -> None:
    first = FreeRadius(tmp_path, USERS)
    first.start()
    settings = AaaSettings(
        (first.authentication,), (first.accounting,), timeout=0.3, retries=1, dead_time=0.5,
        global_fallback=True, accounting=True,
    )  # fmt: skip
    local = AaaSettings((server.authentication,), timeout=1.0)
    client = SocketClient(AaaConfig("R1", {"vpn": settings, "local": local}))
    try:
        answer = client.ask("gw.example.com")
        assert isinstance(answer, Authorized)
        assert answer.answer.server.endswith("of context vpn")
        first.kill()
        client.account(record(2, "start"))
        answer = client.ask("hex.example.com")
        assert isinstance(answer, Authorized)
        assert answer.answer.server.endswith("of context local")
        client.run_until(lambda: any("rests" in getattr(one, "text", "") for one in client.done))
        kept = [AccountingRecord.from_json(one.to_json()) for one in client.client.pending_accounting()]
        client.close()
        first.start()
        # The controller was killed meanwhile: its successor has what was kept.
        client = SocketClient(AaaConfig("R1", {"vpn": settings}))
        for one in kept:
            client.account(one)
        client.run_until(lambda: AccountingAcknowledged("3-2-start") in client.done)
        assert [entry["Acct-Session-Id"] for entry in first.detail()] == ['"3-2"']
    finally:
        client.close()
        first.kill()
