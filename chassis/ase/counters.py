"""What an ASP counts.

    packets from fabric + packets originated = packets to fabric + packets delivered + packets queued + all drops

holds whenever no batch is in hand. What a kill takes is the difference. `packets originated` includes
`fragments created` (those after the first of a packet), `icmp errors sent` and `ike datagrams sent`.
`packets delivered` includes datagrams for IKE (`ike datagrams received`), `nat keepalives received`, the ICMP
messages that lowered a tunnel's path MTU (`path mtu updates`), and fragments after the first of a reassembled
datagram. `packets queued` are fragments that wait for reassembly and packets in the queues of an ASP with a rate.
`ike datagrams dropped` are datagrams of both directions that neither IKE nor the wire could take.
`icmp errors rate limited` counts ICMP errors that the rate limit prevented.

A tunnel has `tunnel N encapsulated packets`, `tunnel N encapsulated octets`, `tunnel N decapsulated packets` and
`tunnel N decapsulated octets`, counted in inner packets; they begin with its first packet. That of a peer of an
on-demand tunnel has the same with `instance N`, as long as it is there.
Queue Q, 0 to 3 or `single`, has `queue Q depth`, `queue Q dequeued`, `queue Q latency us` (the sum of all packets)
and `queue Q latency max us`; they begin with the first packet that had to be queued.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from chassis.ase.ipsec import causes as ipsec
from chassis.bus.counters import Counters
from chassis.fwd import drop_causes as fwd
from chassis.model.qos import CLASS_COUNT

TUNNEL_COUNTERS: Final = (
    "encapsulated packets",
    "encapsulated octets",
    "decapsulated packets",
    "decapsulated octets",
)
ENCAPSULATED, DECAPSULATED = 0, 2
"""Index of a direction's first slot in the slots of a tunnel: out, in."""


INSTANCE: Final = "instance"
"""What `tunnel` is called in the counters of an instance of an on-demand tunnel."""


class AspDropCause(StrEnum):
    """Drop causes that only an ASP has. The others are those of forwarding and of IPsec."""

    NO_TUNNEL = "no tunnel"
    TUNNEL_DOWN = "tunnel down"
    NO_SA = "tunnel without sa"
    NO_CIRCUIT = "no circuit"
    HOME_DOWN = "line card down"
    NO_IKE = "ike unavailable"
    PATH_MTU = "path mtu ignored"
    QUEUE_0 = "queue 0 full"
    QUEUE_1 = "queue 1 full"
    QUEUE_2 = "queue 2 full"
    QUEUE_3 = "queue 3 full"
    QUEUE_ONLY = "queue full"


QUEUE_CAUSES: Final = (
    AspDropCause.QUEUE_0,
    AspDropCause.QUEUE_1,
    AspDropCause.QUEUE_2,
    AspDropCause.QUEUE_3,
    AspDropCause.QUEUE_ONLY,
)
"""Drop cause of a full queue, by queue: the four priorities, then the single queue of an SA without priorities."""

_NO_DROPS: Final[tuple[Mapping[str, int], Mapping[str, int]]] = ({}, {})

_NO_POST_IPSEC_DROPS: Final = (0, 0)

QUEUE_NAMES: Final = (*map(str, range(CLASS_COUNT)), "single")
QUEUE_COUNTERS: Final = ("depth", "dequeued", "latency us", "latency max us")

AnyCause = AspDropCause | fwd.DropCause | ipsec.IpsecDropCause

FORWARDING: Final = (
    fwd.DropCause.FENCED,
    fwd.DropCause.OLD_EPOCH,
    fwd.DropCause.WRONG_STEP,
    fwd.DropCause.SHORT,
    fwd.DropCause.VERSION,
    fwd.DropCause.HEADER,
    fwd.DropCause.CHECKSUM,
    fwd.DropCause.MARTIAN_SOURCE,
    fwd.DropCause.MARTIAN_DESTINATION,
    fwd.DropCause.BROADCAST,
    fwd.DropCause.MULTICAST,
    fwd.DropCause.TTL,
    fwd.DropCause.TOO_LONG,
    fwd.DropCause.NO_ROUTE,
    fwd.DropCause.DISCARD,
    fwd.DropCause.TUNNEL_DOWN,
    fwd.DropCause.NEXT_HOP_DOWN,
    fwd.DropCause.OWNER_DOWN,
    fwd.DropCause.LOOP,
)
"""Drop causes of forwarding that an ASP can have."""

