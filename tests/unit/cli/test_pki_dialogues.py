"""The PKI commands of the guide's chapter 6.1, as an operator types them, at a real controller in memory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID, NameOID

from chassis.bus.engine import ToFlash
from chassis.xcrp.flash import PkiStore
from tests.support.authority import Authority, pem_key
from tests.support.cli import CliRig, of_node
from tests.support.xcrp import SECRET, Node, booted

SUBJECT = ("An Operator", "Provider", "Service", "My City", "XY", "98765", "ZZ")
"""The answers of the guide's example 6.1.2."""

PROMPTS = (
    "Enter the private key identifier: ", "Enter the Common name: ", "Enter the Organization Unit Name: ",
    "Enter the Organization Name: ", "Enter the City Name: ", "Enter the State Name: ", "Enter the Postal Code: ",
    "Enter the Country Code: ", "% SUBJECT ALTERNATIVE NAMES", "Enter the IPv4 Address: ",
    "Enter the IPv4 Address: ", "Enter the IPv6 Address: ", "Enter the IPv6 Address: ",
    "Enter the Domain Name: ", "Enter the Domain Name: ", "Enter the Email Id: ", "Enter the Email Id: ",
    "Do you want to configure Key Usage Attributes (y/n): ", "DigitalSignature (y/n): ", "NonRepudiation (y/n): ",
    "KeyEncipherment (y/n): ", "DataEncipherment (y/n): ", "KeyAgreement (y/n): ", "EncipherOnly (y/n): ",
    "DecipherOnly (y/n): ",
)  # fmt: skip


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(bits=1024)


@pytest.fixture
def node() -> Node:
    return booted()


@pytest.fixture
def rig(node: Node) -> Iterator[CliRig]:
    rig = CliRig(of_node(node))
    rig.start()
    yield rig
    assert_no_key(node)


def assert_no_key(node: Node) -> None:
    """No file of the flash has a private key in clear, and no line of the log has one at all."""
    assert not any(b"BEGIN PRIVATE KEY" in data or b"BEGIN RSA" in data for data in node.disk.flash.values())
    assert "PRIVATE KEY" not in repr(node.ask("log")) + repr(node.ask("events"))


def store(node: Node) -> PkiStore:
    assert node.controller is not None
    return node.controller.node.flash


def typed(rig: CliRig, *lines: str) -> str:
    return "".join(rig.type(f"{line}\r") for line in lines)


def request(rig: CliRig, *answers: str, file: str = "test1") -> str:
    return typed(rig, f"add pki certificate-request rsa test1 file {file}", *answers)


@pytest.mark.behaviour("B-055", "B-056", "B-057", "B-059", "B-060")
def test_the_commands_of_the_guide_from_the_key_pair_to_the_own_certificate(
    rig: CliRig, node: Node, authority: Authority
) -> None:
    said = typed(rig, "add pki key-pair keytest1 rsa 512")
    assert "Key pair keytest1 of 512 bits is made" in said
    said = request(rig, "keytest1", *SUBJECT, *[""] * 8, "n")
    assert "Certificate request test1 is in /flash/test1" in said
    places = [said.index(prompt) for prompt in PROMPTS[:18]]
    assert places == sorted(places)
    assert PROMPTS[18] not in said
    made = x509.load_pem_x509_csr(node.disk.flash["test1",])
    assert made.is_signature_valid
    assert sorted(part.value for part in made.subject) == sorted(SUBJECT)
    assert not list(made.extensions)
    node.disk.flash["cacert.pem",] = authority.certificate.encode()
    node.disk.flash["newcert1.pem",] = authority.sign(node.disk.flash["test1",].decode()).encode()
    said = typed(rig, "import pki certificate trusted rsa file /flash/cacert.pem")
    assert "Imported certificate CN=Test CA" in said
    said = typed(rig, "import pki certificate self rsa key-pair keytest1 file /flash/newcert1.pem")
    assert "Imported certificate" in said
    shown = typed(rig, "show pki certificate self rsa")
    handle = node.ask("certificates", context="local", whose="self")["certificates"][0]["handle"]
    assert handle in shown
    assert "keytest1" in typed(rig, "show pki key-pair")
    assert "/test1" in typed(rig, "show pki certificate-request rsa")
    assert not store(node).first_missing("local")
    said = typed(rig, f"remove pki certificate {handle}", "y")
    assert "Removed certificate" in said
    assert node.ask("certificates", context="local", whose="self")["certificates"] == []


@pytest.mark.behaviour("B-056", "B-057", "B-058")
def test_all_questions_and_usages(rig: CliRig, node: Node) -> None:
    typed(rig, "add pki key-pair k rsa 1024")
    names = ["10.0.0.1", "2001:db8::1", "a.example", "ops@a.example"]
    twice = [answer for name in names for answer in (name, name)]
    said = request(rig, "k", "", *[""] * 6, *twice, "y", "y", "n", "y", "n", "y", "n", "y")
    at = 0
    for prompt in PROMPTS:
        at = said.index(prompt, at) + len(prompt)
    made = x509.load_pem_x509_csr(node.disk.flash["test1",])
    usage = made.extensions.get_extension_for_oid(ExtensionOID.KEY_USAGE).value
    assert isinstance(usage, x509.KeyUsage)
    assert [usage.digital_signature, usage.key_encipherment, usage.key_agreement, usage.decipher_only] == [
        True
    ] * 4
    assert [usage.content_commitment, usage.data_encipherment, usage.encipher_only] == [False] * 3
    found = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.critical
    assert [str(name.value) for name in found.value] == names
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    judged = subprocess.run(
        ["openssl", "req", "-verify", "-noout", "-text"],
        input=node.disk.flash["test1",], capture_output=True, check=True, timeout=20,
    )  # fmt: skip
    assert b"verify OK" in judged.stderr + judged.stdout
    assert b"email:ops@a.example" in judged.stdout


