"""Two whole IKE engines, and at each end the data engine of an ASP: packets are really protected and opened.

What leaves an end is looked at on its way: nothing but ESP or AH between the two outer addresses. What does not
arrive was dropped by one of the two data engines, which counts it by cause.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from chassis.ase.ike_messages import (
    Configure,
    FromIke,
    IkeTunnelState,
    SaActivateOutbound,
    SaDelete,
    SaInstall,
    SaUpdateAddress,
)
from chassis.ase.ipsec.causes import Notice, NoticeKind
from chassis.bus.batch import Batch, Step
from chassis.net.ipv4 import PROTOCOL_AH, PROTOCOL_ESP
from tests.support.asp import CIRCUIT, INNER, LC3, OUTER, batch_of, packets_of, udp_packet
from tests.support.asp_negotiated import Side, static
from tests.support.ike.pair import End, Ends, EnginePair

LEFT, RIGHT = 0x28000001, 0x28000002
"""The outer addresses that the rig's records have."""
DELAY = 0.005
"""Seconds that a packet is on its way."""

NUMBER_AT = 28
"""Where a packet has its number, behind its IP and UDP headers."""
PACKETS = [
    (packet[:NUMBER_AT], packet[NUMBER_AT + 4 :]) for packet in (udp_packet(), udp_packet("60.0.0.1", "50.0.0.1"))
]
"""What is before and after the number, from a and from b."""

Pair = tuple[int, int, int, int]
"""SPIs of a pair, as end a names them: ESP out, AH out, ESP in, AH in."""


def carried_ends(**values: Any) -> Ends:
    """The configuration of end a for the tunnel that the data engines have."""
    return Ends(local=LEFT, remote=RIGHT, tunnel=CIRCUIT, **values)


class DataplanePair(EnginePair):
    """`flow` sends a packet, `arrived` counts those that came out at the other end as they went in."""

    def __init__(self, a: Ends, b: Ends, **settings: Any) -> None:
        self.sides = {LEFT: Side(static()), RIGHT: Side(static(there=True))}
        self.arrived = 0
        self.spared: list[str] = []
        """Packets that were lost although there was a pair that would have carried them."""
        self.learns = 0.05
        """Seconds in which the responder of a pair gets a packet by it or hears that the initiator has it, and
        sends by it."""
        self._since: dict[Pair, float] = {}
        """Since when both ends hold a pair."""
        self._number = 0
        super().__init__(a, b, **settings)

    def side(self, end: End) -> Side:
        """The data engine of an end."""
        side = self.sides[end.local]
        side.now = self.now
        return side

    def drops(self) -> dict[str, int]:
        """What both data engines dropped, by cause."""
        found: dict[str, int] = {}
        for side in self.sides.values():
            for cause, count in side.drops().items():
                found[cause] = found.get(cause, 0) + count
        return found

    def flow(self, sender: End, entry: int = 10, tunnel: int = CIRCUIT, delay: float = DELAY) -> None:
        """A packet leaves now, and comes in later."""
        side = self.side(sender)
        self._number += 1
        self.flown += 1
        first, last = PACKETS[sender is self.b]
        packet = first + self._number.to_bytes(4, "big") + last
        sent = self._through(side, [packet], Step.ENCAPSULATE, "3/1", context=INNER, tunnel=CIRCUIT)
        known = {pair for pair, since in self._since.items() if self.now - since > self.learns}
        if not sent and known:
            self.spared.append(f"{self.now:.3f}: not sent")
        for _, batch in sent:
            self._sealed(batch, sender)
            receiver = self.b if sender is self.a else self.a
            self._later(delay, receiver, partial(self._delivered, receiver, batch, packet, known))
        self._tell(sender)

    def _through(
        self, side: Side, packets: list[bytes], step: Step, ingress: str, **fields: int
    ) -> list[tuple[str, Batch]]:
        """A batch from a line card; what goes to others. Counts are checked in the end (`paired`)."""
        batch = batch_of(packets, step, ingress=ingress, **fields)
        batch.card, batch.epoch = LC3, 1
        return side.take(side.asp.receive_batch(batch, side.now))

    def _note(self) -> None:
        """Which pairs both ends hold, after one of them has changed its own."""
        mine = {
            (one.outbound.esp_spi, one.outbound.ah_spi, one.inbound.esp_spi, one.inbound.ah_spi)
            for one in self.a.pairs.values()
        }
        theirs = {
            (one.inbound.esp_spi, one.inbound.ah_spi, one.outbound.esp_spi, one.outbound.ah_spi)
            for one in self.b.pairs.values()
        }
        self._since = {pair: self._since.get(pair, self.now) for pair in mine & theirs}

    def _sealed(self, batch: Batch, sender: End) -> None:
        """What is on the wire is no packet in clear."""
        for packet in packets_of(batch):
            assert packet[9] in (PROTOCOL_ESP, PROTOCOL_AH)
            assert int.from_bytes(packet[12:16], "big") == sender.local
            assert self._number.to_bytes(4, "big") + b"xxxx" not in packet

    def _delivered(self, receiver: End, batch: Batch, packet: bytes, known: set[Pair]) -> None:
        side = self.side(receiver)
        opened = self._through(side, packets_of(batch), Step.DECAPSULATE, "3/11", context=OUTER)
        got = [one for _, out in opened for one in packets_of(out)]
        if got:
            assert got == [packet]
            self.arrived += 1
        elif known & self._since.keys():
            self.spared.append(f"{self.now:.3f}: not opened")
        self._tell(receiver)

    def used_up(self, end: End) -> None:
        """The pair that sends has carried all that it may: it stops at once, and IKE is told."""
        pair = end.sender(tunnel=CIRCUIT)
        if pair is not None:
            side = self.side(end)
            side.take(side.asp.negotiated.on_sa_notice(Notice(NoticeKind.HARD_OCTETS, CIRCUIT, pair.serial, 0, 0)))
            self._tell(end)

    def paired(self) -> int:
        """How many pairs both data engines hold: each SA of one has its other half at the other end, and IKE knows
        all of them."""
        left, right = (self.sides[local].asp.sadb for local in (LEFT, RIGHT))
        for end, sadb in ((self.a, left), (self.b, right)):
            assert set(sadb.outbound) == set(sadb.inbound) == set(end.pairs)
            self.sides[end.local].check_counts()
        for one, other in ((left, right), (right, left)):
            sent = sorted((sa.sa.protocols, sa.sa.esp, sa.sa.ah) for sa in one.outbound.values())
            opened = sorted((sa.sa.protocols, sa.sa.esp, sa.sa.ah) for sa in other.inbound.values())
            assert sent == opened
        return len(left.outbound)

    # between the engines of an end

    def _took(self, end: End, messages: list[FromIke]) -> None:
        super()._took(end, messages)
        said = [
            one
            for one in messages
            if isinstance(one, SaInstall | SaActivateOutbound | SaDelete | SaUpdateAddress | IkeTunnelState)
        ]
        if said:
            self.side(end).ike(*said)
            self._note()
        self._tell(end)

    def _tell(self, end: End) -> None:
        """What the data engine has to say to IKE, at once."""
        side = self.sides[end.local]
        while side.to_ike:
            message, side.to_ike = side.to_ike[0], side.to_ike[1:]
            if not isinstance(message, Configure):
                self.give(end, message)
