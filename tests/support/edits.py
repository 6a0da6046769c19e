"""Random commits of a few lines: objects of few names, so that they meet, go missing, and take from each other."""

from __future__ import annotations

import random
from collections.abc import Callable

CONTEXTS = ("local", "vpn-A", "vpn-B", "vpn-C")
INTERFACES = ("if-1", "if-2", "if-3", "lo-1", "lo-2", "mb")
POLICIES = ("pol-1", "pol-2", "pol-3", "qol-1")
PROPOSALS = ("key-1", "key-2", "mey-1")
IPSEC = ("esp-1", "esp-2", "esp-3")
ACLS = ("acl-1", "acl-2", "acl-3")
SAS = ("manual-1", "manual-2", "manual-3")
TUNNELS = ("t1", "t2", "t3", "t4", "t5", "m1", "m2", "m3", "d1", "d2")
ADDRESSES = ("10.1.1.1", "10.1.1.5", "10.2.0.1", "10.3.0.1", "20.0.0.1")
PEERS = ("20.0.0.2", "20.0.0.3", "30.0.0.2", "10.1.1.2")
IDENTITIES = (*PEERS, "*", "0.0.0.0", "*.b.example", "*.*.example", "B.example", "b.example", "*b.example")
PREFIXES = ("50.0.0.0/8", "50.1.0.0/16", "60.0.0.0/8", "20.0.0.0/8", "30.0.0.0/24")
PORTS = ("3/1", "3/2", "4/1", "3/30")
SUITES = ("hmac-sha1-96", "hmac-md5-96")

BASE = """\
card ase 1
card ether-20-port 3
card ether-20-port 4
asp pool P1 service security
  asp 1/1
asp pool P2 service security
  asp 1/2
asp group G1
  pool P1
asp group G2
  pool P2
"""


