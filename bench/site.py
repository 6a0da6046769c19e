"""The whole lab `configs/site-to-site` in one direction with current ciphers, and two strongSwans for comparison.

All processes of both routers and both testers run on this machine. The routers' link is the lab's own wire or a
pair of Linux devices; the strongSwans, which are Linux nodes between the same testers, can only use the latter.
strongSwan also encrypts in user space, with `kernel-libipsec`; its packets pass the kernel on the way in and out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench.report import Report, paired
from bench.search import STRIDE
from bench.stream import GUESS, IMIX, LOSS, Carried, Stream, booted, flows, sized

SITE = Path("configs/site-to-site")
NAME = "forward"
MAX, SLOW, HALF = "max", "slow", "half"
NAMES = (NAME, MAX, SLOW, HALF)
"""Flows by use: a tester counts latency by flow, and sends a flow of `rate: max` in other batches."""
SIZES = (64, 512, 1400)
MIXES = (*map(str, SIZES), "IMIX")

SUITES: dict[str, tuple[str, str, bool]] = {
    "AES-128-CBC/SHA1": ("aes-128-cbc", "hmac-sha1-96", False),
    "3DES/MD5": ("3des-cbc", "hmac-md5-96", False),
    "AES-128-GCM": ("aes-128-gcm", "", True),
}
"""`esp encryption`, `esp authentication`, and whether these need the modern names."""
PEER_SUITES = {"AES-128-CBC/SHA1": "aes128-sha1", "3DES/MD5": "3des-md5", "AES-128-GCM": "aes128gcm16"}
PEER_LOSS = 0.01
BAR = 75_000
"""Rate (packets/s) that the lab must carry over its own wire at `BAR_AT` with a loss below `stream.LOSS`."""
BAR_AT = ("AES-128-CBC/SHA1", "1400")
PEER_BARS = {"64": 2.0, "512": 1.7, "1400": 2.0, "IMIX": 1.7}
"""Factor of strongSwan's rate over devices that the lab must carry over them with `BAR_AT`'s cipher, by size."""
_BESIDE = {False: "two strongSwans", True: "site to site over veth, economical"}
Boot = Callable[[Path], AbstractContextManager[Stream]]
"""Boots a lab file."""
CHARON = Path("/usr/lib/ipsec/charon")


def site(
    folder: Path,
    suite: str,
    *,
    economical: bool,
    veth: bool,
    settings: dict[str, Any] | None = None,
    root: Path = Path(),
) -> Path:
    """Write the lab of the source tree `root` with another cipher, economical tunnels or not, and a device pair or
    a wire as the routers' link.

    It has a flow of each name in `NAMES` and size; those named `MAX` have no rate.
    """
    cipher, integrity, modern = SUITES[suite]
    for end in "ab":
        text = (root / SITE / f"{end}.cfg").read_text()
        text = re.sub(r"esp encryption .*", f"esp encryption {cipher}", text)
        text = re.sub(r"\n *esp authentication .*", f"\n  esp authentication {integrity}" * bool(integrity), text)
        text = re.sub(r"(?m)^tunnel ipsec (\S+)$", r"tunnel ipsec \1 economical" if economical else r"\g<0>", text)
        (folder / f"{end}.cfg").write_text(text)
    document: dict[str, Any] = yaml.safe_load((root / SITE / "lab.yaml").read_text())
    del document["scenario"], document["expect"]
    document["settings"] = settings or {}
    for end in "ab":
        document["topology"]["nodes"][end] |= {"extensions": ["modern"]} if modern else {}
    for link in document["topology"]["links"]:
        if {name.partition(":")[0] for name in link["endpoints"]} == {"a", "b"}:
            link["veth"] = veth
    for kind in NAMES:
        made = flows(kind, {"from": "t1:1", "to": "t2:1"}, sorted({*SIZES, *IMIX}))
        document["flows"] |= {
            name: values | ({"rate": "max"} if kind == MAX else {}) for name, values in made.items()
        }
    (folder / "lab.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / "lab.yaml"


def peers(folder: Path, suite: str) -> Path:
    """Write a lab of two Linux nodes with strongSwan in place of the routers."""
    nodes: dict[str, Any] = {
        "t1": {"kind": "tester", "ports": {"1": {"address": "10.1.0.9/16", "gateway": "10.1.0.1"}}},
        "t2": {"kind": "tester", "ports": {"1": {"address": "10.2.0.9/16", "gateway": "10.2.0.1"}}},
    }
    for number, other in ((1, 2), (2, 1)):
        nodes[f"s{number}"] = {
            "kind": "linux",
            "addresses": {"eth1": f"40.0.0.{number}/24", "eth2": f"10.{number}.0.1/16"},
            "files": {"strongswan.conf": STRONGSWAN, "swanctl.conf": _swanctl(number, other, suite)} | SCRIPTS,
            "exec": ["echo 1 > /proc/sys/net/ipv4/ip_forward", "chmod +x start swanctl", "./start"],
            # Repeated until it succeeds, which needs the other node's configuration.
            "wait-for": ["./swanctl --load-all --file $PWD/swanctl.conf"]
            + ["./swanctl --initiate --child networks --timeout 2"] * (number == 1),
        }
    document = {
        "name": "strongswans",
        "topology": {
            "nodes": nodes,
            "links": [
                {"endpoints": ["t1:1", "s1:eth2"]},
                {"endpoints": ["s1:eth1", "s2:eth1"]},
                {"endpoints": ["t2:1", "s2:eth2"]},
            ],
        },
        "flows": flows(NAME, {"from": "t1:1", "to": "t2:1"}, sorted({*SIZES, *IMIX})),
    }
    (folder / "lab.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / "lab.yaml"


STRONGSWAN = """\
charon {
  load = random nonce aes des sha1 md5 hmac kdf gmp openssl gcm kernel-libipsec kernel-netlink socket-default vici
  plugins {
    vici {
      socket = unix:///run/charon.vici
    }
    kernel-libipsec {
      allow_peer_ts = no
    }
  }
}
"""

SCRIPTS = {
    "start": """\
