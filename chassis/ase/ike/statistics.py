"""What IKE counts: for the ASP, for each version, and for each tunnel."""

from __future__ import annotations

VERSIONS = {0: "", 1: "v1 ", 2: "v2 "}


class Statistics:
    """Numbers by name. A name is in the words that people read: `begun`, `done`, `failed no answer`."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        """Of the ASP, each name once with its version before it (`v2 begun`) where it has one."""
        self.tunnels: dict[int, dict[str, int]] = {}

    def count(self, name: str, version: int, tunnel: int, number: int = 1) -> None:
        key = VERSIONS[version] + name
        self.total[key] = self.total.get(key, 0) + number
        if tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
            counts[name] = counts.get(name, 0) + number

    def forget(self, tunnel: int) -> None:
        """The tunnel is gone; the ASP's numbers stay."""
        self.tunnels.pop(tunnel, None)
