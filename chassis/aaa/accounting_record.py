"""What is reported of a session: one accounting record, as a value that outlives its controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from math import isfinite
from typing import Any, Literal

from chassis.net.address import parse_address

Status = Literal["start", "interim", "stop"]

STATUS_TYPES: dict[Status, int] = {"start": 1, "stop": 2, "interim": 3}
"""Acct-Status-Type (RFC 2866 5.1)."""


class TerminateCause(IntEnum):
    """Acct-Terminate-Cause (RFC 2866 5.10): those that a tunnel can have."""

    USER_REQUEST = 1
    LOST_CARRIER = 2
    LOST_SERVICE = 3
    IDLE_TIMEOUT = 4
    SESSION_TIMEOUT = 5
    ADMIN_RESET = 6
    ADMIN_REBOOT = 7
    PORT_ERROR = 8
    NAS_ERROR = 9
    NAS_REQUEST = 10
    NAS_REBOOT = 11


@dataclass(frozen=True, slots=True)
class AccountingRecord:
    """Start, interim update or stop of one session.

    `id` names the record and `session` the session: both are the caller's and must not come again with another
    boot of the controller, so they contain its boot number. `session` is Acct-Session-Id, `user` User-Name, `time`
    when it happened (s since 1970). Octets and packets are 64 bits wide: `input` is what came from the peer.
    `seconds` is Acct-Session-Time. `cause` belongs to a stop. `peer` and `local` are the outer addresses,
    `address` is the inner one that the peer was given. `profile` is the IPsec profile in use. `classes`
    are those of the answer.
    """

    id: str
    session: str
    status: Status
    context: str
    user: str
    time: float
    peer: str = ""
    local: str = ""
    address: str | None = None
    profile: str | None = None
    classes: tuple[bytes, ...] = field(default=(), repr=False)
    seconds: int = 0
    input_octets: int = 0
    output_octets: int = 0
    input_packets: int = 0
    output_packets: int = 0
    cause: TerminateCause | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON has it; `from_json` reads it back."""
        return {
            **asdict(self),
            "classes": [value.hex() for value in self.classes],
            "cause": None if self.cause is None else int(self.cause),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AccountingRecord:
        """Return the record that `to_json` gave.

        Raises:
            ValueError: the data are not such a record; the text says what is wrong.
        """
        kinds: dict[str, type | tuple[type, ...]] = {"time": (int, float), "classes": list, "status": str}
        kinds |= {"address": (str, type(None)), "profile": (str, type(None))}
        kinds["cause"] = (int, type(None))
        values = dict(data)
        if unknown := values.keys() - {item.name for item in fields(cls)}:
            raise ValueError(f"an accounting record has no {sorted(unknown)[0]}")
        for item in fields(cls):
            kind = kinds.get(item.name, int if item.type == "int" else str)
            if item.name not in values or not isinstance(values[item.name], kind):
                raise ValueError(f"{item.name} of an accounting record is missing or of the wrong type")
            if kind is int and not 0 <= values[item.name] < 1 << 64:
                raise ValueError(f"{item.name} of an accounting record is not from 0 to 2^64 - 1")
        if not isfinite(values["time"]):
            raise ValueError("time of an accounting record is not finite")
        for name in ("peer", "local", "address"):
            if values[name]:
                parse_address(values[name])
        if values["status"] not in STATUS_TYPES:
            raise ValueError(f"{values['status']} is no status of an accounting record")
        try:
            values["classes"] = tuple(bytes.fromhex(text) for text in values["classes"])
            values["cause"] = None if values["cause"] is None else TerminateCause(values["cause"])
        except (TypeError, ValueError):
            raise ValueError("classes or cause of an accounting record are wrong") from None
        return cls(**values)
