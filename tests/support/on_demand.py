"""A hub with one on-demand tunnel, and an ASP that asks about peers as a test wants it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from chassis.bus.engine import Output, ToController
from chassis.bus.messages import (
    Datagram,
    Datagrams,
    PeerAnswer,
    PeerDropped,
    PeerQuestion,
    PeerUsage,
    TunnelEvent,
    TunnelUsage,
)
from chassis.bus.records import OnDemandRecord, TunnelHopRecord, TunnelRecord
from chassis.net.address import format_address, parse_address
from tests.support.radius import MemoryServer
from tests.support.xcrp import FakeAsp, FakeLineCard, Node
from tests.support.xcrp_ike import PORTS, STATIC

ASP = "asp 2/1"

HUB = (
    STATIC.replace(
        """  interface TI
    ip address 10.9.0.1/30
""",
        """  interface TI ipsec multibind
    ip unnumbered lan
  ipsec profile T
    seq 10 ipsec-policy ipsec-pol access-group acl
""",
    )
    .replace("  ip route 10.2.0.0/24 TI\n", "")
    .replace("tunnel ipsec T\n", "tunnel ipsec T on-demand\n")
    .replace("remote 40.0.0.2 ", "")
    .replace("  remote-id b.example\n", "  remote-id *.example\n  ip route traffic-selector-guided\n")
    .replace("  seq 10 ipsec-policy ipsec-pol access-group acl\n\ncard", "\ncard")
    .replace("    identity local fqdn a.example\n", "    mode aggressive\n    identity local fqdn a.example\n")
    .replace("    ip address 40.0.0.1/24\n", "    ip address 40.0.0.1/24\n  ip route 0.0.0.0/0 40.0.0.254\n")
)


class Hub(Node):
    """A router, and what the IKE process of its ASP says to the controller."""

    def __init__(self, text: str = HUB, **settings: Any) -> None:
        super().__init__(text, settings=settings)
        self._numbers = count(1)

    @property
    def asp(self) -> FakeAsp:
        asp = self.cards[ASP]
        assert isinstance(asp, FakeAsp)
        return asp

    def serve(self, *servers: MemoryServer) -> None:
        """Have RADIUS servers reply behind the line card."""
        card = self.cards["lc 3"]
        assert isinstance(card, FakeLineCard)
        by_address = {(one.address.address, one.address.port): one for one in servers}

        def reply(message: Datagrams, now: float) -> list[Output]:
            card.datagrams += message.datagrams
            back = []
            for asked in message.datagrams:
                server = by_address.get((format_address(asked.destination), asked.destination_port))
                payload = server.reply_to(asked.payload) if server is not None else None
                if payload is not None:
                    ports = (asked.destination_port, asked.source_port)
                    back.append(Datagram(asked.context, asked.destination, asked.source, *ports, payload))
            return [ToController(Datagrams(tuple(back)))] if back else []

        card.on_datagrams = reply  # type: ignore[method-assign]

    def demanded(self) -> list[OnDemandRecord]:
        """The on-demand tunnels that the ASP knows."""
        return [one for one in self.asp.replica.records.values() if isinstance(one, OnDemandRecord)]

    def on_demand(self, name: str = "T") -> OnDemandRecord:
        """The on-demand tunnel as the ASP knows it."""
        held = self.asp.replica.records.values()
        return next(one for one in held if isinstance(one, OnDemandRecord) and one.config.name == name)

    def ask_about(
        self, identity: str, peer: str = "50.0.0.1", *, name: str = "T", step: str = "admit", **more: Any
    ) -> PeerAnswer | None:
        """A peer is there: what the controller answers at once."""
        record = self.on_demand(name)
        question = PeerQuestion(
            next(self._numbers), "admit", record.number, identity, record.local, parse_address(peer), 500, **more
        )
        self.card_does(ASP, [ToController(replace(question, step=step))])  # type: ignore[arg-type]
        return self.answer(question.number)

    def answer(self, number: int) -> PeerAnswer | None:
        return next((one for one in self.asp.answers if one.number == number), None)

    def admit(self, identity: str, peer: str = "50.0.0.1", *, name: str = "T", **more: Any) -> int:
        """A peer is admitted: the number of its instance, whose record the ASP has."""
        answer = self.ask_about(identity, peer, name=name, **more)
        assert answer is not None
        assert not answer.error, answer.error
        assert ("tunnel", answer.tunnel) in self.asp.replica.records
        return answer.tunnel

    def refused(self, identity: str, peer: str = "50.0.0.1", *, name: str = "T") -> str:
        answer = self.ask_about(identity, peer, name=name)
        assert answer is not None
        assert answer.tunnel == 0
        return answer.error

    def comes_up(self, number: int, *networks: str) -> None:
        """The peer of an instance has SAs, for these networks behind it."""
        selectors: list[int] = []
        for network in networks:
            address, _, length = network.partition("/")
            selectors += [parse_address(address), int(length)]
        record = self.record(number)
        identity = record.instance.identity if record.instance is not None else ""
        event = TunnelEvent(number, True, "", record.remote, identity, (), tuple(selectors))
        self.asp.up_tunnels.add(number)
        self.asp.networks[number] = tuple(selectors)
        self.card_does(ASP, [ToController(event)])
        self.run(0.01)

    def uses(self, number: int, *figures: int) -> None:
        """The ASP says what a peer has used: packets and octets in, and out."""
        self.card_does(ASP, [ToController(PeerUsage((TunnelUsage(number, *figures),)))])

    def goes(self, number: int, reason: str = "dead peer") -> None:
        """The last SA of an instance is gone."""
        self.asp.up_tunnels.discard(number)
        self.asp.networks.pop(number, None)
        self.card_does(ASP, [ToController(PeerDropped(0, number, reason))])

    def loses_sas(self, number: int, reason: str = "deleted by the peer") -> None:
        """The peer of an instance has an IKE SA only."""
        self.asp.up_tunnels.discard(number)
        self.asp.networks.pop(number, None)
        self.card_does(ASP, [ToController(TunnelEvent(number, False, reason, self.record(number).remote))])
        self.run(0.01)

    def tunnel_row(self, number: int) -> dict[str, Any]:
        """The row of an instance."""
        rows = self.ask("tunnels", detail=True)["tunnels"]
        return dict(next(row for row in rows if row["number"] == number))

    def drops_question(self, number: int) -> None:
        """The peer of a question is gone before it is answered."""
        self.card_does(ASP, [ToController(PeerDropped(number, 0, "half open for too long"))])

    def record(self, number: int, card: str = ASP) -> TunnelRecord:
        found = self.cards[card].replica.records["tunnel", number]
        assert isinstance(found, TunnelRecord)
        return found

    def instances(self, card: str = ASP) -> dict[str, int]:
        """Identity to number of the instances that a card has; a line card has them as next hops alone."""
        records = self.cards[card].replica.records.values()
        hops = {one.number for one in records if isinstance(one, TunnelHopRecord) and one.interface}
        if card != ASP:
            assert self.controller is not None
            records = self.controller.node.publisher.records.values()
        found = {
            one.instance.identity: one.number
            for one in records
            if isinstance(one, TunnelRecord) and one.instance is not None and (card == ASP or one.number in hops)
        }
        assert set(found.values()) == hops
        return found


def hub(text: str = HUB, **settings: Any) -> Hub:
    """A hub whose cards are up, with a way to any peer."""
    node = Hub(text, **settings)
    node.boot_all(*PORTS)
    return node
