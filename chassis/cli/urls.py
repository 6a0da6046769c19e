"""Addresses of files on other machines, as `save configuration` and `configure` take them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from chassis.cli.dialogue import InquiryReply, Question, Transfer, refused
from chassis.config.values import HIDDEN_VALUE

SCHEMES: Final = ("scp", "sftp", "http", "https")

_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<user>[^:@/\s]+)@)?(?P<host>[A-Za-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!-~]{1,1024})"
)


@dataclass(frozen=True, slots=True)
class FileUrl:
    """A file on another machine; `port` 0 is the usual one of the scheme."""

    scheme: str
    host: str
    path: str
    user: str = ""
    port: int = 0

    @property
    def is_ssh(self) -> bool:
        return self.scheme in ("scp", "sftp")


def is_url(text: str) -> bool:
    """Whether a text means a file on another machine, and not one of the flash."""
    return "://" in text


def read_url(text: str) -> FileUrl:
    """Return the parts of a URL.

    Raises:
        ValueError: it is none that can be used; the text says why, and repeats no password.
    """
    found = _URL.fullmatch(text)
    if found is None:
        if re.match(r"[a-z]+://[^/@\s]*:[^/@\s]*@", text):
            raise ValueError("a URL has no password here: it is asked for")
        raise ValueError("expected a URL such as scp://user@10.0.0.1/file")
    if found["scheme"] not in SCHEMES:
        raise ValueError(f"expected {', '.join(SCHEMES)} and not {found['scheme']}")
    port = int(found["port"] or 0)
    if port > 65_535:
        raise ValueError(f"{port} is no port")
    url = FileUrl(found["scheme"], found["host"], found["path"], found["user"] or "", port)
    if url.is_ssh and not url.user:
        raise ValueError(f"{url.scheme} needs a user, as in {url.scheme}://user@{url.host}{url.path}")
    return url


def without_password(line: str) -> str:
    """Return a line with the passwords of its URLs hidden. None is ever used: see `read_url`."""
    return re.sub(r"(://[^/@\s:]*):[^/\s]*@", rf"\1:{HIDDEN_VALUE}@", line)


def carry(text: str, data: str | None) -> Any:
    """Have the shell read a URL's file, or write `data` there; ask for the password of its user. Return the reply.

    Raises:
        ViewError: it is no URL that can be used, or the transfer failed.
    """
    try:
        url = read_url(text)
    except ValueError as error:
        refused(str(error))
    if data is not None and not url.is_ssh:
        refused(f"{url.scheme} is for reading only")
    password = ""
    if url.is_ssh:
        password = yield Question(f"Password for {url.user}@{url.host}: ", echo=False)
    reply: InquiryReply = yield Transfer(text, data, password)
    return reply.unless_refused()
