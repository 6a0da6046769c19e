"""A way to provoke each row of the guide's tables of log messages: ends that differ, or a message or packet that
is bent; and what the end that sees it logs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chassis.bus.batch import Step
from chassis.bus.messages import LogRecord
from tests.support import asp_table7
from tests.support.asp import batch_of
from tests.support.ike import table5, table6

Way = Callable[[pytest.MonkeyPatch], list[LogRecord]]
"""Returns all that one end has logged, in order."""

TUNNEL, CONTEXT = "tunnel5", "outer"
"""What the lines of IKE are about."""

MANUAL = "t1"
"""What lines about packets are about."""

LOGGED_AS = {"esp-auth-alg": "esp-icv-esp"}
"""The one row whose fault has the line of another one: M-14."""


def _bent_first(change: Any, end: str, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    two = table5.bent_first(change)
    return list(getattr(two, end).logs)


def _differing(case: table5.Case, end: str, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    table5.distinguished(patch)
    return list(getattr(case.negotiated(), end).logs)


def _dials_in(user: table5.DialInUser, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    table5.distinguished(patch)
    return list(user.dials().b.logs)


def _no_mistake(made: Callable[[], Any], end: str, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    return list(getattr(made(), end).logs)


def _deleted(name: str, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    return list(table5.with_a_deleted_pair(name)[0].b.logs)


def _table_5() -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for change, row, _, sending, _ in table5.FIRST_MESSAGES:
        ways.setdefault(row, partial(_bent_first, change, "b"))
        ways.setdefault(sending, partial(_bent_first, change, "b"))
    for case in table5.CASES.values():
        for row, _ in case.rows:
            ways.setdefault(row, partial(_differing, case, case.sees))
        ways.setdefault(case.told, partial(_differing, case, "a" if case.sees == "b" else "b"))
    for user in table5.DIALIN_USERS.values():
        for row, _ in user.rows:
            ways.setdefault(row, partial(_dials_in, user))
    # Its row is about this one notification.
    ways["ikev1-received-unprotected-notify"] = partial(_differing, table5.CASES["mode"], "a")
    for name in ("initiator", "responder"):
        ways[f"ikev1-p2-selectors-sent-{name}"] = partial(_no_mistake, table5.with_rules, "a")
        ways[f"ikev1-p2-selectors-received-{name}"] = partial(_no_mistake, table5.with_rules, "b")
    for name in table5.SHORTER:
        for more in ("", "-notify"):
            row = f"ikev1-p2-responder-lifetime-{name}{more}"
            ways[row] = partial(_no_mistake, table5.with_shorter_lifetimes, "a")
    for name in ("ah", "esp"):
        ways[f"ikev1-delete-received-{name}"] = partial(_deleted, name)
    del ways[""]
    return ways


def _wrong_payload(kind: int, body: bytes, length: int | None, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    return list(table6.with_a_wrong_payload(patch, kind, body, length)[0].b.logs)


def _wrong_chain(exchange: Any, change: Any, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    return list(table6.spoilt(patch, exchange, change)[0].b.logs)


def _wrong_header(change: Any, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    return list(table6.with_a_wrong_header(change)[0].b.logs)


def _other_suites(ours: Any, theirs: Any, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    return list(table6.with_other_suites(ours, theirs)[0].b.logs)


def _table_6() -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for row, kind, body, length in table6.PLAIN:
        ways.setdefault(row, partial(_wrong_payload, kind, body, length))
    for row, exchange, change, _ in table6.CHAINS:
        ways.setdefault(row, partial(_wrong_chain, exchange, change))
    for row, bend, _ in table6.HEADERS:
        ways.setdefault(row, partial(_wrong_header, bend))
    for row, ours, theirs, _ in table6.MISMATCHES:
        ways.setdefault(row, partial(_other_suites, ours, theirs))
    return ways


def _refused(case: asp_table7.Case, patch: pytest.MonkeyPatch) -> list[LogRecord]:
    refused = case(3)
    refused.router.open(batch_of(refused.packets, Step.DECAPSULATE))
    return asp_table7.logs(refused.router)


def _table_7() -> dict[str, Way]:
    ways: dict[str, Way] = {row: partial(_refused, cases[0]) for row, cases in asp_table7.CASES.items()}
    return {**ways, "esp-auth-alg": partial(_refused, asp_table7.other_algorithm)}


WAYS: dict[str, Way] = {**_table_5(), **_table_6(), **_table_7()}
