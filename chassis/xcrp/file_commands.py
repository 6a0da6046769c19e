"""The operators' commands about the files of the flash, and the reload of the whole router.

What is saved is the configuration in force as `show configuration` prints it: no key of it is in clear. A reload
reads the boot file in place of what is in force, and has the launcher start all processes again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chassis.bus.arguments import ArgumentError, fault, refusal
from chassis.bus.engine import FlashPath, Output, ToLauncher, ToOperator
from chassis.bus.messages import Attributes
from chassis.config.difference import difference
from chassis.config.render import render
from chassis.xcrp import configuration, flash_paths
from chassis.xcrp.boot_file import text_of
from chassis.xcrp.flash_operations import FlashAnswer, Then
from chassis.xcrp.flash_paths import FlashPathError, written
from chassis.xcrp.journal import Commit
from chassis.xcrp.operators import Method, Operators


def _file(text: str) -> FlashPath:
    """Return the path of a file; raises `ArgumentError` for what is none."""
    try:
        return flash_paths.resolve_file(text)
    except FlashPathError as error:
        raise ArgumentError(str(error)) from None


def flash_work(
    operators: Operators, number: int, name: str, operation: str, path: FlashPath, then: Then, **more: Any
) -> list[Output]:
    """Have the shell do an operation (see `ToFlash`) for a command; what `then` raises refuses the command."""

    def guarded(answer: FlashAnswer, now: float) -> list[Output]:
        try:
            return then(answer, now)
        except ArgumentError as error:
            return [ToOperator(number, {}, refusal(name, error))]
        except Exception as error:
            # A bug of this program: report it to the operator, and continue.
            text = f"{name}: {fault(error)}"
            operators.state.log("error", "operator", text, now)
            return [ToOperator(number, {}, text)]

    return operators.state.flash.request(operation, path, guarded, **more)


def _answered(number: int, make: Callable[[FlashAnswer], Attributes]) -> Then:
    """Answer the operator with what `make` makes of the shell's answer, or with its error."""

    def then(answer: FlashAnswer, now: float) -> list[Output]:
        return [ToOperator(number, {} if answer.error else make(answer), answer.error)]

    return then


def _files(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    try:
        path = flash_paths.resolve(given["path"])
    except FlashPathError as error:
        raise ArgumentError(str(error)) from None

    def listed(answer: FlashAnswer) -> Attributes:
        rows: list[Any] = [
            {"name": entry.name, "octets": entry.octets, "modified": entry.modified, "folder": entry.folder}
            for entry in answer.entries
        ]
        return {"path": written(path), "files": rows}

    return flash_work(operators, number, "files", "list", path, _answered(number, listed))


def _read_file(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    path = _file(given["file"])

    def then(answer: FlashAnswer, now: float) -> list[Output]:
        text, why = text_of(path, answer)
        return [ToOperator(number, {} if why else {"file": written(path), "text": text}, why)]

    return flash_work(operators, number, "read-file", "read", path, then)


def saved_text(operators: Operators) -> str:
    """Return the configuration in force as a file holds it, without a key in clear."""
    return render(operators.state.config, keys=False)


def _save(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    path = _file(given["file"] or flash_paths.boot_file(state.config))
    data = saved_text(operators).encode()

    def then(answer: FlashAnswer, now: float) -> list[Output]:
        result: Attributes = {"file": written(path), "exists": answer.exists, "octets": len(data)}
        if answer.error or answer.exists:
            return [ToOperator(number, result, answer.error)]
        said = state.event(f"configuration saved to {written(path)}{_by(given['user'])}", now)
        return [*said, ToOperator(number, result)]

    return flash_work(operators, number, "save", "write", path, then, data=data, overwrite=given["overwrite"])


def _by(user: str) -> str:
    return f" by {user}" if user else ""


def _delete_file(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    path = _file(given["file"])
    return flash_work(
        operators, number, "delete-file", "delete", path, _answered(number, lambda _: {"file": written(path)})
    )


def _copy_file(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    path, target = _file(given["file"]), _file(given["target"])

    def copied(answer: FlashAnswer) -> Attributes:
        return {"file": written(path), "target": written(target), "exists": answer.exists}

    return flash_work(
        operators,
        number,
        "copy-file",
        "copy",
        path,
        _answered(number, copied),
        target=target,
        overwrite=given["overwrite"],
    )


def _boot(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    path = _file(flash_paths.boot_file(operators.state.config))
    held = saved_text(operators)

    def then(answer: FlashAnswer, now: float) -> list[Output]:
        same = not answer.error and answer.data.decode(errors="replace") == held
        return [ToOperator(number, {"file": written(path), "exists": not answer.missing, "saved": same})]

    return flash_work(operators, number, "boot", "read", path, then)


def _reload(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    path = _file(flash_paths.boot_file(operators.state.config))

    def then(answer: FlashAnswer, now: float) -> list[Output]:
        if answer.missing and operators.state.startup is not None:
            text, file = operators.state.startup
            return _load(operators, number, text, file, given["user"], now)
        text, why = text_of(path, answer)
        if why:
            return [ToOperator(number, {}, why)]
        return _load(operators, number, text, written(path), given["user"], now)

    return flash_work(operators, number, "reload", "read", path, then)


def _load(operators: Operators, number: int, text: str, file: str, user: str, now: float) -> list[Output]:
    """Commit a file in place of what is in force, errors left out as at a start (S-113), and start anew."""
    state = operators.state
    checked = configuration.check(text, file, modern=state.settings.modern, secret=state.secret)
    errors = checked.errors
    if errors:
        if state.settings.refuse:
            return [ToOperator(number, {}, f"{file} has errors; {errors[0].logged}")]
        text = configuration.text_of(checked.config)
        checked = configuration.check(text, file, modern=state.settings.modern, secret=state.secret)

    def answer(why: str) -> list[Output]:
        if why:
            return [ToOperator(number, {}, why)]
        return [
            *state.event(f"reload with {file}{_by(user)}", now),
            ToOperator(number, {"file": file, "errors": len(errors)}),
            ToLauncher("reload", {}),
        ]

    changed = tuple(change.path for change in difference(state.config, checked.config))
    commit = Commit(0, file, text=text, user=user, comment="reload", changed=changed)
    return operators.commits.commit(commit, checked, answer, now)


COMMANDS: Final[dict[str, Method]] = {
    "files": _files,
    "read-file": _read_file,
    "save": _save,
    "delete-file": _delete_file,
    "copy-file": _copy_file,
    "boot": _boot,
    "reload": _reload,
}
"""Functions that carry out the commands, by name."""
