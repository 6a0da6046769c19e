"""Every view by its golden file. `RENEW_VIEWS=1` writes them anew; look at the difference then."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from chassis.cli.commands import COMMANDS
from chassis.cli.views import acts, hardware, interfaces, monitor, probes, system, transactions, tunnels
from chassis.cli.views.layout import Scope, View, ViewError, duration
from tests.support.cli_answers import ARP, ASPS, CIRCUITS, HARDWARE, PORTS, SHOWN, Shown

GOLDEN = Path(__file__).parent / "golden"

UP = {
    "name": "circuit",
    "number": 1,
    "kind": "manual",
    "mode": "circuit-based",
    "asp": "asp 1/1",
    "circuit": 3,
    "home": "lc 3",
    "context": "lan",
    "outer_context": "wan",
    "interface": "to-circuit",
    "local": "30.0.0.1",
    "remote": "20.0.0.1",
    "up": True,
    "state": "up",
    "reason": "",
    "since": 100.0,
}
NEGOTIATED = {
    **UP,
    "name": "negotiated",
    "kind": "static",
    "mode": "economical",
    "circuit": 0,
    "home": "",
    "context": "office",
    "remote": "20.0.0.9",
    "ike_policy": "p",
    "ike_version": 2,
    "identity": "20.0.0.9",
    "networks": ["60.2.0.0/16"],
    "sas": [
        {"serial": 1, "direction": "in", "protocol": "esp", "spi": 4096, "algorithms": "aes-128-cbc hmac-sha1-96"},
        {"serial": 1, "direction": "out", "protocol": "esp", "spi": 77, "algorithms": "aes-128-cbc hmac-sha1-96"},
    ],
}
DOWN = {**UP, "name": "down", "number": 3, "asp": "", "circuit": 0, "up": False, "reason": "no ASP is usable"}
WAITING = {
    "name": "callers",
    "number": 4,
    "kind": "on-demand",
    "up": False,
    "reason": "no peer",
    "instances": 0,
    "instances_up": 0,
    "max_tunnels": 50,
}
CALLED = {**WAITING, "name": "called", "number": 5, "up": True, "reason": "", "instances": 3, "instances_up": 2}
CALLER = {
    **NEGOTIATED,
    "name": "called",
    "number": 1029,
    "kind": "on-demand",
    "identity": "lyon.branch.example",
    "profile": "called",
    "assigned": "10.8.0.5/32",
    "pool": "branches",
    "session": "0000000300000007",
}
TUNNELS = {"tunnels": [UP, NEGOTIATED, DOWN, WAITING, CALLED, CALLER], "total": 6, "up": 4}

COUNTED = {
    "tunnel": 1,
    "name": "circuit",
    "kind": "manual",
    "identity": "",
    "encapsulated": {"packets": 1200, "octets": 480000},
    "decapsulated": {"packets": 7, "octets": 2800},
    "drops": {"out": {"queue full": 3, "no SA": 0}, "in": {"replay": 2}},
    "sas": [
        {
            "direction": "out",
            "entry": 10,
            "protocol": "esp",
            "spi": 4097,
            "peer": "20.0.0.1",
            "packets": 1200,
            "octets": 523000,
            "drops": {},
        },
        {
            "direction": "in",
            "entry": 10,
            "rule": 30,
            "protocol": "ah+esp",
            "spi": 4098,
            "peer": "20.0.0.1",
            "packets": 7,
            "octets": 3100,
            "drops": {"replay": 1, "late": 1},
        },
    ],
}
SAS = {"cards": {"asp 1/1": {"tunnels": [COUNTED], "drops": {}}}, "errors": {}}
CLEARED_ARP = {"cards": {"lc 3": {"cleared": 2}, "lc 4": {"cleared": 1}}, "errors": {}}
IMPORTED = {"context": "local", "kind": "key-pair", "name": "keytest1", "handle": "", "subject": ""}
DIRECTORY = {
    "path": "/flash",
    "files": [
        {"name": "pki", "octets": 0, "modified": 1_119_854_000.0, "folder": True},
        {"name": "redback.cfg", "octets": 12_345, "modified": 1_119_857_600.0, "folder": False},
    ],
}
HOP = {"kind": "local", "cost": 0, "card": "", "port": "", "address": "", "tunnel": ""}
ROUTES = {
    "routes": [
        {"prefix": "50.0.0.0/8", "next_hops": [{**HOP, "kind": "port", "port": "3/1"}]},
        {"prefix": "50.0.0.254/32", "next_hops": [HOP]},
        {
            "prefix": "60.1.0.0/16",
            "next_hops": [
                {**HOP, "kind": "tunnel", "cost": 5, "tunnel": "circuit"},
                {**HOP, "kind": "port", "cost": 10, "port": "3/11", "address": "40.0.0.2"},
            ],
        },
        {"prefix": "70.0.0.0/8", "next_hops": [{**HOP, "kind": "discard", "cost": 1}]},
    ],
    "down": [{"prefix": "80.0.0.0/8", "next_hop": "", "cost": 1, "reason": "no packet leaves for context wan"}],
}
PING = {
    "source": "50.0.0.254",
    "address": "60.0.0.1",
    "size": 36,
    "timeout": 2,
    "sent": 5,
    "received": 3,
    "replies": [{"sequence": number, "ms": number / 2, "ttl": 63} for number in (1, 2, 5)],
    "errors": ["40.0.0.2: type 3 code 1 (sequence 3)"],
}
PROBE = {"address": "40.0.0.2", "ms": 0.25, "mark": ""}
SILENT = {"address": "", "ms": 0.0, "mark": ""}
MONITOR = {
    "tunnels": [
        {"name": "t1", "kind": "static", "remote": "20.0.0.1", "up": True},
        {"name": "t2", "kind": "on-demand", "up": False, "reason": "no peer"},
    ],
    "traffic": {"out": 12_345, "in": 9},
    "rates": {"out": 500.4, "in": 0.0},
}
TRACEROUTE = {
    "address": "60.0.0.1",
    "most": 30,
    "size": 36,
    "hops": [
        {"ttl": 1, "probes": [PROBE, SILENT, PROBE | {"address": "40.0.0.3", "ms": 12.5}]},
        {"ttl": 2, "probes": [SILENT] * 3},
        {"ttl": 3, "probes": [PROBE | {"address": "50.0.0.1", "mark": "!H"}] * 3},
    ],
}
LOG: dict[str, Any] = {
    "records": [
        {
            "number": 1,
            "time": 10.5,
            "wall": 1_119_854_000.0 + 10.5,
            "severity": "info",
            "facility": "ike",
            "id": "x",
            "text": "negotiated",
            "context_id": 0x40080002,
            "circuit": "1/0:1023:63/3/1/17",
            "values": {},
        },
        {
            "number": 2,
            "time": 90.0,
            "wall": 1_119_854_000.0 + 90.0,
            "severity": "error",
            "facility": "ike",
            "id": "ikev1-psk-mismatch-suspected",
            "text": "Possibly Mismatching Keys detected in IKE phase-I 5th/6th messages",
            "context_id": 0x40080001,
            "circuit": "",
            "values": {},
        },
        {
            "number": 3,
            "time": 95.0,
            "wall": 1_119_854_000.0 + 95.0,
            "severity": "error",
            "facility": "operator",
            "id": "",
            "text": "refused",
            "context_id": 0,
            "circuit": "",
            "values": {},
        },
    ]
}
CONFIG = {
    "text": "context local\n!\nport ethernet 3/1\n no shutdown\n!\nend\n",
    "changed": {"user": "ann", "time": 1119854285.0},
}
IKE = {"cards": {"asp 1/1": {"total": {"x": 9}, "tunnels": {"1": {"initiated": 4, "failed": 0}}}}, "errors": {}}
CLEARED: dict[str, Any] = {"cards": {"asp 1/1": {"cleared": 1}}, "errors": {}}

CANDIDATE = {
    "lines": 3,
    "difference": ["  tunnel t1", "-  mtu 1400", "+  mtu 1300"],
    "remarks": ["% Warning: line 2, `bind interface x c`: no interface x in context c"],
    "conflict": "Database is locked by another transaction of user bob: tunnel t1 was changed by commit 8",
}
COMMITS = {
    "version": 8,
    "open": {"number": 8, "user": "bob", "seconds": 59.5},
    "commits": [
        {
            "number": 8,
            "time": 1_119_854_000.0,
            "user": "bob",
            "comment": "why not",
            "file": "",
            "kind": "commit",
            "back": 0,
            "state": "waiting",
        },
        {
            "number": 1,
            "time": 1_119_850_000.0,
            "user": "",
            "comment": "",
            "file": "a.cfg",
            "kind": "apply",
            "back": 0,
            "state": "",
        },
    ],
}

CASES: tuple[Shown, ...] = (
    *SHOWN,
    ("log", system.log, LOG, {}),
    ("log-explained", system.log, LOG, {"explain": "explain"}),
    ("clock", system.clock, {}, {}),
    ("configuration", system.configuration, CONFIG, {}),
    ("configuration-start-up", system.configuration, {**CONFIG, "changed": {"user": "", "time": 0.0}}, {}),
    ("part-of-configuration", system.part_of_configuration, CONFIG, {}),
    ("silent", system.silent, {}, {}),
    ("tunnels", tunnels.tunnels, TUNNELS, {}),
    ("tunnels-detail", tunnels.tunnels, TUNNELS, {"form": "detail"}),
    ("tunnels-first", tunnels.tunnels, {"tunnels": [UP], "next": "1"}, {}),
    ("tunnels-last", tunnels.tunnels, {"tunnels": [DOWN, WAITING], "total": 3, "up": 1, "first": False}, {}),
    ("tunnels-none", tunnels.tunnels, {"tunnels": [], "total": 0, "up": 0}, {"form": "on-demand"}),
    ("statistics", tunnels.statistics, SAS, {"name": "circuit"}),
    ("statistics-detail", tunnels.statistics, SAS, {"name": "circuit", "detail": "detail"}),
    ("ike-statistics", tunnels.ike_statistics, IKE, {"name": "negotiated"}),
    ("ike-statistics-detail", tunnels.ike_statistics, IKE, {"name": "negotiated", "detail": "detail"}),
    ("cleared", tunnels.cleared, CLEARED, {"name": "circuit"}),
    ("routes", interfaces.routes, ROUTES, {}),
    ("arp-cleared", acts.arp_cleared, CLEARED_ARP, {}),
    ("directory", acts.directory, DIRECTORY, {}),
    ("saved", acts.saved, {"file": "/flash/redback.cfg", "octets": 9}, {}),
    ("copied", acts.copied, {"file": "/flash/a.cfg", "target": "/flash/b.cfg"}, {}),
    ("pki-imported", acts.pki_imported, {**IMPORTED, "handle": "0a1b2c3d", "subject": "CN=Test CA"}, {}),
    ("pki-imported-key-pair", acts.pki_imported, IMPORTED, {}),
    ("key-pair-made", acts.key_pair_made, {"name": "keytest1", "bits": 512}, {}),
    ("request-written", acts.request_written, {"name": "test1", "file": "/flash/test1"}, {}),
    ("pki-removed", acts.pki_removed, {"handle": "0a1b2c3d", "subject": "CN=Test CA"}, {}),
    ("text-file", acts.text_file, {"file": "/flash/a.cfg", "text": "context local\n!\nend\n"}, {}),
    ("deleted", acts.deleted, {"file": "/flash/a.cfg"}, {}),
    ("reloading", acts.reloading, {"file": "/flash/redback.cfg", "errors": 2}, {}),
    ("card-reloading", acts.card_reloading, {"cards": ["asp 1/1", "asp 1/2"]}, {}),
    ("ping", probes.ping, PING, {}),
    ("monitor", monitor.tunnel, MONITOR, {}),
    ("monitor-first-look", monitor.tunnel, {**MONITOR, "rates": {}}, {}),
    ("traceroute", probes.traceroute, TRACEROUTE, {}),
    (
        "committed",
        transactions.said,
        {"lines": ["% Warning: line 1: no x", "Transaction committed"]},
        {},
    ),
    ("candidate", transactions.candidate, CANDIDATE, {}),
    ("candidate-empty", transactions.candidate, {**CANDIDATE, "lines": 0}, {}),
    ("transactions", transactions.transactions, {**COMMITS, "lines": 12, "base": 7}, {}),
    ("transactions-none", transactions.transactions, {"lines": 0, "base": 0, "open": {}}, {}),
    ("commits", transactions.commits, COMMITS, {}),
    ("history", transactions.history, {"lines": ["configure", "pre-shared-key ***"]}, {}),
)


def scope(**values: Any) -> Scope:
    return Scope(values, "a", "local", 3765.0, 1_119_854_000.0)


@pytest.mark.parametrize(("name", "view", "data", "values"), CASES, ids=[case[0] for case in CASES])
def test_a_view_prints_its_golden_file(name: str, view: View, data: Any, values: dict[str, Any]) -> None:
    chosen = view.select(data, scope(**values))
    text = "".join(f"{line}\n" for line in view.lines(chosen, scope(**values)))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("RENEW_VIEWS"):
        file.write_text(text)
    assert text == file.read_text()
    assert json.loads(json.dumps(chosen)) == chosen
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_every_view_of_the_table_has_a_golden_file() -> None:
    shown = {id(case[1]) for case in CASES}
    assert [row.id for row in COMMANDS if id(row.view) not in shown] == []
    assert {file.stem for file in GOLDEN.iterdir()} == {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("view", "data", "values", "text"),
    [
        (tunnels.tunnels, {"tunnels": []}, {"remote": "1.1.1.1"}, "no tunnel to 1.1.1.1"),
        (tunnels.statistics, {"cards": {}, "errors": {"asp 1/1": "down"}}, {"name": "t"}, "asp 1/1: down"),
        (tunnels.statistics, SAS, {"name": "circuit", "form": "on-demand"}, "tunnel 'circuit' is not on-demand"),
        (tunnels.statistics, {"cards": {}, "errors": {}}, {"name": "t"}, "no ASP counts for tunnel 't'"),
        (tunnels.ike_statistics, {"cards": {}, "errors": {"asp 1/1": "down"}}, {"name": "t"}, "asp 1/1: down"),
        (tunnels.cleared, {"cards": {}, "errors": {"asp 1/1": "down"}}, {"name": "t"}, "asp 1/1: down"),
        (interfaces.arp, {**ARP, "errors": {"lc 3": "down"}}, {}, "lc 3: down"),
        (interfaces.ports, {**PORTS, "errors": {"lc 3": "down"}}, {"form": "counters"}, "lc 3: down"),
        (interfaces.circuits, {**CIRCUITS, "errors": {"lc 3": "down"}}, {}, "lc 3: down"),
        (hardware.card, HARDWARE, {"slot": 2}, "no card in slot 2"),
        (hardware.asps, ASPS, {"name": "9/1"}, "no asp '9/1'"),
        (hardware.pools, ASPS, {"name": "P9"}, "no pool 'P9'"),
        (hardware.groups, ASPS, {"name": "G9"}, "no group 'G9'"),
    ],
)
def test_what_is_not_there_is_an_error(view: View, data: Any, values: dict[str, Any], text: str) -> None:
    with pytest.raises(ViewError, match=f"^{text}$"):
        view.select(data, scope(**values))


def test_a_session_without_a_clock_has_no_time() -> None:
    with pytest.raises(ViewError, match="clock"):
        system.clock.lines({}, Scope())


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (0.9, 65, 3661, 90_000)] == [
        "00:00:00",
        "00:01:05",
        "01:01:01",
        "1d01h",
    ]
