"""What commands that act print: files and what was done with them, processes, neighbours."""

from __future__ import annotations

from datetime import UTC, datetime

from chassis.cli.views.layout import Data, Scope, View, ViewError, columns


def _directory(data: Data, scope: Scope) -> list[str]:
    rows = [
        (
            row["octets"] if not row["folder"] else "-",
            datetime.fromtimestamp(row["modified"], UTC).strftime("%b %d %Y %H:%M"),
            row["name"] + ("/" if row["folder"] else ""),
        )
        for row in data["files"]
    ]
    files = [row["octets"] for row in data["files"] if not row["folder"]]
    return [
        f"Contents of {data['path']}",
        *(columns(("Size", "Modified", "Name"), rows, right=("Size",)) if rows else ()),
        f"{len(files)} file{'s' if len(files) != 1 else ''}, {sum(files)} octets",
    ]


directory = View(_directory)
text_file = View(lambda data, scope: data["text"].splitlines())
saved = View(lambda data, scope: [f"Save to file: {data['file']}"])
copied = View(lambda data, scope: [f"Copied {data['file']} to {data['target']}"])
deleted = View(lambda data, scope: [f"Deleted {data['file']}"])


def _reloading(data: Data, scope: Scope) -> list[str]:
    errors = data["errors"]
    told = f" without {errors} line{'s' if errors != 1 else ''} in error" if errors else ""
    return [f"Reloading with {data['file']}{told}"]


reloading = View(_reloading)
card_reloading = View(lambda data, scope: [f"Reloading {', '.join(data['cards'])}"])


def _cleared(data: Data, scope: Scope) -> Data:
    """How many neighbours were forgotten; the first error of a card that did not answer."""
    for card, error in data["errors"].items():
        raise ViewError(f"{card}: {error}")
    return {"cleared": sum(reply["cleared"] for reply in data["cards"].values())}


arp_cleared = View(lambda data, scope: [f"Cleared arp entries: {data['cleared']}"], _cleared)


def _imported(data: Data, scope: Scope) -> list[str]:
    if data["handle"]:
        return [f"Imported certificate {data['subject']}, handle {data['handle']}"]
    return [f"Imported key pair {data['name']}"]


pki_imported = View(_imported)
key_pair_made = View(lambda data, scope: [f"Key pair {data['name']} of {data['bits']} bits is made"])
request_written = View(lambda data, scope: [f"Certificate request {data['name']} is in {data['file']}"])
pki_removed = View(lambda data, scope: [f"Removed certificate {data['subject']}, handle {data['handle']}"])
