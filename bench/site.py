"""The whole lab `configs/site-to-site` in one direction with current ciphers, and two strongSwans for comparison.

All processes of both routers and both testers run on this machine. The routers' link is the lab's own wire or a
pair of Linux devices; the strongSwans, which are Linux nodes between the same testers, can only use the latter.
strongSwan also encrypts in user space, with `kernel-libipsec`; its packets pass the kernel on the way in and out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench.report import Report
from bench.stream import IMIX, Carried, booted, flows

SITE = Path("configs/site-to-site")
NAME = "forward"
SIZES = (64, 512, 1400)
TOP = 250_000.0
"""First offered load (packets/s)."""

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
PEER_BAR = 1.5
"""Factor of strongSwan's rate over devices that the lab must carry over them."""
CHARON = Path("/usr/lib/ipsec/charon")


def site(
    folder: Path, suite: str, *, economical: bool, veth: bool, settings: dict[str, Any] | None = None
) -> Path:
    """Write the lab with another cipher, economical tunnels or not, and a device pair or a wire as the routers'
    link."""
    cipher, integrity, modern = SUITES[suite]
    for end in "ab":
        text = (SITE / f"{end}.cfg").read_text()
        text = re.sub(r"esp encryption .*", f"esp encryption {cipher}", text)
        text = re.sub(r"\n *esp authentication .*", f"\n  esp authentication {integrity}" * bool(integrity), text)
        text = re.sub(r"(?m)^tunnel ipsec (\S+)$", r"tunnel ipsec \1 economical" if economical else r"\g<0>", text)
        (folder / f"{end}.cfg").write_text(text)
    document: dict[str, Any] = yaml.safe_load((SITE / "lab.yaml").read_text())
    del document["scenario"], document["expect"]
    document["settings"] = settings or {}
    for end in "ab":
        document["topology"]["nodes"][end] |= {"extensions": ["modern"]} if modern else {}
    for link in document["topology"]["links"]:
        if {name.partition(":")[0] for name in link["endpoints"]} == {"a", "b"}:
            link["veth"] = veth
    document["flows"] |= flows(NAME, {"from": "t1:1", "to": "t2:1"}, sorted({*SIZES, *IMIX}))
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


def _parts(size: str) -> dict[int, float]:
    return dict(IMIX) if size == "IMIX" else {int(size): 1}


def _report_runs(
    report: Report,
    what: str,
    runs: list[Carried],
    peer: str = "",
    against: float | None = None,
    bar: float | None = None,
    of: str = "value",
) -> float:
    lost = median(run.lost for run in runs)
    rate = report.add(f"{what}, loss {lost:.3%}", [run.rate for run in runs], "packets/s", peer, against)
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
    sizes = [*map(str, SIZES), "IMIX"]
    for suite in SUITES:
        for mode in ("economical", "circuit"):
            what = f"site to site, {mode}, {suite}"
            with report.row(what), TemporaryDirectory() as name:
                file = site(Path(name), suite, economical=mode == "economical", veth=False)
                with booted(file) as stream:
                    for size in sizes:
                        bar = BAR if (suite, size) == BAR_AT else None
                        known = None if size == "IMIX" else arithmetic(suite, int(size))
                        runs = stream.highest(NAME, _parts(size), TOP)
                        _report_runs(report, f"{what}, {size}", runs, "openssl speed", known, bar)
    for suite in SUITES:
        found: dict[str, float] = {}
        if CHARON.exists():
            what = f"two strongSwans, {suite}"
            with report.row(what), TemporaryDirectory() as name, booted(peers(Path(name), suite)) as stream:
                for size in sizes:
                    runs = stream.highest(NAME, _parts(size), TOP, PEER_LOSS)
                    found[size] = _report_runs(report, f"{what}, {size}", runs)
        else:
            print(f"strongSwan is not measured: {CHARON} does not exist")
        what = f"site to site over veth, economical, {suite}"
        with (
            report.row(what),
            TemporaryDirectory() as name,
            booted(site(Path(name), suite, economical=True, veth=True)) as stream,
        ):
            for size in sizes:
                runs = stream.highest(NAME, _parts(size), TOP)
                ratio = PEER_BAR if (suite, size) == BAR_AT else None
                _report_runs(report, f"{what}, {size}", runs, "strongSwan", found.get(size), ratio, "ratio")
