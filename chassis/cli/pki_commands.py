"""The exec commands that change a context's PKI store (guide 6.1.1): one row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.cli import pki_dialogues
from chassis.cli.dialogue import Opening
from chassis.cli.rows import ADMINISTRATOR, ExecCommand, Values
from chassis.cli.views import acts
from chassis.cli.views.layout import View
from chassis.config.operations import BY_ID


def _row(name: str, view: View, opening: Opening | None = None, request: str = "") -> ExecCommand:
    known = BY_ID[name]
    return ExecCommand(
        name,
        known.syntax,
        known.help,
        view,
        request,
        _key_pair,
        known.aliases,
        ADMINISTRATOR,
        known.guide,
        opening=opening,
    )


def _key_pair(values: Values, context: str) -> dict[str, Any]:
    return {"context": context, "name": values["name"], "bits": values["bits"]}


PKI_COMMANDS: Final[tuple[ExecCommand, ...]] = (
    _row("pki-import-trusted", acts.pki_imported, pki_dialogues.imported("trusted")),
    _row("pki-import-self", acts.pki_imported, pki_dialogues.imported("self")),
    _row("pki-import-key-pair", acts.pki_imported, pki_dialogues.imported("key-pair")),
    _row("pki-add-key-pair", acts.key_pair_made, request="pki-key-pair"),
    _row("pki-add-certificate-request", acts.request_written, pki_dialogues.certificate_request),
    _row("pki-remove-certificate", acts.pki_removed, pki_dialogues.remove),
)
"""In the order of the guide."""

PKI_WORDS: Final[Mapping[str, str]] = {
    "add": "make an object",
    "certificate": "certificates",
    "certificate-request": "a request that an authority signs",
    "file": "PEM file of /flash; `terminal` stands for a pasted text",
    "import": "read an object from a file",
    "key-pair": "key pairs",
    "pki": "public key infrastructure",
    "remove": "remove an object",
    "rsa": "of RSA keys",
    "self": "of this router",
    "trusted": "of an authority",
}
"""What `?` says of the keywords of these commands."""
