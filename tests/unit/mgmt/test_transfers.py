"""Files of other machines: URLs, SFTP and HTTP servers in this process, and what is told of each failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from chassis.cli.urls import FileUrl, read_url
from chassis.mgmt import transfers
from chassis.mgmt.transfers import TransferError
from tests.support.sftp import PASSWORD, serving


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("scp://ann@10.0.0.1/a.cfg", FileUrl("scp", "10.0.0.1", "/a.cfg", "ann")),
        ("sftp://ann@host-1.lab:2222//tmp/a.cfg", FileUrl("sftp", "host-1.lab", "//tmp/a.cfg", "ann", 2222)),
        ("http://10.0.0.1:8080/a?b=c", FileUrl("http", "10.0.0.1", "/a?b=c", "", 8080)),
    ],
)
def test_a_url_has_its_parts(text: str, url: FileUrl) -> None:
    assert read_url(text) == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ftp://ann@10.0.0.1/a", "expected scp, sftp, http, https and not ftp"),
        ("file:///etc/passwd", "expected a URL such as"),
        ("scp://10.0.0.1/a", "scp needs a user"),
        ("scp://ann:secret@10.0.0.1/a", "a URL has no password here"),
        ("scp://ann@10.0.0.1:70000/a", "70000 is no port"),
        ("scp://ann@10.0.0.1", "expected a URL such as"),
        ("http://10.0.0.1/a b", "expected a URL such as"),
    ],
)
def test_what_is_no_url_says_why_and_repeats_no_password(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        read_url(text)
    assert "secret" not in str(refused.value)


def carry(url: str, data: str | None = None, password: str = "") -> str:
    with ThreadPoolExecutor(1) as threads:
        return asyncio.run(transfers.carry(url, data, password, threads))


async def _with_sftp(folder: Path, *steps: tuple[str, str | None, str]) -> list[str | TransferError]:
    """Carry out transfers (path, data, password) at a server whose root is this folder."""
    results: list[str | TransferError] = []
    with ThreadPoolExecutor(1) as threads:
        async with serving(folder) as address:
            for path, data, password in steps:
                try:
                    results.append(await transfers.carry(address + path, data, password, threads))
                except TransferError as error:
                    results.append(error)
    return results


def test_a_file_goes_to_an_sftp_server_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    results = asyncio.run(
        _with_sftp(
            tmp_path,
            ("a.cfg", "one\n", PASSWORD),
            ("a.cfg", None, PASSWORD),
            ("none.cfg", None, PASSWORD),
            ("a.cfg", None, "wrong"),
            ("binary", None, PASSWORD),
        )
    )
    assert results[:2] == ["", "one\n"]
    assert (tmp_path / "a.cfg").read_text() == "one\n"
    assert [str(error) for error in results[2:]] == [
        "127.0.0.1: No such file or directory", "Login failed", "the file is not a text file"
    ]  # fmt: skip


@pytest.fixture
def web(tmp_path: Path) -> Iterator[int]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "/a.cfg")
                self.end_headers()
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_comes_from_a_web_server(web: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.cfg").write_text("one\n")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert carry(f"http://127.0.0.1:{web}/a.cfg") == "one\n"
    with pytest.raises(TransferError, match=r"127\.0\.0\.1: .*File not found"):
        carry(f"http://127.0.0.1:{web}/none.cfg")
    with pytest.raises(TransferError, match=r"127\.0\.0\.1: "):
        carry(f"http://127.0.0.1:{web}/away")
    monkeypatch.setattr(transfers, "MAX_CONFIGURATION", 3)
    with pytest.raises(TransferError, match="more than 3 octets"):
        carry(f"http://127.0.0.1:{web}/a.cfg")


def test_a_server_that_is_not_there_or_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransferError, match=r"127\.0\.0\.1: "):
        carry("sftp://ann@127.0.0.1:1/a", None, PASSWORD)

    async def silent(*arguments: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(transfers, "TIMEOUT", 0.01)
    monkeypatch.setattr(transfers, "_by_ssh", silent)
    with pytest.raises(TransferError, match=r"can't connect to 127\.0\.0\.1: connection timed out"):
        carry("scp://ann@127.0.0.1/a", None, PASSWORD)