class Edits:
    """Commits drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._kinds: tuple[tuple[int, Callable[[], list[str]]], ...] = (
            (6, self._interface),
            (3, self._route),
            (4, self._policy),
            (3, self._acl),
            (3, self._service),
            (2, self._profile),
            (10, self._tunnel),
            (2, self._proposal),
            (3, self._ipsec),
            (4, self._sa),
            (2, self._port),
            (1, self._pool),
            (1, self._card),
            (1, self._qos),
            (1, self._mark),
            (1, self._context),
            (3, self._aaa),
        )

    def text(self, most: int = 5) -> str:
        """Return the lines of one commit."""
        makers = self._chance.choices(
            [make for _, make in self._kinds],
            [weight for weight, _ in self._kinds],
            k=self._chance.randint(1, most),
        )
        return "\n".join(line for make in makers for line in make()) + "\n"

    def _pick(self, names: tuple[str, ...]) -> str:
        return self._chance.choice(names)

    def _often(self, share: float = 0.75) -> bool:
        return self._chance.random() < share

    def _inside(self, lines: list[str]) -> list[str]:
        return [f"context {self._pick(CONTEXTS)}", *lines]

    def _interface(self) -> list[str]:
        name = self._pick(INTERFACES)
        kind = " loopback" if name.startswith("lo") else " ipsec multibind" if name == "mb" else ""
        if not self._often():
            return self._inside([f"no interface {name}"])
        body = f"ip address {self._pick(ADDRESSES)}/{32 if kind else self._pick(('24', '30', '8'))}"
        if name == "mb" or not self._often(0.8):
            body = f"ip unnumbered {self._pick(INTERFACES)}" if self._often(0.9) else "no ip unnumbered"
        return self._inside([f"interface {name}{kind}", body])

    def _route(self) -> list[str]:
        way = self._pick(PEERS) if self._often(0.4) else self._pick((*INTERFACES, "null0"))
        line = f"ip route {self._pick(PREFIXES)} {way}"
        return self._inside([f"{line} cost {self._chance.randint(1, 9)}" if self._often() else f"no {line}"])

    def _policy(self) -> list[str]:
        name = self._pick(POLICIES)
        version = "2" if name.startswith("q") else ""
        if not self._often(0.8):
            return self._inside([f"no ike{version} policy {name}"])
        lines = [f"ike{version} policy {name}", f"pre-shared-key {self._pick(('one', 'two', 'use-aaa'))}"]
        lines.append(
            f"{'' if self._often() else 'no '}seq {self._pick(('10', '20'))} proposal {self._pick(PROPOSALS)}"
        )
        if lines[-1].startswith("no"):
            lines[-1] = lines[-1].partition(" proposal")[0]
        if self._often(0.5):
            lines.append(f"identity remote {self._pick(PEERS)}")
        if not version and self._often(0.3):
            lines.append("mode aggressive" if self._often(0.5) else "validate-certificate-identity")
        return self._inside(lines)

    def _acl(self) -> list[str]:
        name = self._pick(ACLS)
        if not self._often():
            return self._inside([f"no ipsec access-list {name}"])
        return self._inside(
            [f"ipsec access-list {name}", f"seq {self._pick(('10', '20'))} 10.0.0.0/8 {self._pick(PREFIXES)}"]
        )

    def _service(self) -> list[str]:
        if not self._often(0.85):
            return self._inside(["no asp-group"])
        return self._inside([f"asp-group {self._pick(('G1', 'G1', 'G2', 'G3'))} service security"])

    def _profile(self) -> list[str]:
        name = self._pick(("d1", "d2"))
        if not self._often():
            return self._inside([f"no ipsec profile {name}"])
        return self._inside([f"ipsec profile {name}", f"seq 10 {self._entry('')}"])

    def _aaa(self) -> list[str]:
        """Lines about RADIUS and pools."""
        server = f"radius server {self._pick(PEERS)}"
        pool = f"ip pool {self._pick(('p1', 'p2'))}"
        no = "" if self._often(0.6) else "no "
        lines = (
            server if no else f"{server} key {self._pick(('one', 'two'))}",
            "aaa authentication subscriber radius global",
            f"radius attribute nas-ip-address interface {self._pick(INTERFACES)}",
            pool if no else f"{pool} {self._pick(PREFIXES)}",
        )
        return self._inside([f"{no}{self._pick(lines)}"])

    def _context(self) -> list[str]:
        return [
            f"no context {self._pick(CONTEXTS[1:])}" if self._often(0.4) else f"context {self._pick(CONTEXTS)}"
        ]

    def _tunnel(self) -> list[str]:
        name = self._pick(TUNNELS)
        if not self._often(0.85):
            return [f"no tunnel ipsec {name}"]
        kind = {"m": " manual", "d": " on-demand"}.get(name[0], "")
        lines = [f"tunnel ipsec {name}{kind}{' economical' if name in ('t5', 'm3') else ''}"]
        interfaces = INTERFACES if kind != " manual" else INTERFACES[:3]
        makers: list[Callable[[], str]] = [
            lambda: f"bind interface {self._pick(interfaces)} {self._pick(CONTEXTS)}",
        ]
        if kind != " on-demand":
            makers.append(self._ends)
            makers.append(lambda: f"seq {self._pick(('10', '20'))} {self._entry(kind)}")
        else:
            makers.append(lambda: f"peer-end-point local {self._pick(ADDRESSES)} context {self._pick(CONTEXTS)}")
        if kind != " manual":
            makers.append(lambda: f"ike-policy {self._pick(POLICIES)}")
        lines += [make() for make in makers if self._often(0.8)]
        if self._often(0.15):
            lines.append("no seq 10" if kind != " on-demand" else "no peer-end-point")
        if self._often(0.15) and kind != " on-demand":
            lines.append(self._pick(("shutdown", "no shutdown", "mtu 1400", "no mtu")))
        if self._often(0.25):
            lines.append(
                self._pick(
                    (
                        f"remote-id {self._pick(IDENTITIES if kind == ' on-demand' else IDENTITIES[:6])}",
                        "no remote-id",
                        f"qos policy queuing {self._pick(('w', 'v'))}",
                    )
                )
            )
        return lines

    def _ends(self) -> str:
        ends = f"local {self._pick(ADDRESSES)} remote {self._pick(PEERS)}"
        return f"peer-end-point {ends} context {self._pick(CONTEXTS)}"

    def _entry(self, kind: str) -> str:
        what = (
            f"security-association {self._pick(SAS)}" if kind == " manual" else f"ipsec-policy {self._pick(IPSEC)}"
        )
        return f"{what} access-group {self._pick(ACLS)}" if self._often() else what

    def _proposal(self) -> list[str]:
        name = self._pick(PROPOSALS)
        version = "2" if name.startswith("m") else ""
        if not self._often(0.8):
            return [f"no ike{version} proposal {name}"]
        return [f"ike{version} proposal {name}", f"authentication algorithm {self._pick(SUITES)}"]

    def _ipsec(self) -> list[str]:
        name, proposal = self._pick(IPSEC), self._pick(("y1", "y2"))
        if not self._often(0.7):
            return [f"no ipsec policy {name}" if self._often(0.6) else f"no ipsec proposal {proposal}"]
        return [
            f"ipsec proposal {proposal}",
            self._pick(("esp encryption aes-128-cbc", "esp encryption null", "lifetime seconds 4000")),
            f"ipsec policy {name}",
            f"seq {self._pick(('10', '20'))} proposal {self._pick(('y1', 'y2', 'y3'))}",
        ]

    def _sa(self) -> list[str]:
        name = self._pick(SAS)
        if not self._often(0.85):
            return [f"no ipsec security-association {name}"]
        spi = self._chance.choice((300, 301))
        lines = [f"ipsec security-association {name}", self._pick(("both", "both", "both", "in"))]
        lines += [f"esp authentication hmac-sha1-96 key 0x{spi:040x}", f"esp spi {spi}"]
        return lines[: self._chance.choice((3, 4, 4, 4))]

    def _port(self) -> list[str]:
        name = self._pick(PORTS)
        if not self._often(0.8):
            return [f"no port ethernet {name}" if self._often(0.5) else f"port ethernet {name}", "shutdown"][:2]
        return [
            f"port ethernet {name}",
            "no shutdown",
            f"bind interface {self._pick(INTERFACES[:3])} {self._pick(CONTEXTS)}",
        ]

    def _pool(self) -> list[str]:
        if self._often(0.5):
            return [
                f"asp pool {self._pick(('P1', 'P2'))} service security",
                f"{self._pick(('', 'no '))}asp 1/{self._pick(('1', '2'))}",
            ]
        return [
            f"asp group {self._pick(('G1', 'G2', 'G3'))}",
            f"{self._pick(('', 'no '))}pool {self._pick(('P1', 'P2', 'P3'))}",
        ]

    def _card(self) -> list[str]:
        return [
            self._pick(
                ("no card ase 1", "card ase 1", "card ase 1", "no card ether-20-port 4", "card ether-20-port 4")
            )
        ]

    def _mark(self) -> list[str]:
        name, port = self._pick(("x", "y")), self._pick(PORTS)
        pool = f"asp pool {self._pick(('P1', 'P2'))} service security"
        choices = (
            [f"qos policy {name} policing", f"mark priority {self._chance.randint(0, 7)}"],
            [f"qos policy {name} policing", "no mark"],
            [f"no qos policy {name}"],
            [f"port ethernet {port}", f"qos policy policing {name}"],
            [f"port ethernet {port}", "no qos policy policing"],
            [pool, self._pick(("rate 1M", "rate 5kpps", "no rate"))],
        )
        return self._chance.choice(choices)

    def _qos(self) -> list[str]:
        name = self._pick(("w", "v"))
        return [f"ipsec qos policy {name} pq" if self._often() else f"no ipsec qos policy {name}"]
