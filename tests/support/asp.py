"""Two routers' ASPs back to back, without any process: records by hand, batches carried over by hand."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any, Literal

from chassis.ase.engine import AspEngine
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.state import octets_for
from chassis.bus.batch import Batch, Step, pack
from chassis.bus.codec import decode, encode
from chassis.bus.engine import Output, ToController, ToFabric
from chassis.bus.messages import FromCard, Hello, Welcome
from chassis.bus.records import (
    CardStateRecord,
    ContextRecord,
    InterfaceRecord,
    LocalAddressRecord,
    NextHop,
    PolicyRecord,
    PortRecord,
    Record,
    RouteRecord,
    TunnelHopRecord,
    TunnelRecord,
)
from chassis.bus.records import Key as RecordKey
from chassis.bus.replication import Publisher
from chassis.model.ipsec import Key, Keyed, ManualSa, SaKeys, Spi, TunnelEntry
from chassis.model.router import Tunnel
from chassis.net import icmp
from chassis.net.address import parse_address, parse_prefix
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import PROTOCOL_ESP, PROTOCOL_ICMP, PROTOCOL_UDP, Ipv4

INNER, OUTER = 1, 2
ASP, SPARE, LC3, LC4 = "asp 1/1", "asp 1/2", "lc 3", "lc 4"
CIRCUIT, ECONOMICAL = 1, 2
"""Tunnel numbers: one of each mode."""

ESP_SHA = {"esp_integrity": "hmac-sha1-96", "esp_integrity_key": b"i" * 20}
ESP_AES = {"esp_cipher": "aes-128-cbc", "esp_cipher_key": b"c" * 16}
AH_MD5 = {"ah_integrity": "hmac-md5-96", "ah_key": b"a" * 16}


def ip(text: str) -> int:
    return parse_address(text)


def keys(spi: int, kind: str = "esp") -> SaKeys:
    """Keys of one direction: `esp`, `ah` or `bundle`."""
    esp = {"esp_spi": spi, **ESP_SHA, **ESP_AES} if kind != "ah" else {}
    ah = {"ah_spi": spi + 1, **AH_MD5} if kind != "esp" else {}
    return SaKeys(**esp, **ah)  # type: ignore[arg-type]


def manual_sa(name: str, spi: int, kind: str = "esp", *, there: bool = False, window: int = 64) -> PolicyRecord:
    """An SA with SPIs from `spi` on; `there` is the other end's view of it."""
    out, back = [direction_of(keys(first, kind)) for first in (spi, spi + 10)]
    if there:
        out, back = back, out
    return PolicyRecord(0, ManualSa(name, window=window, inbound=back, outbound=out))


def direction_of(keys: SaKeys) -> Spi:
    """One direction of a manual SA with these keys."""
    return Spi(
        esp_spi=keys.esp_spi or None,
        esp_auth=Keyed(keys.esp_integrity, Key(keys.esp_integrity_key)) if keys.esp_integrity else None,
        esp_encryption=Keyed(keys.esp_cipher, Key(keys.esp_cipher_key)) if keys.esp_spi else None,
        ah_spi=keys.ah_spi or None,
        ah=Keyed(keys.ah_integrity, Key(keys.ah_key)) if keys.ah_integrity else None,
    )


def with_keys(record: PolicyRecord, direction: Literal["in", "out"], **changes: object) -> PolicyRecord:
    """The record of a manual SA with other keys in one direction."""
    assert isinstance(record.value, ManualSa)
    spi = direction_of(replace(record.value.keys(direction), **changes))  # type: ignore[arg-type]
    value = record.value
    return replace(
        record, value=replace(value, inbound=spi) if direction == "in" else replace(value, outbound=spi)
    )


def route(context: int, prefix: str, *hops: NextHop) -> RouteRecord:
    network, length = parse_prefix(prefix)
    return RouteRecord(context, network, length, hops)


def port_hop(card: str, port: str, address: str = "", cost: int = 0) -> NextHop:
    return NextHop("port", cost, card, port, ip(address) if address else 0)


def tunnel_hop(tunnel: int, cost: int = 0) -> NextHop:
    return NextHop("tunnel", cost, tunnel=tunnel)


