"""One ASP engine in both directions: batches in, batches out, without sockets. Its SAs are negotiated."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from copy import copy
from itertools import cycle, islice

from bench.report import Report
from bench.site import arithmetic
from bench.stream import IMIX
from chassis.ase.engine import AspEngine
from chassis.ase.ike_messages import IkeTunnelState, SaInstall
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.state import octets_for
from chassis.bus.batch import Batch, Step
from chassis.bus.engine import Output, ToFabric
from chassis.bus.messages import Snapshot, Welcome
from chassis.bus.records import CardStateRecord, CircuitRecord, TunnelRecord
from chassis.model.ipsec import SaKeys, TunnelEntry
from chassis.model.router import Tunnel
from chassis.net.address import parse_address
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import Ipv4

BATCH = 64
SECONDS = 0.7
RUNS = 5
KEYS = {
    "AES-128-CBC/SHA1": SaKeys(
        esp_spi=1000,
        esp_integrity="hmac-sha1-96",
        esp_integrity_key=bytes(range(20)),
        esp_cipher="aes-128-cbc",
        esp_cipher_key=bytes(range(16)),
    ),
    "3DES/MD5": SaKeys(
        esp_spi=1000,
        esp_integrity="hmac-md5-96",
        esp_integrity_key=bytes(range(16)),
        esp_cipher="3des-cbc",
        esp_cipher_key=bytes(range(24)),
    ),
    "AES-128-GCM": SaKeys(esp_spi=1000, esp_cipher="aes-128-gcm", esp_cipher_key=bytes(range(20))),
}
CLEAR: dict[str, Sequence[int]] = {
    "64": (64,),
    "512": (512,),
    "1400": (1400,),
    "IMIX": [size for size, parts in IMIX.items() for _ in range(parts)],
}
"""Sizes (octets) of the clear packets in a batch, repeated."""
BAR = 150_000
"""Rate (packets/s) that one ASP must reach at `BAR_AT`, both to encapsulate and to decapsulate."""
BAR_AT = ("AES-128-CBC/SHA1", "1400")
LEFT, RIGHT = parse_address("30.0.0.1"), parse_address("20.1.0.2")


def asp_of(keys: SaKeys, local: int, remote: int, engine: CipherEngine = CRYPTOGRAPHY) -> AspEngine:
    """Create an ASP with one circuit-based tunnel, an SA pair as from IKE, and a line card as neighbour."""
    asp = AspEngine(
        "asp 1/1",
        pid=1,
        boot=1,
        state=memoryview(bytearray(octets_for(64))),
        fresh=True,
        random=os.urandom,
        engine=engine,
    )
    asp.on_connected(0.0)
    asp.receive(Welcome(1, 1, 0.1, 5, {}), 0.0)
    tunnel = TunnelRecord(
        number=1,
        config=Tunnel("t", ike_policy="ike", entries=(TunnelEntry(10, policy="p"),)),
        asp="asp 1/1",
        circuit=7,
        home="lc 3",
        context=1,
        outer_context=1,
        local=local,
        remote=remote,
        queues=1,
        up=True,
    )
    records = (
        CardStateRecord("asp 1/1", "asp", 1, 1, True),
        CardStateRecord("lc 3", "linecard", 1, 2, True),
        CircuitRecord(number=7, kind="tunnel", card="lc 3", context=1, interface="if", tunnel=1),
        tunnel,
    )
    asp.receive(Snapshot(1, 1, 1, records), 0.0)
    asp.ike_connected(0.0)
    asp.from_ike(SaInstall(1, 1, 10, local, remote, keys, keys, window=64, send=True), 0.0)
    asp.from_ike(IkeTunnelState(1, True, ""), 0.0)
    return asp


def clear_batch(sizes: Sequence[int], packets: int = BATCH) -> Batch:
    frames = [
        bytes(HEADROOM)
        + Ipv4(
            source=parse_address("50.1.0.1"),
            destination=parse_address("60.1.0.1"),
            protocol=17,
            payload=bytes(size - 20),
        ).emit()
        for size in islice(cycle(sizes), packets)
    ]
    return Batch(
        Step.ENCAPSULATE,
        bytearray(b"".join(frames)),
        array("H", map(len, frames)),
        card="lc 3",
        epoch=2,
        context=1,
        tunnel=1,
    )


def batches_of(outputs: list[Output]) -> list[Batch]:
    return [output.batch for output in outputs if isinstance(output, ToFabric)]


def run(report: Report) -> None:
    """Encapsulate packets and decapsulate the result; report rates of one process and its share of a core."""
    for name, keys in KEYS.items():
        for what, sizes in CLEAR.items():
            protected_rates, opened_rates, protected_cores, opened_cores = [], [], [], []
            clear = clear_batch(sizes)
            for _ in range(RUNS):
                sender, receiver = asp_of(keys, LEFT, RIGHT), asp_of(keys, RIGHT, LEFT)
                kept: list[Batch] = []
                packets, begin, used = 0, time.perf_counter(), time.process_time()
                while (spent := time.perf_counter() - begin) < SECONDS:
                    outputs = sender.receive_batch(copy(clear), 0.0)
                    packets += BATCH
                    if len(kept) < 2000:
                        kept += batches_of(outputs)
                protected_rates.append(packets / spent)
                protected_cores.append((time.process_time() - used) / spent)
                for batch in kept:
                    batch.card, batch.epoch, batch.step, batch.context = "lc 3", 2, Step.DECAPSULATE, 1
                opened, begin, used = 0, time.perf_counter(), time.process_time()
                for batch in kept:
                    opened += sum(map(len, batches_of(receiver.receive_batch(batch, 0.0))))
                spent = time.perf_counter() - begin
                opened_rates.append(opened / spent)
                opened_cores.append((time.process_time() - used) / spent)
                assert opened == BATCH * len(kept), "every packet must open"
            known = None if what == "IMIX" else arithmetic(name, int(what))
            for way, rates, cores in (
                ("protects", protected_rates, protected_cores),
                ("opens", opened_rates, opened_cores),
            ):
                report.add(f"one ASP {way}, {what}, {name}", rates, "packets/s", "openssl speed", known)
                if (name, what) == BAR_AT:
                    report.bar(BAR)
                report.add("  CPU of the process", cores, "cores")
