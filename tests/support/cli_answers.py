"""Answers of a controller, and the views that show them: rows of (golden file, view, answer, what was typed)."""

from __future__ import annotations

from typing import Any

from chassis.cli.views import hardware, interfaces, security, system
from chassis.cli.views.layout import View

Shown = tuple[str, View, Any, dict[str, Any]]

SYSTEM = {"node": "a", "hostname": "Redback", "platform": "SE1200", "os": "seos", "uptime": 3723.4}

_MADE = {"serial": "7A0F10BC33D2E1", "revision": "07", "version": 2, "manufactured": "11-MAR-2009"}
SLOTS = [
    {
        "slot": 1,
        "configured": "ase",
        "installed": "ase",
        "active": False,
        "initialized": False,
        "processes": [
            {"name": "asp 1/1", "usable": True, "state": "usable"},
            {"name": "asp 1/2", "usable": False, "state": "hung"},
        ],
        **_MADE,
    },
    {
        "slot": 3,
        "configured": "ether-12-port",
        "installed": "ether-12-port",
        "active": False,
        "initialized": True,
        "processes": [{"name": "lc 3", "usable": True, "state": "usable"}],
        **_MADE,
    },
    {
        "slot": 5,
        "configured": "atm-oc3",
        "installed": "",
        "active": False,
        "initialized": False,
        "processes": [],
        **_MADE,
    },
    {
        "slot": 7,
        "configured": "xcrp4",
        "installed": "xcrp4",
        "active": True,
        "initialized": True,
        "processes": [],
        **_MADE,
    },
]
HARDWARE = {
    "platform": "SE1200",
    "slots": SLOTS,
    "parts": [{"part": "backplane", **_MADE}, {"part": "fan tray", **_MADE}],
    "alarms": 1,
}

_CARD = {"kind": "asp", "pid": 11, "boot": 1, "epoch": 1, "in_sync": True, "down_reason": ""}
PROCESSES = {
    "boot": 2,
    "cards": [
        {**_CARD, "card": "asp 1/1", "type": "ase", "usable": True, "state": "usable", "loop_lag": 0.0004},
        {**_CARD, "card": "asp 1/2", "type": "ase", "usable": False, "state": "down", "loop_lag": 0.0, "pid": 0},
        {**_CARD, "card": "lc 3", "type": "ether-12-port", "usable": True, "state": "usable", "loop_lag": 0.01},
    ],
}

ASPS = {
    "asps": [
        {
            "asp": "1/1",
            "state": "up",
            "reason": "",
            "service": "security",
            "pools": ["P1"],
            "groups": ["G1"],
            "role": "active",
            "contexts": ["L1", "L2"],
            "rate": "20000 packets/s",
            "cipher_engine": "ipsec-mb 1.3.0",
            "tunnels": 12,
            "up": 10,
            "boot": 1,
        },
        {
            "asp": "1/2",
            "state": "down",
            "reason": "heartbeats missed",
            "service": "",
            "pools": [],
            "groups": [],
            "role": "",
            "contexts": [],
            "rate": "",
            "cipher_engine": "cryptography",
            "tunnels": 0,
            "up": 0,
            "boot": 3,
        },
    ],
    "pools": [
        {"pool": "P1", "service": "security", "asps": ["1/1", "2/1"], "up": 1, "spare": 1, "rate": "20kpps"}
    ],
    "groups": [
        {"group": "G1", "pools": ["P1"], "asp_count": 1, "active": ["1/1"], "contexts": ["L1", "L2"]},
        {"group": "G2", "pools": [], "asp_count": 2, "active": [], "contexts": []},
    ],
}

ALARMS = {
    "alarms": [
        {
            "severity": "major",
            "object": "asp 1/2",
            "alarm": "aseAsp2Down",
            "cause": "",
            "text": "heartbeats missed",
            "raised": 1_119_854_000.0,
            "tunnels": 1200,
        },
        {
            "severity": "major",
            "object": "tunnel t1",
            "alarm": "ipsecTunnelDown",
            "cause": "noRoute",
            "text": "no route to the peer",
            "raised": 1_119_940_400.0,
            "tunnels": 0,
        },
        {
            "severity": "warning",
            "object": "asp 2/1",
            "alarm": "asp1MissingServiceAssoc",
            "cause": "",
            "text": "in no pool",
            "raised": 1_119_853_999.0,
            "tunnels": 0,
        },
    ],
    "total": {"major": 240, "warning": 1},
}
ALARMS_FIRST = {"alarms": ALARMS["alarms"], "next": "warning asp1MissingServiceAssoc asp 2/1"}
ALARMS_LAST = {**ALARMS, "first": False}
NO_ALARMS: dict[str, Any] = {"alarms": [], "total": {}}