CAUSES: Final = tuple(dict.fromkeys(cause.value for cause in (*ipsec.IpsecDropCause, *FORWARDING, *AspDropCause)))
"""Every drop cause of an ASP, as the name of its counter."""


class AspCounters:
    """Counters of an ASP. Slots are taken once, so that counting a batch costs a few additions.

    The slots of all drop causes are taken at the start, so causes that never occurred show 0.
    """

    __slots__ = (
        "_consumed",
        "_counters",
        "_fragments",
        "_ike_dropped",
        "_ike_in",
        "_ike_out",
        "_instances",
        "_keepalives",
        "_made",
        "_path_mtus",
        "_post_ipsec_drops",
        "_previous",
        "_queues",
        "_tunnel_drops",
        "_tunnel_fragments",
        "_tunnels",
        "_waiting",
        "_waiting_fragments",
        "_waiting_queued",
        "received",
        "sent",
        "values",
    )  # fmt: skip

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.values = counters.values
        self.received = counters.slot("packets from fabric")
        self.sent = counters.slot("packets to fabric")
        self._made = counters.slot("packets originated")
        self._fragments = counters.slot("fragments created")
        self._consumed = counters.slot("packets delivered")
        self._waiting = counters.slot("packets queued")
        self._ike_in = counters.slot("ike datagrams received")
        self._ike_out = counters.slot("ike datagrams sent")
        self._ike_dropped = counters.slot("ike datagrams dropped")
        self._keepalives = counters.slot("nat keepalives received")
        self._path_mtus = counters.slot("path mtu updates")
        # A new process has no packets of the previous one.
        self.values[self._waiting] = 0
        for cause in CAUSES:
            counters.slot("drop " + cause)
        # Instances end with their ASP.
        counters.release_numbered(INSTANCE)
        self._instances: set[int] = set()
        self._tunnels: dict[int, tuple[int, ...]] = {}
        self._previous: dict[int, tuple[int, ...]] = {}
        self._tunnel_drops: dict[int, tuple[dict[str, int], dict[str, int]]] = {}
        self._tunnel_fragments: dict[int, int] = {}
        self._post_ipsec_drops: dict[int, list[int]] = {}
        self._waiting_fragments = self._waiting_queued = 0
        self._queues: dict[int, tuple[int, ...]] = {}
        for name in QUEUE_NAMES:
            if counters.get(f"queue {name} depth"):
                self.values[counters.slot(f"queue {name} depth")] = 0

    def count_fragments(self, count: int) -> None:
        """Count fragments made of whole packets, without the first of each."""
        self.values[self._made] += count
        self.values[self._fragments] += count

    def count_consumed(self, packets: int) -> None:
        """Count packets that end here as they should."""
        self.values[self._consumed] += packets

    def set_waiting_fragments(self, packets: int) -> None:
        """Set the number of fragments that wait for reassembly."""
        self._waiting_fragments = packets
        self.values[self._waiting] = packets + self._waiting_queued

    def set_waiting_queued(self, packets: int) -> None:
        """Set the number of packets in queues."""
        self._waiting_queued = packets
        self.values[self._waiting] = packets + self._waiting_fragments

    def set_queue(self, number: int, waiting: int, passed: int = 0, waited: int = 0, longest: int = 0) -> None:
        """Set the packets `waiting` in all queues of this number; count `passed` packets that waited `waited` us
        together."""
        slots = self._queues.get(number)
        if slots is None:
            name = QUEUE_NAMES[number]
            slots = tuple([self._counters.slot(f"queue {name} {what}") for what in QUEUE_COUNTERS])
            self._queues[number] = slots
        values = self.values
        values[slots[0]] = waiting
        if passed:
            values[slots[1]] += passed
            values[slots[2]] += waited
            values[slots[3]] = longest

    def count_queue_drop(self, cause: AspDropCause, packets: int, tunnel: int) -> None:
        """Count packets dropped because a queue was full."""
        self._counters.add(f"drop {cause}", packets)
        self.count_tunnel_drop(tunnel, ENCAPSULATED, cause, packets)

    def count_tunnel_drop(self, number: int, which: int, cause: AnyCause, packets: int) -> None:
        """Count, for a tunnel, packets whose drop is counted elsewhere. `which` is `ENCAPSULATED` or
        `DECAPSULATED`."""
        if packets:
            ipsec.add_count(self._tunnel_drops.setdefault(number, ({}, {}))[which // 2], str(cause), packets)

    def count_post_ipsec_drop(self, number: int, which: int, cause: AnyCause, packets: int) -> None:
        """Count, for a tunnel, packets dropped after they were counted as encapsulated or decapsulated. No-op for
        tunnel 0."""
        if packets and number:
            self.count_tunnel_drop(number, which, cause, packets)
            self._post_ipsec_drops.setdefault(number, [0, 0])[which // 2] += packets

    def post_ipsec_drops(self, number: int, which: int) -> int:
        """Return the packets that `count_post_ipsec_drop` counted."""
        return self._post_ipsec_drops.get(number, _NO_POST_IPSEC_DROPS)[which // 2]

    def count_ike_in(self) -> None:
        """Count a datagram for IKE."""
        self.values[self._ike_in] += 1
        self.values[self._consumed] += 1

    def count_ike_keepalive(self) -> None:
        """Count a NAT keepalive."""
        self.values[self._keepalives] += 1
        self.values[self._consumed] += 1

    def count_path_mtu(self) -> None:
        """Count an ICMP message that reduced the path MTU of a tunnel."""
        self.values[self._path_mtus] += 1
        self.values[self._consumed] += 1

    def count_ike_out(self) -> None:
        """Count a datagram of IKE."""
        self.values[self._ike_out] += 1
        self.values[self._made] += 1

    def count_ike_dropped(self) -> None:
        """Count a datagram for IKE, or of IKE, that could not be delivered."""
        self.values[self._ike_dropped] += 1

    def count_tunnel(self, number: int, which: int, packets: int, octets: int) -> None:
        """Count inner packets and octets of a tunnel. `which` is `ENCAPSULATED` or `DECAPSULATED`."""
        slots = self._tunnels.get(number) or self.tunnel_slots(number)
        self.values[slots[which]] += packets
        self.values[slots[which + 1]] += octets

    def tunnel_slots(self, number: int) -> tuple[int, ...]:
        """Return the slots of a tunnel, packets and octets in each direction; its counters begin with that."""
        slots = self._tunnels.get(number)
        if slots is None:
            slot = self._counters.slot
            names = [self._name(number, what) for what in TUNNEL_COUNTERS]
            slots = self._tunnels[number] = tuple([slot(name, numbered=True) for name in names])
            self._previous[number] = tuple([self.values[slot] for slot in slots])
        return slots

    def add_instance(self, number: int) -> None:
        """Note, before its first packet, that a tunnel is an instance of an on-demand tunnel."""
        self._instances.add(number)

    def remove_tunnel(self, number: int) -> None:
        """Remove a tunnel that is no longer here. Its counters stay in the file, unless it is an instance of an
        on-demand tunnel: these come and go, and the file would fill."""
        if number in self._instances:
            for what in TUNNEL_COUNTERS:
                self._counters.release(self._name(number, what))
            self._instances.discard(number)
        self._tunnels.pop(number, None)
        self._previous.pop(number, None)
        self._tunnel_drops.pop(number, None)
        self._tunnel_fragments.pop(number, None)
        self._post_ipsec_drops.pop(number, None)

    def count_tunnel_fragments(self, number: int, made: int) -> None:
        """Count, for a tunnel, fragments that `count_fragments` counts for the ASP."""
        if made:
            ipsec.add_count(self._tunnel_fragments, number, made)

    def tunnel_fragments(self, number: int) -> int:
        """Return the fragments made of a tunnel's packets."""
        return self._tunnel_fragments.get(number, 0)

    def tunnel_drops(self, number: int, which: int) -> Mapping[str, int]:
        """Return the packets of a tunnel that `count_tunnel_drop` counted, by cause."""
        return self._tunnel_drops.get(number, _NO_DROPS)[which // 2]

    def tunnel_total(self, number: int, which: int) -> tuple[int, int]:
        """Return packets and octets of a tunnel since the counter file was new."""
        packets, octets = TUNNEL_COUNTERS[which : which + 2]
        return self._counters.get(self._name(number, packets)), self._counters.get(self._name(number, octets))

    def _name(self, number: int, what: str) -> str:
        return f"{INSTANCE if number in self._instances else 'tunnel'} {number} {what}"

    def previous_total(self, number: int, which: int) -> int:
        """Return the packets of a tunnel that earlier processes counted."""
        values = self._previous.get(number)
        return self.tunnel_total(number, which)[0] if values is None else values[which]

    def drops(self) -> dict[str, int]:
        """Return the drops of the whole ASP by cause, without zeros."""
        counts = {cause: self._counters.get("drop " + cause) for cause in CAUSES}
        return {cause: count for cause, count in counts.items() if count}
