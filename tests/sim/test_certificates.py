"""Certificates that operators type in act on the next negotiation, without a commit: simulated routers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chassis.ase.ike.v1 import phase1_exchange
from chassis.ase.ike.v2 import ike_auth
from chassis.sim.ike_process_model import WALL
from tests.support.authority import Authority
from tests.support.cli import CliRig
from tests.support.pki_typing import ADDRESSES, CONTEXT, TUNNEL, answers, written
from tests.support.sim_shell import SimShell

TODAY = datetime.fromtimestamp(WALL, UTC)


class Routers:
    """The lab, a session in context vpn of each router, and an authority."""

    def __init__(self, folder: Path, version: int) -> None:
        self.version = version
        self.shell = SimShell(written(folder, version))
        self.sessions = {name: CliRig(partial(self.shell.ask, name), context=CONTEXT) for name in ADDRESSES}
        for rig in self.sessions.values():
            rig.start()
        self.authority = Authority(bits=1024, today=TODAY, days=600)

    def type(self, router: str, *lines: str) -> str:
        return "".join(self.sessions[router].type(f"{line}\r") for line in lines)

    def request(self, router: str, **wanted: object) -> str:
        """Type a request for key pair k, and return its PEM."""
        given = {"pair": "k", "name": f"router {router}", "address": ADDRESSES[router], **wanted}
        said = self.type(router, "add pki certificate-request rsa r file r.pem", *answers(**given), "y")  # type: ignore[arg-type]
        assert "Certificate request r is in /flash/r.pem" in said
        return self.shell.routers[router].disk.flash["r.pem",].decode()

    def paste(self, router: str, what: str, pem: str) -> str:
        said = self.type(router, f"import pki {what} file terminal", *pem.splitlines(), "")
        assert "Imported" in said
        return said.rpartition("handle ")[2].split()[0]

    def own(self, router: str, pem: str) -> None:
        self.paste(router, "certificate self rsa key-pair k", pem)

    def trust(self, router: str, pem: str) -> str:
        return self.paste(router, "certificate trusted rsa", pem)

    def clear(self) -> None:
        assert "%" not in self.type("a", f"clear ike sa tunnel {TUNNEL}")

    def log(self, router: str) -> list[str]:
        return [record["text"] for record in self.shell.ask(router, "log", {})["records"]]

    def spis(self) -> set[int]:
        """The SPIs of the tunnel's SAs at router a."""
        (tunnel,) = self.shell.ask("a", "status", {})["tunnels"]
        return {sa["spi"] for sa in tunnel["sas"]}

    def up(self) -> bool:
        return self.shell.tunnels_up()

    def refuses(self, router: str, why: str) -> None:
        """Once the SAs are cleared the router refuses the peer's certificate, which it did not before."""
        self.shell.pass_time(3.0)
        assert self.up()
        before = len(self.log(router))
        self.clear()
        self.shell.wait_until(lambda: any(why in text for text in self.log(router)[before:]))
        assert not self.up()


@pytest.fixture(params=[1, 2], ids=["IKEv1", "IKEv2"])
def routers(request: pytest.FixtureRequest, tmp_path: Path) -> Routers:
    """Two routers with a tunnel that has come up by certificates alone, which were typed in."""
    made = Routers(tmp_path, request.param)
    for router in ADDRESSES:
        assert made.shell.ask(router, "tunnels", {})["tunnels"][0]["reason"].startswith("certificate: ")
        made.type(router, "add pki key-pair k rsa 1024")
        made.trust(router, made.authority.certificate)
        made.own(router, made.authority.sign(made.request(router)))
    made.shell.wait_until(made.up)
    return made


REFUSED: dict[str, tuple[Callable[[Routers], str], str]] = {
    "expired": (lambda on: on.authority.sign(on.request("a"), days=-1, begins=-9), "expired on 2023-11-13"),
    "not yet valid": (
        lambda on: on.authority.sign(on.request("a"), begins=5), "is not valid before 2023-11-19"
    ),
    "foreign": (
        lambda on: Authority("Foreign CA", 1024, TODAY).sign(on.request("a")), "untrusted issuer CN=Foreign CA"
    ),
    "wrong name": (lambda on: on.authority.sign(on.request("a", address="30.0.0.9")), "30.0.0.1"),
    "wrong usage": (
        lambda on: on.authority.sign(on.request("a", usages=("KeyEncipherment",))),
        "has neither digitalSignature nor nonRepudiation",
    ),
}  # fmt: skip
"""Certificates that router b does not take from router a, and what it says."""