@pytest.mark.behaviour("B-057")
def test_wrong_answers_are_asked_again(rig: CliRig, node: Node) -> None:
    typed(rig, "add pki key-pair k rsa 512")
    said = request(rig, "nobody", "k", "x" * 65, "ok", *[""] * 5, "ABC", "1z", "DE")
    assert "% Error: there is no such key pair; there are: k" in said
    assert "% Error: it has 65 characters, at most 64 are taken" in said
    assert said.count("% Error: the country code has two letters") == 2
    said = typed(rig, "10.0.0.256", "10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1", *[""] * 6, "n")
    assert "% Error: expected an IPv4 address" in said
    assert "% Error: the two answers differ" in said
    made = x509.load_pem_x509_csr(node.disk.flash["test1",])
    assert made.subject.get_attributes_for_oid(NameOID.COUNTRY_NAME)[0].value == "DE"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["k", *[""] * 7, *[""] * 8, "n"], "a certificate request needs a name"),
        (["k", "cn", *[""] * 6, *[""] * 8, "y", *"nnnnnyn"], "EncipherOnly has a meaning only with KeyAgreement"),
        (["x", "y", "z"], "given up after three wrong answers"),
    ],
)
def test_a_request_that_cannot_be_made_writes_nothing(
    rig: CliRig, node: Node, answers: list[str], why: str
) -> None:
    typed(rig, "add pki key-pair k rsa 512")
    said = request(rig, *answers)
    assert f"% Error: {why}" in said
    assert ("test1",) not in node.disk.flash


def test_an_existing_file_is_replaced_only_after_a_yes(rig: CliRig, node: Node) -> None:
    typed(rig, "add pki key-pair k rsa 512")
    node.disk.flash["test1",] = b"mine"
    answers = ["k", "cn", *[""] * 14, "n"]
    assert "was not replaced" in request(rig, *answers, "n")
    assert node.disk.flash["test1",] == b"mine"
    assert "is in /flash/test1" in request(rig, *answers, "y")


def test_a_pasted_key_pair_is_not_shown_and_is_encrypted(rig: CliRig, node: Node, authority: Authority) -> None:
    issued = authority.issue("a.example")
    lines = issued.key.splitlines()
    said = typed(rig, "import pki key-pair mine rsa file terminal", *lines, "")
    assert "Imported key pair mine" in said
    assert not any(line in said for line in lines[1:-1])
    held = node.disk.flash["pki", "local", "keys", "mine.pem"]
    assert b"ENCRYPTED PRIVATE KEY" in held
    key = serialization.load_pem_private_key(held, SECRET.passwords[0])
    assert pem_key(key) == issued.key
    said = typed(
        rig, "import pki certificate self rsa key-pair mine file terminal", *issued.certificate.splitlines(), ""
    )
    assert "Imported certificate" in said


@pytest.mark.behaviour("B-054")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("import pki certificate trusted rsa file none.pem", "Can't open /flash/none.pem"),
        ("import pki certificate trusted rsa file junk.pem", "/flash/junk.pem is not a readable PEM certificate"),
        ("import pki certificate trusted rsa file ../x", "% Error: "),
        ("import pki key-pair k rsa file junk.pem", "/flash/junk.pem is not a readable PEM private key"),
        ("import pki certificate self rsa key-pair k file ca.pem", "there is no key pair k in context local"),
        ("remove pki certificate 00000000", "no certificate of context local has handle 00000000"),
        ("add pki certificate-request rsa r file r", "context local has no key pair"),
        ("add pki key-pair k rsa 100", "% Invalid input"),
    ],
)
def test_refusals(rig: CliRig, node: Node, authority: Authority, line: str, why: str) -> None:
    node.disk.flash["junk.pem",] = b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
    node.disk.flash["ca.pem",] = authority.certificate.encode()
    assert why in typed(rig, line)


@pytest.mark.behaviour("B-059")
def test_a_certificate_of_another_key_is_refused(rig: CliRig, node: Node, authority: Authority) -> None:
    typed(rig, "add pki key-pair k rsa 1024")
    node.disk.flash["other.pem",] = authority.issue("a.example").certificate.encode()
    said = typed(rig, "import pki certificate self rsa key-pair k file other.pem")
    assert "/flash/other.pem is not the certificate of key pair k" in said
    assert "there is a key pair k already" in typed(rig, "add pki key-pair k rsa 512")


def test_keys_are_there_after_a_restart(rig: CliRig, node: Node) -> None:
    typed(rig, "add pki key-pair k rsa 512")
    pem = store(node).pem("local", "key", "k")
    node.flash = node.disk.work(ToFlash(0, "store", ("pki",))).store
    node.kill_controller()
    node.start()
    assert store(node).pem("local", "key", "k") == pem
