"""What provokes each message of the guide's table 7, and ours beside it: packets on the wire between two ASPs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from scapy.layers.inet import IP
from scapy.layers.ipsec import AH, AUTH_ALGOS, ESP, SecurityAssociation
from scapy.packet import Raw

from chassis.ase.ike_messages import SaDelete
from chassis.bus.batch import Step
from chassis.bus.messages import LogRecord, Request
from chassis.bus.records import PolicyRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import ManualSa
from tests.support.asp import (
    AH_MD5,
    CIRCUIT,
    ESP_AES,
    ESP_SHA,
    INNER,
    Controller,
    altered,
    batch_of,
    ip,
    manual_sa,
    packets_of,
    pair,
    udp_packet,
    with_keys,
)
from tests.support.asp_negotiated import install, join, sides


@dataclass
class Refused:
    """A router, packets off the wire that it refuses, what it counts them as, and what its log names first."""

    router: Controller
    packets: list[bytes]
    cause: str
    spi: int
    sequence: int = 1
    source: str = "40.0.0.1"


Case = Callable[[int], Refused]
"""Makes so many different packets."""


def sent(count: int, kind: str = "esp") -> tuple[Controller, list[bytes]]:
    """A router, and packets to it that the other one has protected."""
    a, b = pair(kind=kind)
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(number=i) for i in range(count)])
    return b, packets_of(out)


def with_inbound(router: Controller, **keys: object) -> None:
    """Give the router other keys for what comes in, and make its SAs anew."""
    record = router.record("manual-sa", "sa1")
    assert isinstance(record, PolicyRecord)
    router.put(with_keys(record, "in", **keys))
    clear(router)


def clear(router: Controller) -> None:
    """Let changes of the manual SA act."""
    router.take(router.asp.receive(Request(1, "clear", {"tunnel": CIRCUIT}), router.now))


def other_ah_key(count: int) -> Refused:
    b, packets = sent(count, "ah")
    with_inbound(b, ah_key=b"b" * 16)
    return Refused(b, packets, "ah integrity", 1001)


def changed_on_the_way_ah(count: int) -> Refused:
    b, packets = sent(count, "ah")
    return Refused(b, [packet[:-1] + b"?" for packet in packets], "ah integrity", 1001)


def other_ah_key_of_a_bundle(count: int) -> Refused:
    b, packets = sent(count, "bundle")
    with_inbound(b, ah_key=b"b" * 16)
    return Refused(b, packets, "ah integrity", 1001)


def other_esp_key(count: int) -> Refused:
    b, packets = sent(count)
    with_inbound(b, esp_integrity_key=b"j" * 20)
    return Refused(b, packets, "esp integrity", 1000)


def other_algorithm(count: int) -> Refused:
    """What the guide has a row of its own for."""
    b, packets = sent(count)
    with_inbound(b, esp_integrity="hmac-md5-96", esp_integrity_key=b"i" * 16)
    return Refused(b, packets, "esp integrity", 1000)


def other_esp_key_of_a_bundle(count: int) -> Refused:
    b, packets = sent(count, "bundle")
    with_inbound(b, esp_integrity_key=b"j" * 20)
    return Refused(b, packets, "esp integrity", 1000)


def with_ah(packet: bytes, number: int) -> bytes:
    """AH put before the ESP of a packet. Scapy signs raw octets alone, not what has a layer of ESP."""
    outer = IP(src="40.0.0.1", dst="40.0.0.2", ttl=64, proto=51, len=len(packet) + 24)
    header = AH(nh=50, payloadlen=4, spi=1001, seq=number, icv=bytes(12))
    whole = IP(bytes(outer))
    whole.remove_payload()
    return bytes(AUTH_ALGOS["HMAC-MD5-96"].sign(whole / header / Raw(packet[20:]), AH_MD5["ah_key"]))


def transport_mode(kind: str) -> Case:
    """A peer that was told to use transport mode: another implementation, with the same keys."""

    def case(count: int) -> Refused:
        _, b = pair(kind=kind)
        esp = SecurityAssociation(
            ESP,
            spi=1000,
            crypt_algo="AES-CBC",
            crypt_key=ESP_AES["esp_cipher_key"],
            auth_algo="HMAC-SHA1-96",
            auth_key=ESP_SHA["esp_integrity_key"],
        )
        ah = SecurityAssociation(AH, spi=1001, auth_algo="HMAC-MD5-96", auth_key=AH_MD5["ah_key"])
        packets = []
        for number in range(count):
            packet = IP(udp_packet("40.0.0.1", "40.0.0.2"))
            if kind == "ah":
                packet = ah.encrypt(packet)
            else:
                packet = esp.encrypt(packet)
            packets.append(bytes(packet) if kind != "bundle" else with_ah(bytes(packet), number + 1))
        return Refused(b, packets, "not tunnel mode", 1001 if kind == "ah" else 1000)

    return case


def previous_spi(count: int) -> Refused:
    """The line has another SA by now."""
    b, packets = sent(count)
    b.put(manual_sa("sa1", 3000, there=True))
    return Refused(b, packets, "no inbound sa", 1000)


def previous_spi_of_ah(count: int) -> Refused:
    b, packets = sent(count, "ah")
    b.put(manual_sa("sa1", 3000, "ah", there=True))
    return Refused(b, packets, "no inbound sa", 1001)


def spi_of_a_deleted_negotiation(count: int) -> Refused:
    """Sent before the peer heard that its SA has a successor and is gone."""
    left, right = sides()
    join(left, right, CIRCUIT, 1)
    [(_, out)] = left.protect(CIRCUIT, [udp_packet(number=i) for i in range(count)])
    join(left, right, CIRCUIT, 2)
    right.ike(SaDelete(CIRCUIT, 1, "replaced"))
    return Refused(right, packets_of(out), "no inbound sa", 10_020)


def before_the_window(kind: str) -> Case:
    def case(count: int) -> Refused:
        b, packets = sent(64 + count, kind)
        [(_, came)] = b.open(batch_of(packets[-1:], Step.DECAPSULATE))
        assert len(came) == 1
        return Refused(b, packets[:count], "outside replay window", 1000 if kind == "esp" else 1001)

    return case


def seen_before(kind: str) -> Case:
    def case(count: int) -> Refused:
        b, packets = sent(count, kind)
        record = b.record("manual-sa", "sa1")
        assert isinstance(record, PolicyRecord)
        assert isinstance(record.value, ManualSa)
        b.put(replace(record, value=replace(record.value, window=1024)))
        clear(b)
        [(_, came)] = b.open(batch_of(packets, Step.DECAPSULATE))
        assert len(came) == count
        return Refused(b, packets, "replayed", 1000 if kind == "esp" else 1001)

    return case


HOST = ip("50.0.0.9")
"""A host of the other end's network that the packets are not of."""


