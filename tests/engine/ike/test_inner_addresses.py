"""`address-allocation aaa` of IKEv2 policies (guide 6.4.1): Configuration payloads (RFC 7296 2.19, 3.15)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chassis.ase.ike.payloads.numbers import NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import CFG_REPLY, CFG_REQUEST, ConfigAttribute, ConfigPayload, NotifyV2
from chassis.ase.ike.v2.ike_auth import IkeAuthTask
from chassis.ase.ike.v2.ike_sa import IkeSa
from chassis.model.acl import AclRule
from chassis.net.address import parse_address as ip
from tests.support.ike.on_demand import DialIn, Gateway, Offer, Script, peer

WEST = "west.branch.example"
ADDRESS = ip("10.9.0.7")
DNS = (ip("10.0.0.53"), ip("10.0.1.53"))
ASKS = (ConfigAttribute(1), ConfigAttribute(2), ConfigAttribute(3))
OFFICE = (AclRule(10, source=(ip("10.1.0.0"), 16), destination=(ip("10.9.0.0"), 16)),)
CREATE = (AclRule(20, source=(ip("10.2.0.0"), 16), destination=(ip("10.8.0.0"), 16)),)

Dial = Callable[..., DialIn]


@pytest.fixture(name="replies")
def fixture_replies() -> list[PayloadV2]:
    """What the peer was answered in IKE_AUTH."""
    return []


@pytest.fixture(name="dial")
def fixture_dial(monkeypatch: pytest.MonkeyPatch, replies: list[PayloadV2]) -> Dial:
    """A peer that says in IKE_AUTH, besides what it says anyhow, what a test wants."""
    build, respond = IkeAuthTask.build_request, IkeAuthTask.on_response

    def dial(
        *asks: ConfigAttribute, script: Script | None = None, kind: int = CFG_REQUEST, **offer: object
    ) -> DialIn:
        def build_request(task: IkeAuthTask, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
            payloads = build(task, sa, now)
            if payloads is None or not asks:
                return payloads
            return (*payloads[:-3], ConfigPayload(kind, asks), *payloads[-3:])

        def on_response(task: IkeAuthTask, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
            replies.extend(payloads)
            respond(task, sa, payloads, now)

        monkeypatch.setattr(IkeAuthTask, "build_request", build_request)
        monkeypatch.setattr(IkeAuthTask, "on_response", on_response)
        given = script or Script(addresses={WEST: ADDRESS}, dns=DNS)
        made = Offer(**{"addresses": True, "connection": "responder-only", **offer})  # type: ignore[arg-type]
        rig = DialIn([peer(identity=WEST)], Gateway((made,)), given)
        assert rig.until(lambda: bool(replies), 5), rig.b.texts()
        rig.run(1)
        return rig

    return dial


def configuration(replies: list[PayloadV2]) -> list[ConfigPayload]:
    return [one for one in replies if isinstance(one, ConfigPayload)]


def refusals(replies: list[PayloadV2]) -> list[int]:
    return [one.notify for one in replies if isinstance(one, NotifyV2) and one.is_error]


def selected(rig: DialIn) -> list[tuple[object, object]]:
    """Both sides of the rules of the gateway's SAs."""
    return [(rule.source, rule.destination) for pair in rig.b.installs for rule in pair.rules]


def test_a_peer_gets_the_address_that_it_asks_for(dial: Dial, replies: list[PayloadV2]) -> None:
    rig = dial(*ASKS)
    assert rig.asked()[0].wants_address
    (reply,) = configuration(replies)
    assert reply.kind == CFG_REPLY
    assert [(one.type, int.from_bytes(one.value, "big")) for one in reply.attributes] == [
        (1, ADDRESS), (2, 0xFFFFFFFF), (3, DNS[0]), (3, DNS[1]),
    ]  # fmt: skip
    assert selected(rig) == [((0, 0), (ADDRESS, 32))], "its side of the SAs is that address alone"
    assert rig.b.states[1000].selectors == (ADDRESS, 32)
    assert rig.connected(rig.a, peer(identity=WEST))


def test_the_access_list_cuts_further(dial: Dial) -> None:
    rig = dial(*ASKS, rules=(CREATE, OFFICE))
    assert selected(rig) == [((ip("10.1.0.0"), 16), (ADDRESS, 32))]
    for what in ("child", "ike"):
        rig.ask(rig.b, "rekey", tunnel=1000, what=what)
        rig.run(60)
        assert selected(rig) == [((ip("10.1.0.0"), 16), (ADDRESS, 32))], "also after a rekey"


def test_what_address_the_peer_would_like_does_not_count(dial: Dial, replies: list[PayloadV2]) -> None:
    rig = dial(ConfigAttribute(1, bytes((10, 9, 9, 9))), script=Script(addresses={WEST: ADDRESS}))
    (reply,) = configuration(replies)
    assert reply.attributes[0].value == ADDRESS.to_bytes(4, "big")
    assert len(reply.attributes) == 2, "no DNS server is known"
    assert selected(rig) == [((0, 0), (ADDRESS, 32))]


def test_a_policy_without_allocation_assigns_nothing(dial: Dial, replies: list[PayloadV2]) -> None:
    rig = dial(*ASKS, addresses=False)
    assert not rig.asked()[0].wants_address
    assert not configuration(replies)
    assert rig.connected(rig.a, peer(identity=WEST))
    assert selected(rig) == []


@pytest.mark.parametrize("asks", [(), (ConfigAttribute(3),), (ConfigAttribute(8),)])
def test_a_peer_must_ask_where_the_policy_assigns(
    dial: Dial, replies: list[PayloadV2], asks: tuple[ConfigAttribute, ...]
) -> None:
    """Else it could take any address that the access list has. The IKE SA stays (RFC 7296 2.19)."""
    rig = dial(*asks)
    assert not rig.asked()[0].wants_address
    assert refusals(replies) == [NotifyTypeV2.FAILED_CP_REQUIRED]
    assert not rig.b.pairs
    assert len(rig.b.standing) == 1
    assert rig.b.says(f"{WEST} did not ask for an inner address")
    # Nor does it get one by a later exchange.
    rig.run(20)
    assert rig.a.count("CHILD SAs created") == 0
    assert not rig.b.pairs
    rig.run(100)
    assert [one.tunnel for one in rig.dropped()] == [1000]


def test_a_set_is_no_request(dial: Dial, replies: list[PayloadV2]) -> None:
    dial(*ASKS, kind=3)
    assert refusals(replies) == [NotifyTypeV2.FAILED_CP_REQUIRED]


def test_no_address_is_left(dial: Dial, replies: list[PayloadV2]) -> None:
    rig = dial(*ASKS, script=Script())
    assert rig.asked()[0].wants_address
    assert refusals(replies) == [NotifyTypeV2.INTERNAL_ADDRESS_FAILURE]
    assert not configuration(replies)
    assert not rig.b.pairs
    assert rig.b.says(f"no inner address was assigned to {WEST}")