def udp_packet(
    source: str = "50.0.0.1",
    destination: str = "60.0.0.1",
    size: int = 100,
    *,
    ttl: int = 63,
    df: bool = False,
    number: int = 0,
    protocol: int = PROTOCOL_UDP,
) -> bytes:
    """A packet of `size` bytes in all; `number` makes its payload its own."""
    payload = struct.pack("!HHHHI", 1000, 2000, size - 20, 0, number).ljust(size - 20, b"x")[: size - 20]
    return Ipv4(ip(source), ip(destination), protocol, payload, ttl=ttl, dont_fragment=df).emit()


def batch_of(packets: Sequence[bytes], step: Step, **fields: object) -> Batch:
    body, lengths = pack(packets, HEADROOM)
    return Batch(step, body, lengths, **fields)  # type: ignore[arg-type]


def packets_of(batch: Batch) -> list[bytes]:
    return [bytes(packet[HEADROOM:]) for packet in batch.packets()]


def moved(batch: Batch, **fields: object) -> Batch:
    """A copy of a batch as another card would hand it on."""
    copied = replace(batch, body=bytearray(batch.body), lengths=array("H", batch.lengths))
    return replace(copied, **fields)  # type: ignore[arg-type]


def fabric(outputs: Iterable[Output]) -> list[tuple[str, Batch]]:
    return [(output.card, output.batch) for output in outputs if isinstance(output, ToFabric)]


class WithHops(Publisher):
    """Every tunnel is a next hop too."""

    def put(self, record: Record) -> bool:
        changed = super().put(record)
        return (super().put(record.hop) if isinstance(record, TunnelRecord) else False) or changed

    def delete(self, key: RecordKey) -> bool:
        if key[0] == TunnelRecord.TYPE:
            super().delete((TunnelHopRecord.TYPE, *key[1:]))
        return super().delete(key)

    def replace(self, wanted: Iterable[Record]) -> int:
        made = list(wanted)
        return super().replace([*made, *(one.hop for one in made if isinstance(one, TunnelRecord))])