CONTEXTS = {
    "contexts": [
        {
            "context": "local",
            "id": 0x40080001,
            "vpn_rd": "",
            "interfaces": 1,
            "routes": 1,
            "asp_group": "",
            "keepalive": False,
        },
        {
            "context": "vpnEndA",
            "id": 0x40080002,
            "vpn_rd": "1:2",
            "interfaces": 4,
            "routes": 2,
            "asp_group": "group1",
            "keepalive": True,
        },
    ]
}

_INTERFACE = {"context": "local", "secondary": [], "unnumbered": "", "mtu": 1500, "description": ""}
INTERFACES = {
    "interfaces": [
        {
            **_INTERFACE,
            "interface": "to-peer",
            "kind": "numbered",
            "description": "uplink",
            "address": "40.0.0.1/30",
            "secondary": ["41.0.0.1/24"],
            "state": "up",
            "bindings": ["ethernet 3/11"],
        },
        {
            **_INTERFACE,
            "interface": "end",
            "kind": "loopback",
            "address": "30.0.0.1/32",
            "state": "up",
            "bindings": [],
        },
        {
            **_INTERFACE,
            "interface": "to-tunnel",
            "kind": "ipsec",
            "address": "",
            "unnumbered": "end",
            "mtu": 1400,
            "state": "down",
            "bindings": ["ipsec t1"],
        },
        {
            **_INTERFACE,
            "interface": "spare",
            "kind": "numbered",
            "address": "9.0.0.1/8",
            "state": "unbound",
            "bindings": [],
        },
    ]
}

_PORT = {
    "type": "ethernet",
    "description": "",
    "mtu": 1500,
    "speed": 1000,
    "card": "lc 3",
    "qos_policy": "",
    "mark": None,
}
PORTS = {
    "ports": [
        {
            **_PORT,
            "port": "3/1",
            "description": "to the office",
            "admin": True,
            "up": True,
            "reason": "",
            "interface": "office",
            "context": "lan",
            "mac": "02:ad:c5:52:84:fe",
            "circuit": 1,
            "qos_policy": "voice",
            "mark": 46,
            "counters": {"packets_in": 1200, "packets_out": 7, "drops": 3},
        },
        {
            **_PORT,
            "port": "3/11",
            "admin": False,
            "up": False,
            "reason": "shutdown",
            "interface": "",
            "context": "",
            "mac": "02:ad:c5:52:84:ff",
            "circuit": 2,
            "counters": {"packets_in": 0, "packets_out": 0, "drops": 0},
        },
        {
            **_PORT,
            "port": "5/1",
            "admin": True,
            "up": False,
            "reason": "no port card in its slot",
            "interface": "far",
            "context": "lan",
            "mac": "",
            "card": "",
            "circuit": 0,
        },
    ],
    "errors": {},
}
PLAIN_PORTS = {
    "ports": [{key: value for key, value in row.items() if key != "counters"} for row in PORTS["ports"]],
    "errors": {},
}

_TOTAL = {"circuits": 3, "up": 2, "bound": 2}
CIRCUITS = {
    "circuits": [
        {
            "circuit": 1,
            "kind": "port",
            "name": "3/1",
            "card": "lc 3",
            "up": True,
            "interface": "office",
            "context": "lan",
            "counters": {"packets_in": 1200, "packets_out": 7, "drops": 3},
        },
        {
            "circuit": 2,
            "kind": "port",
            "name": "3/2",
            "card": "lc 3",
            "up": False,
            "interface": "",
            "context": "",
        },
        {
            "circuit": 9,
            "kind": "tunnel",
            "name": "t1",
            "card": "lc 3",
            "up": True,
            "interface": "to-t1",
            "context": "lan",
            "counters": {"packets_in": 40, "octets_in": 4000, "packets_out": 50, "octets_out": 5000},
        },
    ],
    "total": _TOTAL,
    "errors": {},
}

