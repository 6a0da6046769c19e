"""What IKE counts: for the ASP, for each version, and for each tunnel."""

from __future__ import annotations

VERSIONS = {0: "", 1: "v1 ", 2: "v2 "}


class Statistics:
    """Numbers by name. A name is in the words that people read: `begun`, `done`, `failed no answer`."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        """Of the ASP, each name once with its version before it (`v2 negotiations initiated`) where it has one."""
        self.tunnels: dict[int, dict[str, int]] = {}
        self._unnamed: dict[bytes, dict[str, int]] = {}
        """Of negotiations whose tunnel is not known yet, by our SPI."""

    def count(self, name: str, version: int, tunnel: int, number: int = 1, spi: bytes = b"") -> None:
        """Where the `tunnel` is not known (0) the negotiation with our `spi` keeps it until it is."""
        key = VERSIONS.get(version, "") + name
        self.total[key] = self.total.get(key, 0) + number
        if tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
        elif spi:
            counts = self._unnamed.setdefault(spi, {})
        else:
            return
        counts[name] = counts.get(name, 0) + number

    def credit(self, spi: bytes, tunnel: int) -> None:
        """A negotiation is this tunnel's, as is now known; 0: it ended without being any one's."""
        kept = self._unnamed.pop(spi, None)
        if kept is not None and tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
            for name, number in kept.items():
                counts[name] = counts.get(name, 0) + number

    @property
    def held(self) -> int:
        """Negotiations whose tunnel is not known yet."""
        return len(self._unnamed)

    def forget(self, tunnel: int) -> None:
        """The tunnel is gone; the ASP's numbers stay."""
        self.tunnels.pop(tunnel, None)
