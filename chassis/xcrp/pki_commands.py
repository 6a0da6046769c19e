"""The operators' commands that change a context's PKI store (guide 6.1.1).

A private key is on disk encrypted under the router's secret, and leaves the controller in no answer. What is
imported is used by the next negotiation: nothing has to be committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import FlashPath, Output, ToOperator
from chassis.bus.messages import Attributes
from chassis.net import pki
from chassis.net.pki import PkiError, RequestedNames
from chassis.xcrp import flash_paths, show_pki
from chassis.xcrp.file_commands import flash_work
from chassis.xcrp.flash import FOLDERS, KEY, REQUEST, SELF, TRUSTED, encrypted_pem, read_store
from chassis.xcrp.flash_operations import FlashAnswer
from chassis.xcrp.flash_paths import PKI, FlashPathError, written
from chassis.xcrp.operators import Method, Operators

_FOLDER_OF: Final = {kind: folder for folder, kind in FOLDERS.items()}


def _import(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    _require_context(operators, given["context"])
    if given["text"]:
        return _imported(operators, number, given, given["text"].encode(), "the pasted text", now)
    path = _file(given["file"])

    def read(answer: FlashAnswer, now: float) -> list[Output]:
        if answer.error:
            return [ToOperator(number, {}, answer.error)]
        return _imported(operators, number, given, answer.data, written(path), now)

    return flash_work(operators, number, "pki-import", "read", path, read)


def _imported(
    operators: Operators, number: int, given: Mapping[str, Any], data: bytes, file: str, now: float
) -> list[Output]:
    context, kind, name = given["context"], given["kind"], given["name"]
    store = operators.node.flash
    result: Attributes = {"context": context, "kind": kind, "name": name, "handle": "", "subject": ""}
    try:
        if kind == "key-pair":
            if name in store.names(context, KEY):
                raise ArgumentError(f"there is a key pair {name} already: choose another name")
            data = encrypted_pem(pki.private_key(data), _password(operators))
            return _write(operators, number, "pki-import", (context, KEY, name), data, result)
        found = pki.certificates(data)
    except PkiError as error:
        raise ArgumentError(f"{file} {error}") from None
    own = kind == "self"
    if own and name not in store.names(context, KEY):
        known = ", ".join(store.names(context, KEY)) or "none"
        raise ArgumentError(f"there is no key pair {name} in context {context}; there are: {known}")
    handle = show_pki.handle_of(found[0])
    result.update(handle=handle, subject=found[0].subject.rfc4514_string())
    if own:
        public = pki.private_key(store.pem(context, KEY, name)).public_key()
        if found[0].public_key() != public:
            raise ArgumentError(f"{file} is not the certificate of key pair {name}")
    else:
        result["name"] = name = handle
    at = (context, SELF if own else TRUSTED, name)
    return _write(operators, number, "pki-import", at, data, result)


def _add_key_pair(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context, name = given["context"], given["name"]
    _require_context(operators, context)
    if name in operators.node.flash.names(context, KEY):
        raise ArgumentError(f"there is a key pair {name} already: choose another name")
    result: Attributes = {"context": context, "name": name, "bits": given["bits"]}
    path, password = _path(context, KEY, name), _password(operators)
    done = _refresh(operators, number, "pki-key-pair", result)
    return flash_work(operators, number, "pki-key-pair", "key-pair", path, done, data=password, bits=given["bits"])


def _request(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context, name, pair = given["context"], given["name"], given["key_pair"]
    store = operators.node.flash
    if pair not in store.names(context, KEY):
        raise ArgumentError(f"there is no key pair {pair!r} in context {context}")
    path = _file(given["file"])
    names = RequestedNames(given["subject"], given["alternatives"], given["usages"])
    try:
        data = pki.certificate_request(pki.private_key(store.pem(context, KEY, pair)), names)
    except PkiError as error:
        raise ArgumentError(str(error)) from None
    result: Attributes = {"context": context, "name": name, "file": written(path), "exists": False}

    def copied(answer: FlashAnswer, now: float) -> list[Output]:
        """The request is also kept in the store, so that it can be shown (B-189)."""
        if answer.error or answer.exists:
            return [ToOperator(number, {**result, "exists": answer.exists}, answer.error)]
        return _write(operators, number, "pki-request", (context, REQUEST, name), data, result)

    return flash_work(
        operators, number, "pki-request", "write", path, copied, data=data, overwrite=given["overwrite"]
    )


def _find(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    _, row = _of_handle(operators, given["context"], given["handle"])
    return [ToOperator(number, row)]


def _remove(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context = given["context"]
    at, row = _of_handle(operators, context, given["handle"])
    done = _refresh(operators, number, "pki-remove", row)
    return flash_work(operators, number, "pki-remove", "delete", _path(*at), done)


def _of_handle(operators: Operators, context: str, handle: str) -> tuple[tuple[str, str, str], Attributes]:
    """Return where the certificate of a handle is, and what is said of it.

    Raises:
        ArgumentError: there is none, or it stands in a file with another one before it.
    """
    _require_context(operators, context)
    for whose, kind in (("self", SELF), ("trusted", TRUSTED)):
        for row in show_pki.certificates(operators.node.flash, context, whose, None, 0):
            if row["handle"] == handle.lower():
                if row["place"]:
                    raise ArgumentError(f"{handle} is an intermediate one: remove the certificate it came with")
                return (context, kind, row["name"]), {"kind": whose, "subject": row["subject"], "handle": handle}
    raise ArgumentError(f"no certificate of context {context} has handle {handle}: see show pki certificate")


# inside


def _write(
    operators: Operators, number: int, name: str, at: tuple[str, str, str], data: bytes, result: Attributes
) -> list[Output]:
    """Write a file of a store, and use it."""
    done = _refresh(operators, number, name, result)
    return flash_work(operators, number, name, "write", _path(*at), done, data=data, overwrite=True)


def _refresh(
    operators: Operators, number: int, name: str, result: Attributes
) -> Callable[[FlashAnswer, float], list[Output]]:
    """Return what is done when a store was changed: read all stores, and have the ASPs use what is there."""

    def changed(answer: FlashAnswer, now: float) -> list[Output]:
        if answer.error or answer.exists:
            why = answer.error or "there is a file of this name already"
            return [ToOperator(number, {}, why)]
        return flash_work(operators, number, name, "store", (PKI,), in_use)

    def in_use(answer: FlashAnswer, now: float) -> list[Output]:
        state, node = operators.state, operators.node
        node.flash = read_store(answer.store, state.secret.passwords)
        lines = [str(problem) for problem in node.flash.problems]
        lines += node.commit(state.config, now)
        return [*state.publish(), *state.events(lines, now), ToOperator(number, result)]

    return changed


def _path(context: str, kind: str, name: str) -> FlashPath:
    return PKI, context, _FOLDER_OF[kind], f"{name}.pem"


def _file(text: str) -> FlashPath:
    try:
        return flash_paths.resolve_file(text)
    except FlashPathError as error:
        raise ArgumentError(str(error)) from None


def _password(operators: Operators) -> bytes:
    """Return what private keys are encrypted under.

    Raises:
        ArgumentError: the router has no secret.
    """
    passwords = operators.state.secret.passwords
    if not passwords:
        raise ArgumentError("this router has no secret to encrypt private keys under: see its log")
    return passwords[0]


def _require_context(operators: Operators, context: str) -> None:
    if context not in operators.node.plan.contexts:
        raise ArgumentError(f"no context {context!r}")


COMMANDS: Final[dict[str, Method]] = {
    "pki-import": _import,
    "pki-key-pair": _add_key_pair,
    "pki-request": _request,
    "pki-find": _find,
    "pki-remove": _remove,
}
"""Functions that carry out the commands, by name."""