#!/bin/sh
STRONGSWAN_CONF=$PWD/strongswan.conf /usr/lib/ipsec/charon >> charon.out 2>&1 &
""",
    "swanctl": """\
#!/bin/sh
export STRONGSWAN_CONF=$PWD/strongswan.conf SWANCTL_DIR=$PWD
exec swanctl "$@" --uri unix:///run/charon.vici
""",
}


def _swanctl(number: int, other: int, suite: str) -> str:
    return f"""\
connections {{
  pair {{
    version = 2
    mobike = no
    local_addrs = 40.0.0.{number}
    remote_addrs = 40.0.0.{other}
    proposals = aes128-sha1-modp1024
    local {{
      auth = psk
      id = 40.0.0.{number}
    }}
    remote {{
      auth = psk
      id = 40.0.0.{other}
    }}
    children {{
      networks {{
        local_ts = 10.{number}.0.0/16
        remote_ts = 10.{other}.0.0/16
        esp_proposals = {PEER_SUITES[suite]}
        rekey_time = 0
      }}
    }}
  }}
}}
secrets {{
  ike-1 {{
    secret = "a-key-of-the-bench"
  }}
}}
"""


def _report_runs(
    report: Report,
    what: str,
    runs: list[Carried],
    peer: str = "",
    against: float | None = None,
    bar: float | None = None,
    of: str = "value",
    ratio: float | None = None,
) -> float:
    lost = median(run.lost for run in runs)
    rate = report.add(f"{what}, loss {lost:.3%}", [run.rate for run in runs], "packets/s", peer, against, ratio)
    if bar is not None:
        report.bar(bar, of)
    last = runs[-1].cores
    busy = {name: used for name, used in last.items() if used >= 0.005}
    print(
        "  CPU: "
        + ", ".join(f"{name} {used:.2f}" for name, used in busy.items())
        + f"; all {sum(last.values()):.2f}"
    )
    report.keep(f"{what}: CPU of", busy, "cores")
    return rate


def arithmetic(suite: str, size: int) -> float | None:
    """Return the rate (packets/s) of cipher and integrity on one core by `openssl speed`; None if unavailable."""
    program = shutil.which("openssl")
    if program is None:
        return None
    kinds = {
        "AES-128-CBC/SHA1": (("-evp", "aes-128-cbc"), ("-hmac", "sha1")),
        "3DES/MD5": (("-evp", "des-ede3-cbc"), ("-hmac", "md5")),
        "AES-128-GCM": (("-evp", "aes-128-gcm"),),
    }[suite]
    seconds = 0.0
    for words in kinds:
        command = [program, "speed", "-mr", "-seconds", "1", "-bytes", str(-(-(size + 2) // 16) * 16), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"\+F:\d+:[^:]+:([\d.]+)", done.stdout)
        if found is None:
            return None
        seconds += (-(-(size + 2) // 16) * 16) / float(found[1])
    return 1 / seconds


def run(report: Report) -> None:
    """Measure both kinds of tunnels, every cipher, every size; then over devices, compared with strongSwan."""
    for suite in SUITES:
        for mode in ("economical", "circuit"):
            what = f"site to site, {mode}, {suite}"
            with report.row(what), TemporaryDirectory() as name:
                file = site(Path(name), suite, economical=mode == "economical", veth=False)
                with booted(file) as stream:
                    for size in MIXES:
                        known = None if size == "IMIX" else arithmetic(suite, int(size))
                        bar = BAR if (suite, size) == BAR_AT else None
                        runs = stream.best(sized(NAME, size))
                        _report_runs(report, f"{what}, {size}", runs, "openssl speed", known, bar)
    for suite in SUITES:
        beside(report, suite, 1)


def beside(report: Report, suite: str, rounds: int, boot: Boot = booted) -> None:
    """Compare the lab over a device pair with two strongSwans, which take turns; a lab that fails is a row."""
    found: dict[tuple[bool, str], dict[int, list[Carried]]] = {}
    with_peer = CHARON.exists()
    if not with_peer:
        print(f"strongSwan is not measured: {CHARON} does not exist")
    for number in range(rounds):
        for ours in (False, True) if number % 2 == 0 else (True, False):
            if not ours and not with_peer:
                continue
            what = f"{_BESIDE[ours]}, {suite}" + (f", round {number + 1}" if number else "")
            with report.row(what), TemporaryDirectory() as name:
                folder = Path(name)
                file = site(folder, suite, economical=True, veth=True) if ours else peers(folder, suite)
                with boot(file) as stream:
                    for size in MIXES:
                        before = found.get((ours, size))
                        guess = median(_rates(before).values()) if before else GUESS
                        runs = stream.best(
                            sized(NAME, size),
                            loss=LOSS if ours else PEER_LOSS,
                            guess=guess,
                            stride=2 if before else STRIDE,
                        )
                        found.setdefault((ours, size), {})[number] = runs
    for size in MIXES:
        ratio = paired(_rates(found.get((True, size), {})), _rates(found.get((False, size), {})))
        for ours in (False, True):
            every = [run for runs in found.get((ours, size), {}).values() for run in runs]
            if not every:
                continue
            bar = PEER_BARS.get(size) if ours and suite == BAR_AT[0] else None
            what = f"{_BESIDE[ours]}, {suite}, {size}"
            _report_runs(report, what, every, "strongSwan", None, bar, "ratio", ratio if ours else None)
            print(f"  the testers' share of the CPU: {median(run.testers() for run in every):.0%}")


def _rates(rounds: Mapping[int, Sequence[Carried]]) -> dict[int, float]:
    """Return the rate (packets/s) of each round."""
    return {number: median(run.rate for run in runs) for number, runs in rounds.items()}