ARP = {
    "contexts": {"local": 0x40080001, "lan": 0x40080002},
    "entries": [
        {"context": "local", "address": "40.0.0.1", "mac": "02:ad:c5:52:84:fe", "ttl": None, "circuit": "3/11"},
        {"context": "local", "address": "40.0.0.2", "mac": "02:ad:c5:52:84:01", "ttl": 3502, "circuit": "3/11"},
        {"context": "local", "address": "40.0.0.3", "mac": "", "ttl": 0, "circuit": "3/11"},
        {"context": "lan", "address": "50.0.0.1", "mac": "02:ad:c5:52:84:fd", "ttl": None, "circuit": "3/1"},
    ],
    "errors": {},
}

IKE_TOTAL = {
    "total": {"v1 messages sent": 9, "v1 octets sent": 1044, "v2 messages sent": 4, "log lines held back": 1},
    "ike_sas": {"v1": 2, "v2": 1},
}
_QUEUE = {"depth": 0, "peak_depth": 4, "dequeued": 1200, "dropped": 0}
_FAST = {**_QUEUE, "latency": {"avg_ms": 0.4, "p50_ms": 0.3, "p99_ms": 1.0, "max_ms": 1.7}}
_FULL = {"avg_ms": 301.25, "p50_ms": 300.0, "p99_ms": 511.0, "max_ms": 512.0}
_SLOW = {"depth": 512, "peak_depth": 512, "dequeued": 88, "dropped": 40, "latency": _FULL}
QUEUES = {
    "cards": {
        "asp 1/1": {
            "rate": "1000 packets/s",
            "depth": 512,
            "queues": {"0": _FAST, "3": _SLOW},
            "sas": [
                {"tunnel": 1, "entry": 10, "name": "office", "queues": {"0": _FAST, "3": _SLOW}},
                {"tunnel": 2, "entry": 20, "rule": 7, "name": "plant", "queues": {"single": _FAST}},
            ],
        },
        "asp 1/2": {"rate": "", "depth": 0, "queues": {}, "sas": []},
    },
    "errors": {},
}
IPSEC_TOTAL = {
    "tunnels": 2,
    "up": 1,
    "sas": 4,
    "encapsulated": {"packets": 1200, "octets": 480000},
    "decapsulated": {"packets": 7, "octets": 2800},
    "drops": {"out": {"no sa": 3, "queue full": 0}, "in": {"replay": 2}},
}

_CERTIFICATE = {
    "context": "local",
    "issuer": "CN=Test CA",
    "not_before": "2026-01-01 00:00:00",
    "not_after": "2027-01-01 00:00:00",
    "bits": 2048,
    "fingerprint": "0a1b2c3d" * 8,
}
CERTIFICATES = {
    "certificates": [
        {
            **_CERTIFICATE,
            "handle": "0a1b2c3d",
            "name": "a",
            "place": 0,
            "subject": "CN=a.example,O=Example",
            "serial": "7f01",
            "identities": ["a.example", "30.0.0.1"],
            "key_pair": "a",
        },
        {
            **_CERTIFICATE,
            "handle": "ffffffff",
            "name": "a",
            "place": 1,
            "subject": "CN=Sub CA",
            "serial": "2",
            "identities": [],
            "bits": 0,
            "key_pair": "",
        },
    ]
}
KEY_PAIRS = {
    "key_pairs": [
        {"name": "a", "context": "local", "kind": "rsa", "bits": 2048, "certificate": True},
        {"name": "spare", "context": "local", "kind": "rsa", "bits": 512, "certificate": False},
    ]
}
REQUESTS = {
    "certificate_requests": [
        {
            "name": "test1",
            "context": "local",
            "file": "pki/local/requests/test1.pem",
            "subject": "CN=a.example",
            "bits": 2048,
        }
    ]
}

_ASP = {"asp": "1/1"}

