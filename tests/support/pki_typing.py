"""The PKI commands as operators type them, and a lab of two routers that have to be given certificates."""

from __future__ import annotations

from pathlib import Path

from chassis.net.pki import USAGES
from tests.support import CONFIGS

CONTEXT, TUNNEL = "vpn", "ipsec_tunnel"
ADDRESSES = {"a": "30.0.0.1", "b": "20.0.0.2"}
"""What each router's certificate has to say."""

PROMPTS = (
    "Enter the private key identifier: ", "Enter the Common name: ", "Enter the Organization Unit Name: ",
    "Enter the Organization Name: ", "Enter the City Name: ", "Enter the State Name: ", "Enter the Postal Code: ",
    "Enter the Country Code: ", "Enter the IPv4 Address: ", "Enter the IPv4 Address: ", "Enter the IPv6 Address: ",
    "Enter the IPv6 Address: ", "Enter the Domain Name: ", "Enter the Domain Name: ", "Enter the Email Id: ",
    "Enter the Email Id: ", "Do you want to configure Key Usage Attributes (y/n): ",
    *(f"{usage} (y/n): " for usage in USAGES),
)  # fmt: skip
"""The 24 questions of a request, the guide's in its order."""


def answers(pair: str, name: str, address: str, usages: tuple[str, ...] = ("DigitalSignature",)) -> list[str]:
    """An answer to each question: a request for the key of `pair` with this name and address."""
    subject = [name, "Provider", "Service", "My City", "XY", "98765", "ZZ"]
    return [
        pair, *subject, address, address, *[""] * 6, "y", *("y" if usage in usages else "n" for usage in USAGES)
    ]  # fmt: skip


def signing(version: int, router: str) -> str:
    """The configuration of a router of the example of IKEv2, with signatures in place of the preshared key."""
    text = (CONFIGS / "ikev2" / f"{router}.cfg").read_text()
    signed, key = "authentication rsa-signature\n", "    pre-shared-key 1234567890123456\n"
    checked = "    validate-certificate-identity\n"
    assert text.count(key) == 1
    if version == 2:
        return text.replace(key, f"    {signed}{checked}")
    text = text.replace(key, checked).replace("ike2 ", "ike ")
    return text.replace("  pseudo-random-function hmac-sha1\n", f"  {signed}", 1)


def written(folder: Path, version: int, head: str = "") -> Path:
    """The lab file with such routers; `head` is put before it."""
    for router in ADDRESSES:
        (folder / f"{router}.cfg").write_text(signing(version, router))
    (folder / "lab.yaml").write_text(head + (CONFIGS / "ikev2" / "lab.yaml").read_text())
    return folder / "lab.yaml"