@pytest.mark.behaviour("B-052", "B-055", "B-056")
def test_a_new_certificate_is_shown_in_the_next_negotiation_and_judged_there(routers: Routers) -> None:
    good = routers.authority.sign(routers.request("a"))
    for made, why in REFUSED.values():
        routers.own("a", made(routers))
        routers.refuses("b", why)
        routers.own("a", good)
        routers.shell.wait_until(routers.up, within=120.0)


@pytest.mark.behaviour("B-062")
def test_signatures_are_made_while_a_tunnel_is_set_up_and_at_no_other_time(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            used.append(name)
            return function(*arguments)

        return call

    for name in ("rsa_auth", "rsa_verify", "digital_auth", "digital_verify"):
        monkeypatch.setattr(ike_auth, name, counted(name, getattr(ike_auth, name)))
    for name in ("v1_sign", "v1_verify"):
        monkeypatch.setattr(phase1_exchange, name, counted(name, getattr(phase1_exchange, name)))
    shell = routers.shell
    shell.send(200)
    spis = routers.spis()
    shell.ask("a", "rekey", {"tunnel": TUNNEL})
    shell.wait_until(lambda: routers.spis().isdisjoint(spis))
    shell.send(200)
    assert {name: (flow["received"], flow["lost"]) for name, flow in shell.flows().items()} == {
        "forward": (400, 0),
        "reverse": (400, 0),
    }
    assert used == []
    routers.clear()
    shell.wait_until(lambda: used and routers.up())
    assert len(used) == 4


@pytest.mark.behaviour("B-060")
def test_an_authority_that_is_no_longer_trusted_counts_for_no_peer(routers: Routers) -> None:
    other = Authority("Other CA", 1024, TODAY, 600)
    routers.trust("b", other.certificate)
    (handle,) = (
        row["handle"]
        for row in routers.shell.data("b", "show pki certificate trusted rsa", CONTEXT)
        if row["subject"] == "CN=Test CA"
    )
    assert "Removed certificate CN=Test CA" in routers.type("b", f"remove pki certificate {handle}", "y")
    routers.refuses("b", "untrusted issuer CN=Test CA")
    routers.own("a", other.sign(routers.request("a")))
    routers.shell.wait_until(routers.up, within=120.0)


@pytest.mark.behaviour("B-052")
def test_a_context_without_a_certificate_takes_its_tunnel_down(routers: Routers) -> None:
    (row,) = routers.shell.data("b", "show pki certificate trusted rsa", CONTEXT)
    routers.type("b", f"remove pki certificate {row['handle']}", "y")
    said = routers.shell.ask("b", "tunnels", {})["tunnels"][0]["reason"]
    assert said == "certificate: context vpn has no trusted certificate"
    routers.shell.pass_time(2.0)
    rows = routers.shell.data("b", "show alarms")["alarms"]
    assert ("context vpn", "noValidTrustedCertificate") in [(row["object"], row["alarm"]) for row in rows]
    assert routers.trust("b", routers.authority.certificate) == row["handle"]
    routers.shell.wait_until(routers.up, within=120.0)


def filled(flash: Path, authority: Authority, address: str) -> None:
    """A folder that a router's flash is filled from, with the authority and a certificate of it."""
    ours = authority.issue("router", address, days=600)
    for name, text in (
        ("trusted/ca", authority.certificate),
        ("self/router", ours.certificate),
        ("keys/router", ours.key),
    ):
        file = flash / "pki" / CONTEXT / f"{name}.pem"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_what_a_flash_was_filled_with_stays_beside_what_is_typed(tmp_path: Path) -> None:
    authority = Authority(bits=1024, today=TODAY, days=600)
    lab = written(tmp_path, 2)
    text = lab.read_text()
    for router, address in ADDRESSES.items():
        filled(tmp_path / f"flash-{router}", authority, address)
        text = text.replace(f"config: {router}.cfg", f"config: {router}.cfg, flash: flash-{router}")
    lab.write_text(text)
    shell = SimShell(lab)
    shell.wait_until(shell.tunnels_up)
    rig = CliRig(partial(shell.ask, "a"), context=CONTEXT)
    rig.start()
    assert "% Error" not in rig.type("add pki key-pair more rsa 1024\r")

    def holds() -> set[str]:
        return {row["name"] for row in shell.data("a", "show pki key-pair", CONTEXT)}

    assert holds() == {"router", "more"}
    rig.type(f"clear ike sa tunnel {TUNNEL}\r")
    shell.pass_time(0.5)
    shell.wait_until(shell.tunnels_up)
    controller = shell.routers["a"].controller
    assert controller is not None
    controller.kill()
    shell.pass_time(5.0)
    assert holds() == {"router", "more"}
    assert shell.tunnels_up()