class Controller:
    """What a controller does for one ASP, and no more."""

    def __init__(self, records: Iterable[Record], slots: int = 64, engine: CipherEngine = CRYPTOGRAPHY) -> None:
        self.engine = engine
        self.publisher = WithHops(lambda card, record: True, 0)
        self.publisher.replace(records)
        self.state = memoryview(bytearray(octets_for(slots)))
        self.random = random.Random(1)
        self.boot = 0
        self.epoch = 10
        self.now = 100.0
        self.said: list[FromCard] = []
        self.asp: AspEngine
        self.start()

    def start(self, *, fresh: bool = False, card: str = ASP) -> None:
        """A new process of the ASP over the same state."""
        self.boot += 1
        self.epoch += 1
        self.asp = AspEngine(
            card,
            pid=1,
            boot=self.boot,
            state=self.state,
            fresh=fresh,
            random=self.random.randbytes,
            engine=self.engine,
        )
        self.take(self.asp.start(self.now))
        self.take(self.asp.on_connected(self.now))
        self.admit(card)

    def admit(self, card: str = ASP) -> None:
        """Answer a hello."""
        publisher = self.publisher
        publisher.put(CardStateRecord(card, "asp", self.boot, self.epoch, True))
        for name in (LC3, LC4, SPARE):
            if name != card and ("card", name) not in publisher.records:
                publisher.put(CardStateRecord(name, name.split()[0], 1, 1, True))
        publisher.flush()
        self.take(self.asp.receive(Welcome(self.epoch, publisher.version, 0.1, 5, {}), self.now))
        for part in publisher.snapshot(card):
            self.take(self.asp.receive(part, self.now))
        self.settle()

    def settle(self) -> None:
        """Let the ASP end what it has begun to install."""
        while self.asp.tunnels.pending or self.asp.replica.waiting:
            assert self.asp.next_timer() <= self.now
            self.take(self.asp.on_timer(self.now))

    def pass_time(self, seconds: float) -> None:
        """Timers at their times."""
        end = self.now + seconds
        while self.asp.next_timer() <= end:
            self.now = max(self.now, self.asp.next_timer())
            self.take(self.asp.on_timer(self.now))
        self.now = end

    def put(self, *records: Record, delete: Sequence[RecordKey] = ()) -> list[FromCard]:
        """Change records; what the ASP says to that."""
        for record in records:
            self.publisher.put(record)
        for key in delete:
            self.publisher.delete(key)
        before = len(self.said)
        for card, delta in self.publisher.flush():
            assert card == self.asp.card
            self.take(self.asp.receive(delta, self.now))
        self.settle()
        return self.said[before:]

    def record(self, *key: str | int) -> Record:
        return self.publisher.records[key]

    def tunnel(self, number: int) -> TunnelRecord:
        record = self.record("tunnel", number)
        assert isinstance(record, TunnelRecord)
        return record

    def take(self, outputs: Iterable[Output]) -> list[tuple[str, Batch]]:
        """Keep what goes to the controller (as it comes out of the codec); the rest that is fabric."""
        outputs = list(outputs)
        for output in outputs:
            if isinstance(output, ToController):
                message = decode(encode(output.message))
                assert message == output.message
                self.said.append(output.message)
        return fabric(outputs)

    def give(self, batch: Batch, card: str = LC3, epoch: int = 1) -> list[tuple[str, Batch]]:
        """A batch of another card; what the ASP gives to others."""
        batch.card, batch.epoch = card, epoch
        sent = self.take(self.asp.receive_batch(batch, self.now))
        for _, out in sent:
            assert (out.card, out.epoch) == (self.asp.card, self.epoch)
            assert sum(out.lengths) == len(out.body)
        self.check_counts()
        return sent

    def protect(self, tunnel: int, packets: Sequence[bytes], **fields: object) -> list[tuple[str, Batch]]:
        fields = {"context": INNER, "tunnel": tunnel, "ingress": "3/1", **fields}
        return self.give(batch_of(packets, Step.ENCAPSULATE, **fields))

    def open(self, batch: Batch, **fields: object) -> list[tuple[str, Batch]]:
        """Protected packets from the other router, as this one's line card hands them on."""
        fields = {
            "step": Step.DECAPSULATE, "ingress": "3/11", "context": OUTER, "tunnel": 0, "circuit": 0, "port": "",
            "address": 0, **fields,
        }  # fmt: skip
        return self.give(moved(batch, **fields))

    def drops(self) -> dict[str, int]:
        return {
            name.removeprefix("drop "): count
            for name, count in self.asp.counters.items()
            if name.startswith("drop ") and count
        }

    def count(self, name: str) -> int:
        return self.asp.counters.get(name)

    def check_counts(self) -> None:
        """Nothing is lost without a name."""
        made = [self.count(name) for name in ("fragments created", "icmp errors sent", "ike datagrams sent")]
        assert self.count("packets originated") == sum(made)
        came = self.count("packets from fabric") + self.count("packets originated")
        went = [self.count(f"packets {name}") for name in ("to fabric", "delivered", "queued")]
        assert came == sum(went) + sum(self.drops().values())

    def hello(self) -> Hello:
        return next(message for message in reversed(self.said) if isinstance(message, Hello))


