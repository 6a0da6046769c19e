"""Statistics of the packets of each SA and tunnel, for operators.

Of an outbound SA: `packets` and `octets` (outer), `drops` by cause. Of an inbound SA: `packets` and `octets` that
were authentic (outer), `decapsulated` (inner packets), `drops` by cause, before and after authentication: packets
for the SA = `decapsulated` + all `drops`.

Of a tunnel with its present SAs, the `retired` SAs that it had, and the `previous` packets that earlier processes
of the ASP counted:

    encapsulated packets = previous + packets of SAs + packets of retired SAs
    decapsulated packets = previous + decapsulated by SAs + decapsulated by retired SAs
    drops                = those at SAs, of each direction, and those at the tunnel (no entry, no SA, down,
                           queue full, too long, no route)
    packets that left    = encapsulated, or decapsulated, less `post_ipsec_drops`

Packets given to a tunnel are those that left, those that wait and the drops of direction `out`, less the
`fragments` made of them. Packets for its SAs are those that left and the drops of direction `in`. A tunnel's
counters outlive the process; all other numbers begin with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.ase.counters import DECAPSULATED, ENCAPSULATED, AspCounters
from chassis.ase.entry_numbers import describe_entry
from chassis.ase.ipsec.causes import add_count
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.encapsulate import Encapsulator
from chassis.ase.ipsec.sadb import RetiredTotals, Sadb
from chassis.ase.tunnels import AspTunnel, TunnelTable
from chassis.bus.records import TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.net.address import format_address
from chassis.net.ipv4 import PROTOCOL_AH

_NO_TOTALS = RetiredTotals()


class SaStatistics:
    """Reads what the data path and the SA database count. It counts nothing itself."""

    def __init__(self, sadb: Sadb, tunnels: TunnelTable, counters: AspCounters) -> None:
        self._sadb = sadb
        self._tunnels = tunnels
        self._counters = counters

    def apply_records(self, change: RecordChange) -> None:
        """Remove the statistics of tunnels that are no longer here, and prepare those of instances."""
        for record in (*change.put, *change.deleted):
            if not isinstance(record, TunnelRecord):
                continue
            if record.number not in self._tunnels.local:
                self._counters.remove_tunnel(record.number)
                self._sadb.retired.pop(record.number, None)
            elif record.instance is not None:
                self._counters.add_instance(record.number)

    def statistics(self, tunnel: int | None = None) -> dict[str, Any]:
        """Return the statistics of all tunnels, or of one, and the drops of the whole ASP by cause."""
        states = self._tunnels.local
        chosen = sorted(states) if tunnel is None else [tunnel] if tunnel in states else []
        return {"tunnels": [self._tunnel(states[number]) for number in chosen], "drops": self._counters.drops()}

    def totals(self, context: int) -> dict[str, Any]:
        """Return the sums over all tunnels whose local end point or interface is in a context."""
        chosen = [
            state
            for state in self._tunnels.local.values()
            if context in (state.record.context, state.record.outer_context)
        ]
        totals: dict[str, Any] = {
            "tunnels": len(chosen),
            "up": sum(state.up for state in chosen),
            "sas": 0,
            "encapsulated": _packets_and_octets(0, 0),
            "decapsulated": _packets_and_octets(0, 0),
            "drops": {"out": {}, "in": {}},
        }
        for state in chosen:
            row = self._tunnel(state)
            totals["sas"] += len(row["sas"])
            for way in ("encapsulated", "decapsulated"):
                for unit, count in row[way].items():
                    totals[way][unit] += count
            for way in ("out", "in"):
                _add(totals["drops"][way], row["drops"][way])
        return totals

    def _tunnel(self, state: AspTunnel) -> dict[str, Any]:
        number, instance = state.record.number, state.record.instance
        counters = self._counters
        past_out, past_in = self._sadb.retired.get(number, (_NO_TOTALS, _NO_TOTALS))
        sas: list[dict[str, Any]] = []
        drops_out = dict(counters.tunnel_drops(number, ENCAPSULATED))
        drops_in = dict(counters.tunnel_drops(number, DECAPSULATED))
        _add(drops_in, past_in.drops)
        outbound, inbound = self._sadb.outbound, self._sadb.inbound
        for pair in state.pairs:
            name = (number, pair.outbound.serial)
            encapsulator, decapsulator = outbound.get(name), inbound.get(name)
            if encapsulator is not None:
                sas.append(_sa(pair.outbound.entry, "out", encapsulator))
            if decapsulator is not None:
                sas.append(
                    _sa(pair.outbound.entry, "in", decapsulator) | {"decapsulated": decapsulator.decapsulated}
                )
                _add(drops_in, decapsulator.drops)
        return {
            "tunnel": number,
            "name": state.record.config.name,
            "kind": state.record.config.kind,
            "identity": instance.identity if instance is not None else "",
            "encapsulated": _packets_and_octets(*counters.tunnel_total(number, ENCAPSULATED)),
            "decapsulated": _packets_and_octets(*counters.tunnel_total(number, DECAPSULATED)),
            "previous": {
                "encapsulated": counters.previous_total(number, ENCAPSULATED),
                "decapsulated": counters.previous_total(number, DECAPSULATED),
            },
            "retired": {"encapsulated": past_out.packets, "decapsulated": past_in.decapsulated},
            "post_ipsec_drops": {
                "encapsulated": counters.post_ipsec_drops(number, ENCAPSULATED),
                "decapsulated": counters.post_ipsec_drops(number, DECAPSULATED),
            },
            "fragments": counters.tunnel_fragments(number),
            "drops": {"out": drops_out, "in": drops_in},
            "sas": sas,
        }


def _sa(number: int, direction: str, work: Encapsulator | Decapsulator) -> dict[str, Any]:
    sa = work.sa
    protocols = sa.protocols
    return {
        **describe_entry(number),
        "serial": sa.serial,
        "direction": direction,
        "protocol": "+".join("ah" if protocol == PROTOCOL_AH else "esp" for protocol, _ in protocols),
        "spi": protocols[0][1],
        "peer": format_address(sa.destination if direction == "out" else sa.source),
        **_packets_and_octets(work.packets, work.octets),
        "drops": _drops_by_name(work.drops),
    }


def _packets_and_octets(packets: int, octets: int) -> dict[str, int]:
    return {"packets": packets, "octets": octets}


def _drops_by_name(drops: Mapping[Any, int]) -> dict[str, int]:
    return {str(cause): count for cause, count in drops.items()}


def _add(drops: dict[str, int], more: Mapping[Any, int]) -> None:
    for cause, count in more.items():
        add_count(drops, str(cause), count)