_SESSION = {"source": "127.0.0.1:4242", "since": 30.0, "active": 95.0}
_RIGHTS = {"privilege_start": 6, "privilege_max": 15, "idle_timeout": 0}
ADMINISTRATORS = {
    "sessions": [
        {"user": "op", "context": "local", **_SESSION},
        {"user": "other", "context": "vpn", **_SESSION, "active": 60.0},
    ],
    "administrators": [
        {"name": "admin", "context": "local", **_RIGHTS, "privilege_start": 10, "idle_timeout": 5},
        {"name": "other", "context": "vpn", **_RIGHTS},
    ],
}

SHOWN: tuple[Shown, ...] = (
    ("version", system.version, SYSTEM, {}),
    ("version-ipos", system.version, {**SYSTEM, "os": "ipos", "uptime": 90_061.0}, {}),
    ("privilege", system.privilege, {}, {}),
    ("administrators", system.administrators, ADMINISTRATORS, {}),
    ("release", system.release, SYSTEM, {}),
    ("chassis", hardware.chassis, HARDWARE, {}),
    ("hardware", hardware.hardware, HARDWARE, {}),
    ("hardware-detail", hardware.hardware, {**HARDWARE, "alarms": 0}, {"detail": "detail"}),
    ("slot-table", hardware.slot_table, HARDWARE, {}),
    ("card", hardware.card, HARDWARE, {}),
    ("card-one", hardware.card, HARDWARE, {"slot": 1}),
    ("process", hardware.process, PROCESSES, {}),
    ("asp", hardware.asps, ASPS, {}),
    ("asp-detail", hardware.asps, ASPS, {"name": "1/1", "detail": "detail"}),
    ("asp-pool", hardware.pools, ASPS, {}),
    ("asp-pool-detail", hardware.pools, ASPS, {"detail": "detail"}),
    ("asp-group", hardware.groups, ASPS, {}),
    ("asp-group-detail", hardware.groups, ASPS, {"name": "G1", "detail": "detail"}),
    ("alarms", hardware.alarms, ALARMS, {}),
    ("alarms-first", hardware.alarms, ALARMS_FIRST, {}),
    ("alarms-last", hardware.alarms, ALARMS_LAST, {}),
    ("alarms-none", hardware.alarms, NO_ALARMS, {}),
    ("context", interfaces.contexts, CONTEXTS, {}),
    ("context-all", interfaces.contexts, CONTEXTS, {"scope": "all"}),
    ("ip-interface", interfaces.interfaces, INTERFACES, {}),
    ("ip-interface-brief", interfaces.interfaces, INTERFACES, {"form": "brief"}),
    ("ip-local-interface", interfaces.local_interfaces, INTERFACES, {}),
    ("port", interfaces.ports, PLAIN_PORTS, {}),
    ("port-detail", interfaces.ports, PORTS, {"form": "detail"}),
    ("port-counters", interfaces.ports, PORTS, {"form": "counters"}),
    ("circuit", interfaces.circuits, CIRCUITS, {}),
    ("circuit-part", interfaces.circuits, {**CIRCUITS, "first": False, "next": 9}, {}),
    ("circuit-counters", interfaces.circuits, CIRCUITS, {"form": "counters"}),
    ("arp", interfaces.arp, ARP, {}),
    ("arp-all-context", interfaces.arp, ARP, {"form": "all-context"}),
    ("arp-summary", interfaces.arp, ARP, {"form": "summary"}),
    ("arp-interworking", interfaces.arp, ARP, {"form": "interworking"}),
    ("arp-xcrp", interfaces.arp, ARP, {"form": "xcrp"}),
    ("ike-global", security.ike_statistics, IKE_TOTAL, {**_ASP, "version": "ike1"}),
    ("ipsec-queues", security.queues, QUEUES, {}),
    ("pki-certificate", security.certificates, CERTIFICATES, {}),
    ("pki-certificate-none", security.certificates, {"certificates": []}, {}),
    ("pki-key-pair", security.key_pairs, KEY_PAIRS, {}),
    ("pki-key-pair-none", security.key_pairs, {"key_pairs": []}, {}),
    ("pki-certificate-request", security.certificate_requests, REQUESTS, {}),
    ("pki-certificate-request-none", security.certificate_requests, {"certificate_requests": []}, {}),
    ("ipsec-global", security.ipsec_statistics, IPSEC_TOTAL, {**_ASP, "context": "lan"}),
)