def other_host(kind: str) -> Case:
    """The peer's access list lets in what this router's keeps out."""

    def case(count: int) -> Refused:
        b, packets = sent(count, kind)
        record = b.tunnel(CIRCUIT)
        b.put(
            PolicyRecord(INNER, Acl("host", rules=(AclRule(10, destination=(HOST, 32)),))),
            altered(record, entries=(replace(record.config.entries[0], acl="host"),)),
        )
        return Refused(b, packets, "selector mismatch", 1001 if kind != "esp" else 1000, source="50.0.0.1")

    return case


def more_than_was_negotiated(count: int) -> Refused:
    """The peer sends what this router did not agree to."""
    left, right = sides()
    left.ike(install(CIRCUIT, 1))
    narrow = (AclRule(10, destination=(HOST, 32)),)
    right.ike(install(CIRCUIT, 1, there=True, rules=narrow))
    [(_, out)] = left.protect(CIRCUIT, [udp_packet(number=i) for i in range(count)])
    return Refused(right, packets_of(out), "selector mismatch", 10_020, source="50.0.0.1")


CASES: dict[str, list[Case]] = {
    "esp-icv-ah": [other_ah_key, changed_on_the_way_ah, other_ah_key_of_a_bundle],
    "esp-icv-esp": [other_esp_key, other_algorithm, other_esp_key_of_a_bundle],
    "esp-encap-mode": [transport_mode("esp"), transport_mode("ah"), transport_mode("bundle")],
    "esp-no-inbound-sa": [previous_spi, previous_spi_of_ah, spi_of_a_deleted_negotiation],
    "esp-late-packet": [before_the_window("esp"), before_the_window("ah"), before_the_window("bundle")],
    "esp-duplicate-packet": [seen_before("esp"), seen_before("ah"), seen_before("bundle")],
    "esp-selector-mismatch": [other_host("esp"), other_host("ah"), other_host("bundle"), more_than_was_negotiated],
}
"""Ways to provoke a row, by its id."""


def logs(router: Controller) -> list[LogRecord]:
    return [message for message in router.said if isinstance(message, LogRecord)]
