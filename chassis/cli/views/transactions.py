"""Views of transactions: what their commands say, the candidate, commits, and the lines that were typed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from chassis.cli.views.layout import Data, Scope, View, columns

said: Final = View(lambda data, scope: list(data["lines"]))
"""What is said by the way, as lines."""


def _candidate(data: Data, scope: Scope) -> list[str]:
    if not data["lines"]:
        return ["No changes"]
    conflict = [f"% Error: {data['conflict']}"] if data["conflict"] else []
    return [*(data["difference"] or ["No changes"]), *data["remarks"], *conflict]


candidate: Final = View(_candidate)
"""What a candidate would change: `+` and `-` before lines that come and go; then what is wrong with it."""


def _open(data: Data, scope: Scope) -> list[dict[str, Any]]:
    """The candidate of this session, and the commit that waits to be confirmed."""
    rows = []
    if data["lines"]:
        rows.append(
            {"number": data["base"], "state": "Active", "lines": data["lines"], "user": scope.user, "comment": ""}
        )
    waiting = data["open"]
    if waiting:
        seconds = max(int(waiting["seconds"]), 0)
        rows.append(
            {
                "number": waiting["number"],
                "state": "Outstanding",
                "lines": 0,
                "user": waiting["user"],
                "comment": f"{seconds} s to confirm",
            }
        )
    return rows


def _transactions(data: Data, scope: Scope) -> list[str]:
    if not data:
        return ["No open transaction"]
    rows = [(row["number"], row["state"], row["lines"] or "-", row["user"] or "-", row["comment"]) for row in data]
    return columns(("TID", "State", "Sequence", "User", "Comment"), rows, right=("TID", "Sequence"))


transactions: Final = View(_transactions, _open)
"""Open transactions. TID is the number of a commit, or of that a candidate was begun on; Sequence counts lines."""


def _commits(data: Data, scope: Scope) -> list[str]:
    rows = [
        (
            row["number"],
            f"{datetime.fromtimestamp(row['time'], UTC):%Y-%m-%d %H:%M:%S}",
            row["user"] or "-",
            row["kind"],
            row["state"] or "-",
            row["comment"] or row["file"],
        )
        for row in data
    ]
    return columns(("TID", "Time (UTC)", "User", "By", "State", "Comment"), rows, right=("TID",))


commits: Final = View(_commits, lambda data, scope: data["commits"])
"""The commits that are kept, the last one first."""

history: Final = View(lambda data, scope: [f"{number:>5}  {line}" for number, line in enumerate(data["lines"], 1)])
"""The lines that were typed, the oldest first."""
