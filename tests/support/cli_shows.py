"""The show commands that a shipped lab is asked, and their text without what differs from one run to the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import CONFIGS, ROOT

GOLDEN: Final = ROOT / "tests" / "golden" / "shows"


@dataclass(frozen=True, slots=True)
class ShownLab:
    """A lab, the router that is asked in it, and the names that its commands have. `carried` is the ASP that
    carries the traffic."""

    name: str
    node: str
    context: str
    outer: str
    tunnel: str
    remote: str
    carried: str
    version: str
    ike_policy: str
    ike_proposal: str
    access_list: str
    ipsec_policy: str
    ipsec_proposal: str

    @property
    def path(self) -> Path:
        return CONFIGS / self.name / "lab.yaml"

    @property
    def golden(self) -> Path:
        return GOLDEN / f"{self.name}.txt"

    def of_guide(self) -> Iterator[str]:
        """Every command of the guide's table 4 with each of its options, but for the counters of IKE."""
        card, tunnel = f"card {self.carried}", self.tunnel
        for part in ("ike", "ipsec", "tunnel"):
            for scope in ("", " all-contexts", " verbose", " all-contexts verbose"):
                yield f"show configuration {part}{scope}"
        for kind, object_kind, name in (
            ("ike", "policy", self.ike_policy),
            ("ike", "proposal", self.ike_proposal),
            ("ipsec", "access-list", self.access_list),
            ("ipsec", "policy", self.ipsec_policy),
            ("ipsec", "proposal", self.ipsec_proposal),
            ("ipsec", "profile", "none"),
            ("ipsec", "security-association", "none"),
        ):
            for of_card in ("", f"{card} "):
                for one in ("", f" {name}"):
                    yield f"show {kind} {of_card}{object_kind}{one}"
        yield f"show ipsec {card} statistics global context {self.context}"
        yield f"show ipsec {card} statistics global context {self.outer}"
        for which in ("", f" name {tunnel}", f" remote {self.remote}"):
            for form in ("", " detail"):
                yield f"show tunnel ipsec{which}{form}"
        yield from ("show tunnel ipsec on-demand", f"show tunnel ipsec name {tunnel} on-demand")
        for form in ("statistics", "on-demand statistics", "statistics detail"):
            yield f"show tunnel ipsec {tunnel} {form}"
        for whose in ("trusted", "self"):
            yield f"show pki certificate {whose} rsa"
            yield f"show pki asp {self.carried} certificate {whose} rsa"
            yield f"show pki certificate {whose} rsa identity a.example"
            yield f"show pki certificate {whose} rsa handle 00000000"
        yield from ("show pki key-pair", "show pki key-pair none")
        yield from ("show pki certificate-request rsa", "show pki certificate-request rsa all")

    def beside_them(self) -> Iterator[str]:
        """What an operator reaches for beside those of the guide."""
        yield from ("show version", "show release", "show chassis", "show hardware", "show hardware detail")
        yield from ("show slot table", "show card", "show alarms", "show tunnel", "show administrators")
        yield from ("show ipsec queues", f"show ipsec queues {self.tunnel}")
        for part in ("", " pool", " group"):
            yield from (f"show asp{part}", f"show asp{part} detail")
        yield from ("show context", "show context all", "show circuit", "show port")
        yield from ("show ip interface", "show ip interface brief", "show ip local interface", "show ip route")
        yield from (f"show arp-cache{form}" for form in ("", " all", " all-context", " summary", " interworking"))
        yield from ("show configuration", "show configuration verbose", "show configuration context")


LABS: Final = (
    ShownLab(
        *("site-to-site", "a", "vpnEndA", "vpnEndA", "rec_1_1", "20.1.0.2", "1/1", "ike1"),
        *("ike-poll", "ike-prop", "any-acl", "ipsec-pol", "ipsec-prop"),
    ),
    ShownLab(
        *("ikev2", "a", "vpn", "vpn", "ipsec_tunnel", "20.0.0.2", "4/1", "ike2"),
        *("ike_policy", "ike_proposal", "ipsec_acl", "ipsec_policy", "ipsec_proposal"),
    ),
    ShownLab(
        *("high-availability", "ha", "C1", "L1", "Tun-1", "3.3.3.3", "2/1", "ike1"),
        *("ike-policy1", "ike-proposal", "acl-C1", "ipsec-policy", "ipsec-proposal"),
    ),
)

MASKS: Final = (
    (r"(?m)^.*\d\d:\d\d:\d\d \d{4}$", "DATE"),
    (r"\bat \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "at DATE"),
    (r"\b[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\b", "MMM DD HH:MM:SS"),
    (r"\d+ hours \d+ minutes \d+ seconds", "TIME"),
    (r"(?<![0-9a-f:])\d\d:\d\d:\d\d(?![0-9a-f:])", "TIME"),
    (r"\b(spi )?0x(?!4008)[0-9a-f]{8}\b", "SPI"),
    (r"(?m)^(\S+ +[0-9a-f:]{17} +)\d+ +(ARPA)", r"\1TTL    \2"),
    (r"(?m)^( +(?:pre-?shared-key|(?:esp|ah) .* key) ).*$", r"\1KEY"),
)
"""What differs from one run to the next, and what stands for it."""


def masked(text: str) -> str:
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text)
    return text


def transcript(commands: Iterator[str], context: str, run: Callable[[str], str]) -> str:
    """What a session of a context shows of each command, masked."""
    return "".join(f"[{context}]#{line}\n{masked(run(line))}" for line in commands)
