"""Types of the values of commands: how each is read from a word, printed, and refused.

Reading never raises. A wrong word gives an `InvalidValue` with the reason, the code of the diagnostic, and the
correct word if it is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from chassis.config.secrets import encrypted_octets
from chassis.model.ike import Identity, PreSharedKey
from chassis.model.ipsec import Key
from chassis.model.qos import DSCPS, POLICY_KINDS
from chassis.model.remote_identity import RemoteIdentity
from chassis.model.router import MANAGEMENT, NULL0
from chassis.net.address import format_prefix, network_of
from chassis.net.rate import Rate
from chassis.net.ssh_key import public_key

MAX_SLOT = 14
"""Highest slot of the chassis. Slots 7 and 8 belong to the controllers."""


HIDDEN_VALUE = "***"
"""Text that is printed instead of a word that may be a key."""


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """The reason why a word is not a value of its type. `suggestion` is the word that was probably meant."""

    reason: str
    code: str = "bad-value"
    suggestion: str = ""


def _always(value: object) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ValueType:
    """A type of value. `fits` returns whether this type prints a value (used to choose among alternatives).

    `rest` takes the rest of the line with its blanks; `secret` values never appear in a diagnostic. `encrypted`
    values are keys by their encrypted form, `one_way` ones are hashes, which are printed where keys are not.
    """

    name: str
    help: str
    read: Callable[[str], object]
    show: Callable[[object], str] = str
    fits: Callable[[object], bool] = _always
    rest: bool = False
    secret: bool = False
    encrypted: bool = False
    one_way: bool = False


# --- reading ---

_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_DOTTED = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)
_LOOKS_DOTTED = re.compile(r"[0-9]+(\.[0-9]+){3}", re.ASCII)
_HASH = re.compile(r"\$[0-9a-z]{1,2}\$", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)

PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ospf": 89,
    "pim": 103,
    "sctp": 132,
}
"""Numbers of the IP protocols that an ACL rule accepts by name."""

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def address_number(text: str) -> int | None:
    """Return the 32-bit number of a dotted address; None if the text is not one."""
    found = _DOTTED.fullmatch(text)
    if found is None:
        return None
    a, b, c, d = (int(part) for part in found.groups())
    if a > 255 or b > 255 or c > 255 or d > 255:
        return None
    return a << 24 | b << 16 | c << 8 | d


def dotted(number: int) -> str:
    """Return the dotted form of a 32-bit number."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def mask_length(text: str) -> int | None:
    """Return the prefix length of a dotted mask or wildcard mask; None if it is neither."""
    number = address_number(text)
    if number is None:
        return None
    for bits in (number, number ^ 0xFFFFFFFF):
        length = bits.bit_count()
        if bits == (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:
            return length
    return None


def _network_mask(length: int) -> int:
    return (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF


def _read_host(word: str) -> object:
    number = address_number(word)
    if number is None:
        return InvalidValue("expected an IPv4 address such as 10.0.0.1")
    if number == 0 or number >= 0xE0000000:
        return InvalidValue(f"{word} is not a host address")
    return dotted(number)


def _split_prefix(word: str) -> tuple[int, int] | InvalidValue:
    head, slash, tail = word.partition("/")
    number = address_number(head)
    if number is None:
        return InvalidValue("expected an IPv4 prefix such as 10.0.0.0/8")
    if not slash:
        return InvalidValue("a prefix length is missing", suggestion=f"{head}/32")
    if not _NUMBER.fullmatch(tail) or int(tail) > 32:
        length = mask_length(tail)
        if length is not None:
            return InvalidValue("a prefix length is expected, not a mask", "S-097", f"{head}/{length}")
        return InvalidValue("the prefix length must be 0 to 32")
    return number, int(tail)


def _read_network(word: str) -> object:
    split = _split_prefix(word)
    if isinstance(split, InvalidValue):
        return split
    number, length = split
    return f"{dotted(number & _network_mask(length))}/{length}"


def _read_network_or_any(word: str) -> object:
    split = _split_prefix(word) if word.lower() != "any" else "any"
    return network_of(*split) if isinstance(split, tuple) else split


def _show_network_or_any(value: object) -> str:
    return format_prefix(value) if isinstance(value, tuple) else str(value)


def _read_interface_address(word: str) -> object:
    split = _split_prefix(word)
    if isinstance(split, InvalidValue):
        return split
    number, length = split
    if number >> 24 in (0, 127) or number >= 0xE0000000 or length == 0:
        return InvalidValue(f"{word} is not an interface address")
    if length < 31 and number == number & _network_mask(length):
        return InvalidValue(
            f"{dotted(number)} is the address of the network itself",
            "S-053",
            f"{dotted(number + 1)}/{length}",
        )
    return f"{dotted(number)}/{length}"


def _read_interface_name(word: str) -> object:
    if _LOOKS_DOTTED.match(word):
        return InvalidValue("expected an IPv4 address or the name of an interface")
    return NULL0 if word.lower() == NULL0 else word


def _read_port(word: str) -> object:
    return MANAGEMENT if word.lower() == MANAGEMENT else _read_pair(word, 999, "a port such as 3/11")


def _read_pair(word: str, last: int, what: str) -> object:
    slot, slash, number = word.partition("/")
    if not slash or not _NUMBER.fullmatch(slot) or not _NUMBER.fullmatch(number):
        return InvalidValue(f"expected {what}")
    if not 1 <= int(slot) <= MAX_SLOT or not 1 <= int(number) <= last:
        return InvalidValue(f"expected {what}: slot 1 to {MAX_SLOT}, then 1 to {last}")
    return f"{int(slot)}/{int(number)}"


def _read_protocol(word: str) -> object:
    number = PROTOCOLS.get(word.lower())
    if number is not None:
        return number
    if _NUMBER.fullmatch(word) and int(word) <= 255:
        return int(word)
    return InvalidValue("expected a protocol (a name or 0 to 255), a prefix, any or eq", "S-015")


def hex_bytes(word: str) -> bytes | InvalidValue:
    """Return the octets of hexadecimal digits, with or without 0x."""
    digits = word[2:] if word[:2] in ("0x", "0X") else word
    if not _HEX.fullmatch(digits):
        return InvalidValue("expected hexadecimal digits", "S-022")
    if len(digits) % 2:
        return InvalidValue("an odd number of hexadecimal digits", "S-022")
    return bytes.fromhex(digits)


def _characters(word: str) -> bytes | InvalidValue:
    if not word.isascii() or not word.isprintable():
        return InvalidValue("a key is made of printable ASCII characters", "S-022")
    return word.encode("ascii")


def _read_manual_key(word: str) -> object:
    is_hex = word[:2] in ("0x", "0X")
    value = hex_bytes(word) if is_hex else _characters(word)
    return value if isinstance(value, InvalidValue) else Key(value, is_hex)


def _read_hex_key(word: str) -> object:
    value = hex_bytes(word)
    return value if isinstance(value, InvalidValue) else Key(value, True)


def is_hash(word: str) -> bool:
    """Return whether a word begins as a password hash does, `$` and the number of its scheme."""
    return _HASH.match(word) is not None


def _read_radius_key(word: str) -> object:
    value = _characters(word)
    return value if isinstance(value, InvalidValue) else Key(value)


def _show_key(value: object) -> str:
    assert isinstance(value, Key)
    return f"0x{value.value.hex()}" if value.hexadecimal else value.value.decode("ascii")


def _read_psk_hex(word: str) -> object:
    value = hex_bytes(word)
    return value if isinstance(value, InvalidValue) else PreSharedKey("hex", value)


def _read_psk_text(word: str) -> object:
    value = _characters(word)
    return value if isinstance(value, InvalidValue) else PreSharedKey("ascii", value)


def _read_psk_aaa(word: str) -> object:
    return PreSharedKey("aaa") if word.lower() == "use-aaa" else InvalidValue("expected use-aaa")


def _show_psk(value: object) -> str:
    assert isinstance(value, PreSharedKey)
    if value.form == "aaa":
        return "use-aaa"
    return f"0x{value.value.hex()}" if value.form == "hex" else value.value.decode("ascii")


def _psk_form(form: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, PreSharedKey) and value.form == form


def _is_encrypted(word: str) -> InvalidValue | None:
    if encrypted_octets(word) is not None:
        return None
    return InvalidValue("expected the text of an encrypted key, as it was printed", "S-022")


def _read_psk_encrypted(word: str) -> object:
    return _is_encrypted(word) or PreSharedKey("ascii", word.encode(), encrypted=word)


def _read_key_encrypted(word: str) -> object:
    return _is_encrypted(word) or Key(word.encode(), encrypted=word)


def _has_encrypted_form(value: object) -> bool:
    return isinstance(value, PreSharedKey | Key) and value.encrypted != ""


def _show_encrypted(value: object) -> str:
    assert isinstance(value, PreSharedKey | Key)
    return value.encrypted


def _read_identity_address(word: str) -> object:
    value = _read_host(word)
    return value if isinstance(value, InvalidValue) else Identity("address", str(value))


def _identity_kind(kind: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, Identity) and value.kind == kind


def _show_identity(value: object) -> str:
    assert isinstance(value, Identity)
    return value.value


def _read_remote_identity(word: str) -> object:
    try:
        RemoteIdentity.of(word)
    except ValueError as error:
        return InvalidValue(str(error), "S-021")
    return word


def _read_public_key(text: str) -> object:
    if not public_key(text):
        return InvalidValue("expected a public key of SSH such as ssh-ed25519 AAAA...")
    return " ".join(text.split())


def _read_card_type(word: str) -> object:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", word, re.ASCII | re.IGNORECASE):
        return InvalidValue("expected a card type such as ase or ge-10-port")
    return word.lower()


def _read_policy_name(word: str) -> object:
    """Read the name of a policy that a port uses. A kind is none: `qos policy p policing` after a port begins the
    policy p, as `p` here is no short form of `policing`."""
    return InvalidValue(f"{word} is a kind of policies, not a name") if word.lower() in POLICY_KINDS else word


def _read_rate(word: str) -> object:
    try:
        rate = Rate.parse(word)
    except ValueError as error:
        return InvalidValue(str(error))
    return InvalidValue("0 is no rate: `no rate` is without a limit") if rate is None else word


def _read_dscp(word: str) -> object:
    value = DSCPS.get(word.lower())
    if value is None and _NUMBER.fullmatch(word) and int(word) < 64:
        value = int(word)
    return InvalidValue("expected a DSCP such as ef, af21, cs5, or 0 to 63") if value is None else value


def _show_dscp(value: object) -> str:
    return next((name for name, number in DSCPS.items() if number == value), str(value))


def card_ports(card_type: str) -> int:
    """Return the number of ports of a card type such as ge-10-port; 0 if the name has no number."""
    found = re.fullmatch(r"[a-z0-9-]*?-([0-9]{1,3})-port", card_type, re.ASCII)
    return int(found.group(1)) if found else 0


@cache
def number_type(low: int, high: int, step: int = 1) -> ValueType:
    """Return the type of whole numbers from `low` to `high`, both included, in steps."""
    steps = f" in steps of {step}" if step > 1 else ""

    def read(word: str) -> object:
        if not _NUMBER.fullmatch(word):
            return InvalidValue(f"expected a number from {low} to {high}{steps}")
        value = int(word)
        if not low <= value <= high or (value - low) % step:
            return InvalidValue(f"{word} is not from {low} to {high}{steps}")
        return value

    return ValueType(f"{low}..{high}", f"number from {low} to {high}{steps}", read)


TYPES: dict[str, ValueType] = {
    kind.name: kind
    for kind in (
        ValueType("name", "a name", str),
        ValueType("word", "one word", str),
        ValueType("text", "text to the end of the line", str, rest=True),
        ValueType("hash", "password hash", str, secret=True, one_way=True),
        ValueType("public-key", "public key such as ssh-ed25519 AAAA...", _read_public_key, rest=True),
        ValueType("address", "IPv4 address", _read_host),
        ValueType("network", "IPv4 prefix with its length", _read_network),
        ValueType(
            "network-any", "IPv4 prefix with its length, or any", _read_network_or_any, _show_network_or_any
        ),
        ValueType("interface-address", "IPv4 address with its prefix length", _read_interface_address),
        ValueType("interface", "name of an interface", _read_interface_name),
        ValueType("asp", "slot/asp", lambda word: _read_pair(word, 2, "an ASP such as 1/2")),
        ValueType("port", "slot/port, or management", _read_port),
        ValueType("card-type", "type of card", _read_card_type),
        ValueType("policy-name", "a name", _read_policy_name),
        ValueType("rate", "rate such as 50M in bits a second, or 20kpps in packets", _read_rate),
        ValueType("dscp", "DSCP such as ef, af21, cs5, or 0 to 63", _read_dscp, _show_dscp),
        ValueType(
            "protocol",
            "IP protocol, name or number",
            _read_protocol,
            lambda value: _PROTOCOL_NAMES.get(value, str(value)) if isinstance(value, int) else str(value),
        ),
        ValueType(
            "manual-key", "key: characters, or 0x and hexadecimal digits", _read_manual_key, _show_key, secret=True
        ),
        ValueType("radius-key", "key in characters", _read_radius_key, _show_key, secret=True),
        ValueType("hex-key", "key in hexadecimal digits", _read_hex_key, _show_key, secret=True),
        ValueType("psk-hex", "key in hexadecimal digits", _read_psk_hex, _show_psk, _psk_form("hex"), secret=True),
        ValueType("psk-text", "key in characters", _read_psk_text, _show_psk, _psk_form("ascii"), secret=True),
        *(
            ValueType(
                name,
                "text of an encrypted key",
                read,
                _show_encrypted,
                _has_encrypted_form,
                secret=True,
                encrypted=True,
            )
            for name, read in (("psk-encrypted", _read_psk_encrypted), ("key-encrypted", _read_key_encrypted))
        ),
        ValueType("psk-aaa", "use-aaa: ask AAA for the key", _read_psk_aaa, _show_psk, _psk_form("aaa")),
        ValueType("id-address", "IPv4 address", _read_identity_address, _show_identity, _identity_kind("address")),
        ValueType(
            "id-fqdn",
            "fully qualified domain name",
            lambda word: Identity("fqdn", word),
            _show_identity,
            _identity_kind("fqdn"),
        ),
        ValueType(
            "remote-id", "address or name; *.example or * for those of many on-demand peers", _read_remote_identity
        ),
    )
}
"""All value types except ranges of numbers, by name."""
