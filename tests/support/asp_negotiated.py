"""Two routers' ASPs whose SAs are negotiated: what IKE would say is said by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from chassis.ase.ike_messages import FromIke, IkeTunnelState, SaInstall, ToIke, UdpEncapsulation
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.bus import engine as bus
from chassis.bus.batch import Batch
from chassis.bus.codec import carrier
from chassis.bus.engine import Exit, Output
from chassis.bus.records import Record, TunnelRecord
from chassis.model.ipsec import SaKeys, TunnelEntry
from tests.support.asp import OUTER, Controller, altered, ip, keys, records

A, B = ip("40.0.0.1"), ip("40.0.0.2")

Message = TypeVar("Message")

_encode, _decode = carrier(ToIke)


class Side(Controller):
    """One router's controller, and what its ASP says to IKE."""

    def __init__(
        self, made: Iterable[Record], *, connected: bool = True, engine: CipherEngine = CRYPTOGRAPHY
    ) -> None:
        self.to_ike: list[object] = []
        self.stopped: list[str] = []
        super().__init__(made, engine=engine)
        if connected:
            self.take(self.asp.ike_connected(self.now))

    def take(self, outputs: Iterable[Output]) -> list[tuple[str, Batch]]:
        outputs = list(outputs)
        for output in outputs:
            if isinstance(output, bus.ToIke):
                assert _decode(_encode(output.message)) == output.message
                self.to_ike.append(output.message)
            elif isinstance(output, Exit):
                self.stopped.append(output.reason)
        return super().take(outputs)

    def ike(self, *messages: FromIke) -> list[tuple[str, Batch]]:
        """What IKE says; what leaves for other cards."""
        sent = []
        for message in messages:
            sent += self.take(self.asp.from_ike(message, self.now))
        self.check_counts()
        return sent

    def told(self, kind: type[Message]) -> list[Message]:
        """What IKE was told of a kind since this was last asked."""
        found: list[Message] = [message for message in self.to_ike if isinstance(message, kind)]
        self.to_ike = [message for message in self.to_ike if not isinstance(message, kind)]
        return found

    def heard(self, kind: type[Message]) -> list[Message]:
        """What the controller heard of a kind since this was last asked."""
        found: list[Message] = [message for message in self.said if isinstance(message, kind)]
        self.said = [message for message in self.said if not isinstance(message, kind)]
        return found


def static(*, there: bool = False, entries: Sequence[TunnelEntry] = (), **tunnel: object) -> list[Record]:
    """The records of `asp.records` with both tunnels negotiated."""
    lines = tuple(entries) or (TunnelEntry(10, policy="p"),)
    return [
        altered(record, kind="static", ike_policy="ike", entries=lines, **tunnel)
        if isinstance(record, TunnelRecord)
        else record
        for record in records(there=there)
    ]


def sides(**fields: object) -> tuple[Side, Side]:
    return Side(static(**fields)), Side(static(there=True, **fields))  # type: ignore[arg-type]


def suite(spi: int, kind: str = "esp") -> SaKeys:
    """Keys of one direction, by what protects: those of `asp.keys`, or a modern suite."""
    if kind == "gcm":
        return SaKeys(esp_spi=spi, esp_cipher="aes-256-gcm", esp_cipher_key=bytes(range(36)))
    if kind == "sha2":
        return SaKeys(
            esp_spi=spi,
            esp_cipher="aes-256-cbc",
            esp_cipher_key=bytes(range(32)),
            esp_integrity="hmac-sha-256-128",
            esp_integrity_key=bytes(range(32)),
        )
    return keys(spi, kind)


def install(
    tunnel: int, serial: int, *, there: bool = False, kind: str = "esp", send: bool = True, **fields: object
) -> SaInstall:
    """One end's half of a pair: SPIs follow from tunnel and serial, so that both ends agree."""
    spi = 10_000 * tunnel + 20 * serial
    one, other = suite(spi, kind), suite(spi + 10, kind)
    base = SaInstall(
        tunnel=tunnel, serial=serial, entry=10, local=B if there else A, remote=A if there else B,
        outbound=other if there else one, inbound=one if there else other, window=64, send=send,
    )  # fmt: skip
    return replace(base, **fields)  # type: ignore[arg-type]


def join(left: Side, right: Side, tunnel: int, serial: int = 1, **fields: object) -> None:
    """A pair at both ends, and IKE's word that the tunnel is up."""
    left.ike(install(tunnel, serial, **fields), IkeTunnelState(tunnel, True, "", "b.example"))  # type: ignore[arg-type]
    right.ike(install(tunnel, serial, there=True, **fields), IkeTunnelState(tunnel, True, ""))  # type: ignore[arg-type]


def encapsulated(remote: int, port: int = 4500) -> tuple[UdpEncapsulation, ...]:
    return (UdpEncapsulation(4500, remote, port),)


__all__ = ["OUTER"]