def records(*, there: bool = False, kind: str = "esp", **tunnel: object) -> list[Record]:
    """Router `a` (50/8 behind port 3/1, outer 40.0.0.1) or, `there`, router `b` (60/8, outer 40.0.0.2).

    Tunnel 1 is circuit-based, tunnel 2 economical. Economical traffic is 52/8 to 62/8.
    """
    mine, far = ("40.0.0.2", "40.0.0.1") if there else ("40.0.0.1", "40.0.0.2")
    inside, outside = ("60", "50") if there else ("50", "60")
    eco_in, eco_out = ("62", "52") if there else ("52", "62")
    made: list[Record] = [
        ContextRecord(INNER, "inner"),
        ContextRecord(OUTER, "outer"),
        InterfaceRecord(context=INNER, name="lan", kind="numbered", address=ip(f"{inside}.0.0.254"),
            prefix_length=8, port="3/1"),
        InterfaceRecord(context=INNER, name="t1", kind="ipsec", address=ip("1.0.0.2" if there else "1.0.0.1"),
            prefix_length=30, tunnel=CIRCUIT),
        InterfaceRecord(context=INNER, name="t2", kind="ipsec", address=ip("2.0.0.2" if there else "2.0.0.1"),
            prefix_length=30, tunnel=ECONOMICAL),
        InterfaceRecord(context=OUTER, name="wan", kind="numbered", address=ip(mine), prefix_length=16,
            port="3/11"),
        PortRecord(port="3/1", card=LC3, enabled=True, context=INNER, interface="lan",
            address=ip(f"{inside}.0.0.254"), prefix_length=8, mac=b"\2\0\0\0\3\1"),
        PortRecord(port="3/11", card=LC3, enabled=True, context=OUTER, interface="wan", address=ip(mine),
            prefix_length=16, mac=b"\2\0\0\0\3\13"),
        PortRecord(port="4/11", card=LC4, enabled=True, context=OUTER, interface="wan2", address=ip("41.0.0.1"),
            prefix_length=16, mac=b"\2\0\0\0\4\13"),
        LocalAddressRecord(INNER, ip(f"{inside}.0.0.254")),
        LocalAddressRecord(INNER, ip("2.0.0.2" if there else "2.0.0.1")),
        LocalAddressRecord(OUTER, ip(mine), ASP),
        route(INNER, f"{inside}.0.0.0/8", port_hop(LC3, "3/1")),
        route(INNER, f"{eco_in}.0.0.0/8", port_hop(LC3, "3/1", f"{inside}.0.0.7")),
        route(INNER, f"{outside}.0.0.0/8", tunnel_hop(CIRCUIT)),
        route(INNER, f"{eco_out}.0.0.0/8", tunnel_hop(ECONOMICAL)),
        route(OUTER, f"{far}/32", port_hop(LC3, "3/11", far, cost=5), port_hop(LC4, "4/11", "41.0.0.9", cost=10)),
        manual_sa("sa1", 1000, kind, there=there),
        manual_sa("sa2", 2000, kind, there=there),
    ]  # fmt: skip
    for number, economical in ((CIRCUIT, False), (ECONOMICAL, True)):
        made.append(
            altered(
                TunnelRecord(
                    number=number,
                    config=Tunnel(f"t{number}", kind="manual", economical=economical,
                        entries=(TunnelEntry(10, sa=f"sa{number}"),)),
                    asp=ASP,
                    circuit=0 if economical else 17,
                    home="" if economical else LC3,
                    context=INNER,
                    outer_context=OUTER,
                    local=ip(mine),
                    remote=ip(far),
                    queues=1,
                    up=True,
                ),
                **tunnel,
            ),
        )  # fmt: skip
    return made


def altered(record: TunnelRecord, **fields: Any) -> TunnelRecord:
    """The record with other fields of its own or of its tunnel's configuration."""
    own = {item.name for item in dataclass_fields(record)}
    config = {name: fields.pop(name) for name in list(fields) if name not in own}
    return replace(record, config=replace(record.config, **config), **fields)


def pair(**fields: object) -> tuple[Controller, Controller]:
    """Both routers."""
    return Controller(records(**fields)), Controller(records(there=True, **fields))  # type: ignore[arg-type]


def thousands(count: int) -> tuple[Controller, list[Record]]:
    """An ASP that was admitted, and the records of so many tunnels that it has not got yet."""
    made: list[Record] = [record for record in records() if record.key[0] not in ("tunnel", "manual-sa")]
    template = next(
        record for record in records() if isinstance(record, TunnelRecord) and record.config.economical
    )
    for number in range(1, count + 1):
        entries = (TunnelEntry(10, sa=f"sa{number}"),)
        made.append(manual_sa(f"sa{number}", 1000 + 20 * number))
        made.append(altered(template, number=number, remote=ip("41.0.1.0") + number, entries=entries))
    a = Controller([], slots=4 * count)
    a.publisher.replace(made)
    a.publisher.flush()
    a.take(a.asp.on_connected(a.now))
    a.take(a.asp.receive(Welcome(a.epoch, a.publisher.version, 0.1, 5, {}), a.now))
    a.said.clear()
    return a, made


def icmp_error(packet: bytes) -> tuple[Ipv4, icmp.Icmp]:
    parsed = Ipv4.parse(packet)
    assert parsed.protocol == PROTOCOL_ICMP
    return parsed, icmp.Icmp.parse(parsed.payload)


__all__ = ["PROTOCOL_ESP"]
