"""The lives of a pair of IKE engines that are recorded (`transcripts.py` says what of them).

A case is a configuration of both ends, a wire, and what happens. Everything random in it comes from the case's
name. RSA signatures are PKCS #1 v1.5, which has no randomness; the certificates and their keys are in `pki/`,
for nothing but these cases. That of end b is so long that IKEv2 sends it in fragments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from chassis.ase.ike_messages import Acquire, IkePacket, SaExpire
from chassis.bus.records import CertificateRecord
from chassis.model.acl import AclRule
from chassis.model.ipsec import IpsecProposal

# First: it says where `engines` is.
from tests.golden.transcripts import FIRST_PORTS, LATER_PORTS, PUBLIC, Recorded, Wire
from tests.support.ike.pair import TUNNEL, A, B, End, Ends, esp, other, proposal

PKI = Path(__file__).parent / "pki"

Act = Callable[[Recorded, Wire], None]


@dataclass(frozen=True)
class Case:
    """`name` tells all that is in it, and seeds it."""

    name: str
    a: Ends
    b: Ends
    act: Act
    wire: str = "clean"
    nat: bool = False
    settings: tuple[tuple[str, Any], ...] = ()

    def run(self) -> str:
        """The digests of what both ends say."""
        seed = crc32(self.name.encode())
        wire = Wire(self.wire, Random(seed + 1))
        ports = dict(FIRST_PORTS) if self.nat else None
        two = Recorded(self.a, self.b, ports=ports, seed=seed, trouble=wire, **dict(self.settings))
        self.act(two, wire)
        return two.transcript.digests()


KINDS: dict[str, dict[str, Any]] = {
    "ikev2": {"version": 2},
    "ikev1 main": {"version": 1, "mode": "main"},
    "ikev1 aggressive": {"version": 1, "mode": "aggressive"},
}
METHODS = {"psk": "pre-shared-key", "rsa": "rsa-signature"}
CIPHERS = ("des-cbc", "3des-cbc", "aes-128-cbc", "aes-192-cbc", "aes-256-cbc")
INTEGRITY = ("hmac-md5-96", "hmac-sha1-96")
GROUPS = (1, 2, 5, 14)
PRFS = ("hmac-md5", "hmac-sha1", "aes-128-xcbc")
SHORT = 300
"""Seconds that an SA lives where lifetimes are to end."""


def suite(
    ah: str = "",
    cipher: str = "aes-128-cbc",
    integrity: str = "hmac-sha1-96",
    *,
    ipcomp: bool = False,
    life: int = 86400,
) -> IpsecProposal:
    return esp(ah, cipher, integrity, life, ip_comp=ipcomp)


SUITES = {
    "esp": suite(),
    "esp md5": suite(cipher="3des-cbc", integrity="hmac-md5-96"),
    "esp xcbc": suite(cipher="aes-256-cbc", integrity="hmac-aes-xcbc"),
    "esp null": suite(cipher="null"),
    "esp alone": suite(cipher="des-cbc", integrity=""),
    "ah": suite("hmac-sha1-96", "", ""),
    "ah xcbc": suite("hmac-aes-xcbc", "", ""),
    "ah and esp": suite("hmac-md5-96", "aes-192-cbc", ""),
    "esp ipcomp": suite(ipcomp=True),
    "ah esp ipcomp": suite("hmac-sha1-96", ipcomp=True),
}


def store(name: str) -> tuple[CertificateRecord, ...]:
    """The certificates and the key of an end."""
    return (
        CertificateRecord(7, "root", "trusted", (PKI / "root.pem").read_bytes()),
        CertificateRecord(7, "me", "self", (PKI / f"{name}.pem").read_bytes()),
        CertificateRecord(7, "me", "key", (PKI / f"{name}-key.pem").read_bytes()),
    )


def two_ends(kind: str, method: str = "psk", *, nat: bool = False, **values: Any) -> tuple[Ends, Ends]:
    """Both ends of a case. `method` mixed: end a proves itself by a signature, end b by a key."""
    ends = Ends(**KINDS[kind], **values)
    if nat or method != "psk":
        ends = replace(ends, identity_local="a.example", identity_remote="b.example")
    if method != "psk":
        ends = replace(
            ends,
            authentication=METHODS["rsa"],
            certificates=store("a"),
            proposals=tuple(replace(one, authentication=METHODS["rsa"]) for one in ends.proposals),
        )
    far = other(ends)
    if method != "psk":
        far = replace(far, certificates=store("b"))
    if method == "mixed":
        far = replace(far, authentication=METHODS["psk"])
    return ends, replace(far, remote=PUBLIC) if nat else far


def lives(two: Recorded, wire: Wire) -> None:
    """Up, both kinds of SA renewed once, ended by the operator, and up again."""
    two.settle()
    two.ask(two.a, "rekey", what="child")
    two.settle(5)
    two.ask(two.b, "rekey", what="ike")
    two.settle(5)
    two.ask(two.a, "clear")
    two.settle()


def lifetimes(two: Recorded, wire: Wire) -> None:
    """Several lifetimes of both SAs, with a packet now and then."""
    for _ in range(9):
        two.settle(100)


def cleared(two: Recorded, wire: Wire) -> None:
    two.settle()
    wire.armed = True
    for end, what in ((two.a, "ipsec"), (two.b, "ike"), (two.a, "all"), (two.b, "ipsec")):
        two.ask(end, "clear", tunnel=TUNNEL, what=what)
        two.settle(8)


def renewed(two: Recorded, wire: Wire) -> None:
    two.settle()
    wire.armed = True
    for end, what in ((two.a, "child"), (two.b, "child"), (two.a, "ike"), (two.b, "ike"), (two.a, "child")):
        two.ask(end, "rekey", what=what)
        two.settle(8)


def killed(two: Recorded, wire: Wire) -> None:
    """Each ASP dies once and comes back."""
    two.settle()
    for name in ("a", "b"):
        victim = getattr(two, name)
        two.mute(victim)
        two.settle(3)
        wire.armed = True
        two.restart(victim, two.configured[victim.local])
        two.settle(90)


def silent(two: Recorded, wire: Wire) -> None:
    """The peer falls silent until it is taken for dead, and is heard again."""
    two.settle()
    trouble, two.trouble = two.trouble, lambda *_: ()
    two.settle(90)
    two.trouble = trouble
    wire.armed = True
    two.settle(60)


def shut_down(two: Recorded, wire: Wire) -> None:
    two.settle()
    wire.armed = True
    for wanted in (False, True):
        two.change(two.a, wanted=wanted)
        two.settle(20)
    for ready in (False, True):
        two.change(two.b, ready=ready)
        two.settle(20)


def used_up(two: Recorded, wire: Wire) -> None:
    """SAs come near their kilobytes, then to their end."""
    two.settle()
    wire.armed = True
    for end, hard in ((two.a, False), (two.b, False), (two.a, True), (two.b, True)):
        carry(two, end, hard)
        two.settle(8)


def carry(two: Recorded, end: End, hard: bool) -> None:
    """The pair that sends has carried its kilobytes."""
    pair = end.sender()
    if pair is None:
        two.give(end, Acquire(TUNNEL, end.number()))
    else:
        two.give(end, SaExpire(TUNNEL, pair.serial, hard, f"{'hard' if hard else 'soft'} limit of kilobytes"))


def changed_lines(two: Recorded, wire: Wire) -> None:
    """The access lists of both ends change, those of the one before those of the other."""
    two.settle()
    wire.armed = True
    for first in (30, 40):
        rules = (rule(20), rule(first))
        two.change(two.b, rules=other(Ends(rules=rules)).rules)
        two.settle(3)
        two.change(two.a, rules=rules)
        two.settle(20)


def moved(two: Recorded, wire: Wire) -> None:
    """A NAT is started again and has other ports for end a."""
    two.settle()
    wire.armed = True
    two.ports = dict(LATER_PORTS)
    two.settle(30)
    two.ask(two.a, "rekey", what="child")
    two.settle(60)
    two.ask(two.b, "rekey", what="child")
    two.settle(120)


def waits(two: Recorded, wire: Wire) -> None:
    """Whatever becomes of it in a while."""
    wire.armed = True
    two.settle(45)
    two.ask(two.a, "sas")
    two.ask(two.b, "statistics")
    two.settle(60)


def strangers(two: Recorded, wire: Wire) -> None:
    """First messages from nowhere come to end b, which has to answer end a in between."""
    two.settle()
    first = two.a.sent[0]
    for number in range(1, 41):
        spi = number.to_bytes(8, "big")
        two.give(two.b, IkePacket(7, B, 500, A, 500, spi + first.data[8:]))
        two.run(0.01)
    wire.armed = True
    two.ask(two.a, "clear")
    two.settle(30)
    two.ask(two.b, "statistics")


def day(two: Recorded, wire: Wire) -> None:
    """An hour of short lifetimes, with an ASP killed now and then."""
    chance = Random(len(wire.kind))
    for number in range(1, 31):
        two.settle(120)
        if number % 7 == 0:
            victim = two.a if chance.random() < 0.5 else two.b
            two.mute(victim)
            two.run(1)
            two.restart(victim, two.configured[victim.local])


def rule(first: int) -> tuple[AclRule, ...]:
    """An access list of one rule: FIRST.0.0.0/8 to 11.0.0.0/8."""
    return (AclRule(10, source=(first << 24, 8), destination=(0x0B000000, 8)),)


ACTS: dict[str, Act] = {
    "lifetimes": lifetimes, "cleared": cleared, "renewed": renewed, "killed": killed, "silent": silent,
    "shut down": shut_down, "used up": used_up, "changed lines": changed_lines, "moved": moved,
}  # fmt: skip
WIRES = ("clean", "one in five lost", "message 1 of a lost", "message 2 of both lost", "all twice")
AT_ONCE = ("child", "ike", "clear", "used up")


def at_once(first: str, second: str, apart: float) -> Act:
    """Each end does something, the second before it can have heard of the first or when it just has."""

    def act(two: Recorded, wire: Wire) -> None:
        two.settle()
        wire.armed = True
        begin(two, two.a, first)
        two.run(apart)
        begin(two, two.b, second)
        for seconds in (0.05, 0.1, 1.0, 5.0, 30.0):
            two.settle(seconds)

    return act


def begin(two: Recorded, end: End, what: str) -> None:
    if what == "clear":
        two.ask(end, "clear")
    elif what == "used up":
        carry(two, end, True)
    else:
        two.ask(end, "rekey", what=what)


def established() -> Iterator[Case]:
    """Every algorithm of a key exchange with each way to prove oneself, with PFS and without."""
    for kind, method in product(KINDS, ("psk", "rsa", "mixed")):
        if method == "mixed" and kind != "ikev2":
            continue
        for number, cipher in enumerate(CIPHERS):
            for again in (0, 1):
                version = KINDS[kind]["version"]
                group = GROUPS[(number + 2 * again) % len(GROUPS)]
                one = proposal(
                    version,
                    cipher=cipher,
                    integrity=INTEGRITY[(number + again) % 2],
                    dh_group=group,
                    prf=PRFS[(number + again) % len(PRFS)],
                )
                ends = two_ends(kind, method, proposals=(one,), pfs=group if again else 0)
                yield Case(
                    f"{kind}, {method}, {cipher}, {one.authentication_algorithm}, group {group}, pfs {again}",
                    *ends,
                    lives,
                )


def suites() -> Iterator[Case]:
    """Every form of a pair of SAs."""
    for kind, name, esn in product(("ikev2", "ikev1 main"), SUITES, (False, True)):
        ends = two_ends(kind, suites=(SUITES[name],), esn=esn)
        yield Case(f"{kind}, {name}{', esn' if esn else ''}", *ends, lives)


def courses() -> Iterator[Case]:
    """What happens in the life of a tunnel, on every wire, with a NAT and without."""
    for kind, name, wire, nat in product(KINDS, ACTS, WIRES, (False, True)):
        if name == "moved" and not nat:
            continue
        for method in ("psk", "rsa") if wire == "one in five lost" else ("psk",):
            values = short(kind) if name == "lifetimes" else {}
            if name == "changed lines":
                values = {"rules": (rule(20), rule(21))}
            ends = two_ends(kind, method, nat=nat, keepalive=True, **values)
            title = f"{kind}, {method}, {name}, {wire}{', nat' if nat else ''}"
            yield Case(title, *ends, ACTS[name], wire, nat)


def short(kind: str) -> dict[str, Any]:
    """Lifetimes that end while one looks."""
    version = KINDS[kind]["version"]
    return {
        "lifetime": 2 * SHORT,
        "proposals": (proposal(version, lifetime=2 * SHORT),),
        "suites": (suite(life=SHORT),),
    }


def collisions() -> Iterator[Case]:
    """Both ends do something at once."""
    wires = ("clean", "message 1 of a lost", "message 1 of both lost", "message 2 of b lost")
    for kind, first, second, apart, wire in product(KINDS, AT_ONCE, AT_ONCE, (0.0, 0.012), wires):
        if kind == "ikev1 aggressive" and wire != "clean":
            continue
        name = f"{kind}, {first} of a and {second} of b, {apart * 1000:g} ms apart, {wire}"
        yield Case(name, *two_ends(kind), at_once(first, second, apart), wire)


def refused() -> Iterator[Case]:
    """Ends that do not fit."""
    differences: dict[str, dict[str, Any]] = {
        "psk": {"psk": b"another"},
        "identity of a": {"identity_remote": "c.example"},
        "identity of b": {"identity_local": "c.example"},
        "pfs": {"pfs": 2},
        "esn": {"esn": True},
        "esp cipher": {"suites": (SUITES["esp md5"],)},
        "ah": {"suites": (SUITES["ah"],)},
        "lines": {"rules": other(Ends(rules=(rule(25),))).rules},
        "both initiators": {"connection": "initiator-only"},
        "not wanted": {"wanted": False},
    }
    for kind in KINDS:
        version = KINDS[kind]["version"]
        for name, change in (
            ("cipher", {"cipher": "3des-cbc"}),
            ("integrity", {"integrity": "hmac-md5-96"}),
            ("group", {"dh_group": 5}),
            ("prf", {"prf": "hmac-md5"}),
            ("lifetime", {"lifetime": 3600}),
            ("method", {"authentication": METHODS["rsa"]}),
        ):
            differences[name] = {"proposals": (proposal(version, **change),)}
        differences["version"] = {"version": 3 - version, "proposals": ()}
        for name, change in differences.items():
            a, b = two_ends(
                kind,
                connection="initiator-only",
                identity_local="a.example",
                identity_remote="b.example",
                rules=(rule(20),),
            )
            b = replace(replace(b, connection="responder-only"), **change)
            yield Case(f"{kind}, {name} differs", a, b, waits)


def starts() -> Iterator[Case]:
    """How tunnels come up: on bad wires, from one end, with many policy lines, under load."""
    wires = (
        "slow",
        "one in five lost",
        "all of b lost",
        *(f"message {n} of {e} lost" for n in (1, 2, 3) for e in "ab"),
    )
    for kind, wire, connection in product(KINDS, wires, ("both", "initiator-only", "responder-only")):
        fits = {"both": "both", "initiator-only": "responder-only", "responder-only": "initiator-only"}
        a, b = two_ends(kind, connection=connection)
        yield Case(f"{kind}, {connection}, start, {wire}", a, replace(b, connection=fits[connection]), waits, wire)
    for kind, nat in product(KINDS, (False, True)):
        lines = tuple(rule(20 + number) for number in range(12))
        title = f"{kind}, twelve lines{', nat' if nat else ''}"
        yield Case(title, *two_ends(kind, nat=nat, rules=lines), renewed, "one in five lost", nat)
    limits = (("cookie-threshold", 5), ("half-open-limit", 20), ("half-open-limit-per-peer", 10))
    for kind, wire in product(KINDS, WIRES):
        a, b = two_ends(kind, connection="initiator-only")
        far = replace(b, connection="responder-only")
        yield Case(f"{kind}, strangers, {wire}", a, far, strangers, wire, settings=limits)


def days() -> Iterator[Case]:
    for kind, method, nat in product(KINDS, ("psk", "rsa"), (False, True)):
        ends = two_ends(kind, method, nat=nat, keepalive=True, **short(kind))
        yield Case(f"{kind}, {method}, an hour{', nat' if nat else ''}", *ends, day, "one in five lost", nat)


def all_cases() -> list[Case]:
    groups = (established(), suites(), courses(), collisions(), refused(), starts(), days())
    return [case for group in groups for case in group]
