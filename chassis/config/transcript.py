"""Parts of a session transcript that are not configuration lines: prompts, headers, typed exec commands.

They are ignored without a diagnostic. The mode is never taken from a prompt.
"""

from __future__ import annotations

import re

BYTE_ORDER_MARK = "\ufeff"

_PROMPT = re.compile(
    r"\s*(?:\[[^\]\s]*\]\s?[\w.-]*)?\s*(?:\(?(?:config|cfg|context)[\w-]*\))?\s*[#>]+"
    r"(?:\((?:config|cfg)[\w-]*\)#?)?\s*",
    re.ASCII,
)
"""A prompt in a transcript, including the misprinted ones of the guide."""

_PAGER = re.compile(r"\s*-*\(more\)-*[\s\x08]*", re.ASCII)

_PRINTED = (
    r"building configuration\b.*"
    r"|current configuration\b.*"
    r"|enter configuration commands, one per line\b.*"
    r"|transaction (?:committed|aborted)\W*"
    r"|%.*|\^"
)
"""Lines that the router prints around those that are typed."""

_OUTPUT = re.compile(_PRINTED, re.ASCII | re.IGNORECASE)

_HEADER = re.compile(
    _PRINTED
    + r"|(?:show|sho|sh) (?:conf|confi|config|configu|configur|configura|configurat|configurati|configuratio"
    r"|configuration)(?: \|.*)?"
    r"|term(?:inal)? (?:length|len|width) \d+"
    r"|save(?: (?:conf\w*|\S+[:/.]\S*))*"
    r"|save to file:.*"
    r"|target file exists, overwrite\?.*"
    r"|(?:login|password):.*"
    r"|enable(?: \d+)?|disable"
    r"|(?:y|n|yes)",
    re.ASCII | re.IGNORECASE,
)
"""Lines that the router prints around a configuration, and commands that show, load or save one."""


MAX_LINE_CHARACTERS = 4096
"""Length (characters) of the longest line: more than any command needs, and short enough for messages."""

_UNFIT = re.compile("[\0\ud800-\udfff]")


def unfit(text: str) -> tuple[int, str] | None:
    """Return (offset, reason) if a line cannot be kept: it has NUL or half of a surrogate pair, or is too long."""
    found = _UNFIT.search(text, 0, MAX_LINE_CHARACTERS)
    if found is not None:
        return found.start(), f"character U+{ord(found[0]):04X} is none that a configuration can have"
    if len(text) > MAX_LINE_CHARACTERS:
        return MAX_LINE_CHARACTERS, f"the line has {len(text)} characters: at most {MAX_LINE_CHARACTERS} are taken"
    return None


def prompt_end(text: str) -> int:
    """Return the offset after the pager's mark and the prompts of a line; 0 if it has neither."""
    end = 0
    while True:
        start = text[end : end + 1]
        if start not in ("[", "#", "(", ">", "c", "-", " ", "\t"):
            return end
        found = _PAGER.match(text, end) or _PROMPT.match(text, end)
        if found is None or found.end() == end:
            return end
        end = found.end()


def is_header(words: list[str]) -> bool:
    """Return whether the words are a line that the router prints around a configuration, or an exec command."""
    return words[0][0] in "BbCcDdEeLlNnPpSsTtYy%^" and _HEADER.fullmatch(" ".join(words)) is not None


def is_output(text: str) -> bool:
    """Return whether a line is what the router prints in configuration mode, as in a transcript."""
    return _OUTPUT.fullmatch(" ".join(text.split())) is not None
