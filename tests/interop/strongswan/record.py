"""Records exchanges between two strongSwan daemons, with their keys, for `tests/unit/ase/ike/test_recorded.py`.

    PYTHONPATH=tests/interop python tests/interop/strongswan/record.py [FOLDER]

Writes one JSON file for each of `EXCHANGES`: the messages as on the wire, and the secrets that the initiator
logged at its level 4, in the order in which it made them. Keys are of no use to anyone: the daemons are gone.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.authority import Authority
from tests.support.charon import Auth, Charon, Conn
from tests.support.netns import Host, Namespaces

INITIATOR, RESPONDER = "10.99.0.1", "10.99.0.2"
PSK = "recorded once, of no use now"

DUMP = re.compile(r"\[(?:IKE|CHD)\] <[^>]*> (.+) => (\d+) bytes @")
ROW = re.compile(r"\[(?:IKE|CHD)\] <[^>]*> +\d+: ((?:[0-9A-F]{2} )+)")

PHASE_1 = {
    "shared Diffie Hellman secret": "g_xy", "SKEYID": "skeyid", "SKEYID_d": "skeyid_d", "SKEYID_a": "skeyid_a",
    "SKEYID_e": "skeyid_e", "encryption key Ka": "key", "initial IV": "iv", "HASH_I": "hash_i", "HASH_R": "hash_r",
    "SKEYSEED": "skeyseed", "Sk_d secret": "d", "Sk_ai secret": "ai", "Sk_ar secret": "ar", "Sk_ei secret": "ei",
    "Sk_er secret": "er", "Sk_pi secret": "pi", "Sk_pr secret": "pr",
}  # fmt: skip
CHILD = {
    "DH secret": "g_xy", "encryption initiator key": "ei", "encryption responder key": "er",
    "integrity initiator key": "ai", "integrity responder key": "ar",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exchange:
    """What to record. Algorithms by our names: what the tests derive with."""

    name: str
    version: int
    ike: str
    esp: str
    prf: str
    cipher: str
    integrity: str
    esp_cipher: str
    esp_integrity: str
    aggressive: bool = False
    method: str = "psk"


def _v2(prf: str, name: str, ike: str, *rest: str) -> Exchange:
    return Exchange(f"v2-{prf}", 2, ike, name, prf, *rest)


EXCHANGES = (
    Exchange("v1-main-psk", 1, "aes128-sha1-modp1024", "aes128-sha1-modp1024", "hmac-sha1", "aes-128-cbc",
        "hmac-sha1-96", "aes-128-cbc", "hmac-sha1-96"),
    Exchange("v1-main-stretched", 1, "3des-md5-modp1536", "3des-md5", "hmac-md5", "3des-cbc", "hmac-md5-96",
        "3des-cbc", "hmac-md5-96"),
    Exchange("v1-main-rsa", 1, "aes256-sha1-modp2048", "aes256-aesxcbc", "hmac-sha1", "aes-256-cbc",
        "hmac-sha1-96", "aes-256-cbc", "hmac-aes-xcbc", method="pubkey"),
    Exchange("v1-aggressive-psk", 1, "des-sha1-modp768", "des-sha1-modp768", "hmac-sha1", "des-cbc",
        "hmac-sha1-96", "des-cbc", "hmac-sha1-96", aggressive=True),
    _v2("hmac-md5", "des-md5-modp768", "des-md5-prfmd5-modp768", "des-cbc", "hmac-md5-96", "des-cbc",
        "hmac-md5-96"),
    _v2("hmac-sha1", "aes128-sha1-modp1024", "3des-sha1-prfsha1-modp1024", "3des-cbc", "hmac-sha1-96",
        "aes-128-cbc", "hmac-sha1-96"),
    _v2("aes-128-xcbc", "aes192-aesxcbc", "aes192-aesxcbc-prfaesxcbc-modp1536", "aes-192-cbc", "hmac-aes-xcbc",
        "aes-192-cbc", "hmac-aes-xcbc"),
    _v2("hmac-sha-256", "aes256-sha256-modp2048", "aes256-sha256-prfsha256-modp2048", "aes-256-cbc",
        "hmac-sha-256-128", "aes-256-cbc", "hmac-sha-256-128"),
    _v2("hmac-sha-384", "aes128gcm16-ecp256", "aes128gcm16-prfsha384-ecp256", "aes-128-gcm", "", "aes-128-gcm",
        ""),
    _v2("hmac-sha-512", "aes256-sha512", "aes256-sha512-prfsha512-x25519", "aes-256-cbc", "hmac-sha-512-256",
        "aes-256-cbc", "hmac-sha-512-256"),
)  # fmt: skip


def dumps(log: str) -> list[tuple[str, str]]:
    """(what, octets in hexadecimal) of every dump in a log, in order: one thing is on at a time."""
    found: list[tuple[str, str]] = []
    for line in log.splitlines():
        if match := DUMP.search(line):
            found.append((match[1], ""))
        elif found and (row := ROW.search(line)):
            what, octets = found[-1]
            found[-1] = (what, octets + row[1].replace(" ", "").lower())
    return found


def gather(pairs: list[tuple[str, str]], names: dict[str, str], last: str) -> list[dict[str, str]]:
    """Dumps by name, in groups that end with the dump `last`; what comes after it belongs to the group, too,
    when it is not in it yet."""
    groups: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for what, octets in pairs:
        name = names.get(what)
        if name is None:
            continue
        if name == "g_xy" or (last in current and name in current):
            current = {}
        if not current:
            groups.append(current)
        current[name] = octets
    return groups


def ike_messages(frames: list[bytes]) -> list[dict[str, str]]:
    """IKE messages in frames, without marker and keepalives; `from` is i or r."""
    messages = []
    for frame in frames:
        if frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        datagram = frame[14 + 4 * (frame[14] & 15) :]
        port, data = int.from_bytes(datagram[2:4], "big"), datagram[8 : int.from_bytes(datagram[4:6], "big")]
        if 4500 in (port, int.from_bytes(datagram[:2], "big")):
            if data[:4] != bytes(4):
                continue
            data = data[4:]
        messages.append({"from": "i" if frame[26:30] == bytes((10, 99, 0, 1)) else "r", "data": data.hex()})
    return messages


def record(exchange: Exchange, folder: Path, authority: Authority) -> dict[str, Any]:
    """One tunnel set up, its children and (version 2) its IKE SA made anew, then deleted, all by the initiator."""
    hosts = {
        "i": Host({"eth0": [f"{INITIATOR}/24"], "lo": ["10.1.0.1/16"]}),
        "r": Host({"eth0": [f"{RESPONDER}/24"], "lo": ["10.2.0.1/16"]}),
    }
    namespaces = Namespaces(folder, hosts, [("i:eth0", "r:eth0")])
    try:
        tap = namespaces.tap("i", "eth0")
        one, other = Charon(namespaces, "i", level=4), Charon(namespaces, "r")
        shown = []
        for daemon, address in ((one, INITIATOR), (other, RESPONDER)):
            issued = authority.issue(daemon.host, address)
            daemon.load_psk(PSK, INITIATOR, RESPONDER)
            daemon.load_ca(authority.certificate)
            daemon.load_key(issued.key)
            shown.append(issued.certificate if exchange.method == "pubkey" else "")
        more = {"fragmentation": "no"}
        ours = Conn(
            "t",
            exchange.version,
            INITIATOR,
            RESPONDER,
            Auth(INITIATOR, exchange.method, shown[0]),
            Auth(RESPONDER, exchange.method),
            exchange.ike,
            exchange.esp,
            "10.1.0.0/16",
            "10.2.0.0/16",
            exchange.aggressive,
            more=more,
        )
        theirs = Conn(
            "t",
            exchange.version,
            RESPONDER,
            INITIATOR,
            Auth(RESPONDER, exchange.method, shown[1]),
            Auth(INITIATOR, exchange.method),
            exchange.ike,
            exchange.esp,
            aggressive=exchange.aggressive,
            more=more,
        )
        one.load(ours)
        other.load(theirs)
        one.initiate(ours)
        one.wait(lambda: one.up("t") and other.up("t"), "up")
        first = one.children("t")[0]["spi-in"]
        one.rekey(ours)
        one.wait(lambda: any(child["spi-in"] != first for child in one.children("t")), "child rekeyed")
        if exchange.version == 2:
            number = one.sas("t")[0]["uniqueid"]
            one.rekey(ours, ike=True)
            one.wait(lambda: [sa["uniqueid"] for sa in one.sas("t")] not in ([number], []), "IKE SA rekeyed")
        one.terminate(ours, ike=True)
        one.wait(lambda: not one.sas("t") and not other.sas("t"), "deleted")
        frames = []
        while True:
            try:
                frames.append(tap.recv(65536))
            except BlockingIOError:
                break
        tap.close()
        pairs = dumps(one.log())
    finally:
        namespaces.close()
    ike = gather(pairs, PHASE_1, "hash_r" if exchange.version == 1 else "pr")
    return {
        "peers": "strongSwan 5.9.8, both ends",
        "version": exchange.version,
        "mode": "aggressive" if exchange.aggressive else "main",
        "method": exchange.method,
        "psk": PSK.encode().hex(),
        "proposals": [exchange.ike, exchange.esp],
        "prf": exchange.prf,
        "cipher": exchange.cipher,
        "integrity": exchange.integrity,
        "esp-cipher": exchange.esp_cipher,
        "esp-integrity": exchange.esp_integrity,
        "messages": ike_messages(frames),
        "ike": ike,
        "children": gather(pairs, CHILD, "ar" if exchange.esp_integrity else "er"),
    }


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/unit/ase/ike/recorded")
    target.mkdir(parents=True, exist_ok=True)
    authority = Authority()
    for exchange in EXCHANGES:
        with tempfile.TemporaryDirectory() as folder:
            recorded = record(exchange, Path(folder), authority)
        (target / f"{exchange.name}.json").write_text(json.dumps(recorded, indent=1) + "\n")
        counts = (len(recorded["messages"]), len(recorded["ike"]), len(recorded["children"]))
        print(exchange.name, *counts)


if __name__ == "__main__":
    main()
