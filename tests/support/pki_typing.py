"""The PKI commands as operators type them, and a lab of two routers that have to be given certificates."""

from __future__ import annotations

import stat
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.config.secrets import SECRET_FILE, RouterSecret
from chassis.net.pki import USAGES
from tests.support import CONFIGS
from tests.support.authority import Authority, pem_key
from tests.support.ssh import Shell, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from launch.client.lab_client import LabClient

LOGIN = ("op", "the lab's own")
"""The lab's own login: user and password."""

HEAD = f'ssh: {{user: {LOGIN[0]}, password: "{LOGIN[1]}"}}\n'
"""What a lab file says of it."""

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


class Typist:
    """A shell over SSH at a router, in a context: what it types and what the terminal showed."""

    def __init__(self, shell: Shell, router: str) -> None:
        self.shell, self.router = shell, router
        self.seen = ""

    async def until(self, text: str) -> str:
        said = await self.shell.until(text)
        self.seen += said
        return said

    async def run(self, line: str) -> str:
        """Type a command; return what the terminal shows up to the next prompt."""
        self.shell.type(f"{line}\r")
        return await self.until(f"{self.router}#")

    async def answer(self, line: str, given: Sequence[str]) -> str:
        """Type a command that asks for a certificate request, and answer each question after it is asked."""
        self.shell.type(f"{line}\r")
        for prompt, text in zip(PROMPTS, given, strict=True):
            await self.until(prompt)
            self.shell.type(f"{text}\r")
        return await self.until(f"{self.router}#")

    async def paste(self, line: str, pem: str) -> str:
        """Type a command that takes a pasted text."""
        self.shell.type(f"{line} file terminal\r")
        await self.until("an empty line ends it.")
        return await self.run("\r".join(pem.splitlines()) + "\r")

    async def certify(self, pair: str, address: str, authority: Authority) -> str:
        """Have the authority sign a request for a key pair, and import both certificates; return the request."""
        given = answers(pair, f"router {self.router}", address)
        said = await self.answer("add pki certificate-request rsa test1 file test1.pem", given)
        assert "Certificate request test1 is in /flash/test1.pem" in said
        said = await self.run("more /flash/test1.pem")
        assert "BEGIN" in said, said
        begin, end = "-----BEGIN CERTIFICATE REQUEST-----", "-----END CERTIFICATE REQUEST-----"
        request = begin + said.partition(begin)[2].partition(end)[0].replace("\r", "") + end + "\n"
        said = await self.paste("import pki certificate trusted rsa", authority.certificate)
        assert "Imported certificate CN=Test CA, handle " in said
        said = await self.paste(f"import pki certificate self rsa key-pair {pair}", authority.sign(request))
        assert "Imported certificate" in said
        return request


@asynccontextmanager
async def typist(lab: LabClient, router: str, context: str) -> AsyncIterator[Typist]:
    """Someone who is logged in with the lab's own login."""
    async with connected(lab, LOGIN[0], router, password=LOGIN[1]) as connection:
        made = Typist(await Shell.open(connection, term_size=(200, 0)), router)
        await made.until(f"{router}#")
        await made.run(f"context {context}")
        yield made


def judged(request: str) -> str:
    """What openssl prints of a request whose signature it finds right."""
    judge = ["openssl", "req", "-verify", "-noout", "-text"]
    said = subprocess.run(judge, input=request, capture_output=True, text=True, check=True, timeout=20)
    assert "verify OK" in said.stderr + said.stdout
    return said.stdout


def private_key(lab: LabClient, router: str, context: str, pair: str) -> str:
    """The private key of a router in clear, from its flash and its secret."""
    state = _state(lab, router)
    file = state / "flash" / "pki" / context / "keys" / f"{pair}.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = RouterSecret.read((state / SECRET_FILE).read_bytes())
    key = serialization.load_pem_private_key(file.read_bytes(), secret.passwords[0])
    assert isinstance(key, rsa.RSAPrivateKey)
    return pem_key(key)


def openssl_verifies(lab: LabClient, router: str, context: str) -> bool:
    """Whether openssl finds a path from the router's own certificate to the one that it trusts."""
    store = _state(lab, router) / "flash" / "pki" / context
    (own,), (trusted,) = ((store / kind).glob("*.pem") for kind in ("self", "trusted"))
    words = ["openssl", "verify", "-CAfile", str(trusted), str(own)]
    return subprocess.run(words, capture_output=True, check=False, timeout=20).returncode == 0


def _state(lab: LabClient, router: str) -> Path:
    """The state folder of a router."""
    assert lab.run is not None
    return lab.run.parents[1] / "s" / lab.run.name / router
