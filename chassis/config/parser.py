"""Reading a configuration: from text to a typed configuration and what there is to say about it.

A line that the open mode does not know is tried in the modes around it, up to global configuration, and the
mode changes with it; `exit` is never needed. Prompts of transcripts are dropped and never decide a mode. A wrong
line has no effect and the rest is still read. No text makes this raise.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chassis.config.diagnostics import Diagnostic, Severity, in_order
from chassis.config.drafts import Frame, Line, Path, Place, root
from chassis.config.effects import CLASSES, DO, UNDO, is_secret
from chassis.config.grammar import MODES, Command, ancestors
from chassis.config.matcher import Failure, Match, program
from chassis.config.model import Config
from chassis.config.validate import check
from chassis.config.values import mask_length

HIDDEN = "***"
"""Stands for a word that may be a key, in the name of a diagnostic."""

Rest = Callable[[int], str]

_UNMATCHED = Failure(0, (), ())


@dataclass(frozen=True, slots=True)
class Parsed:
    """A configuration that was read, and its diagnostics in order of line and column."""

    config: Config
    diagnostics: tuple[Diagnostic, ...]
    places: dict[Path, Place] = field(repr=False, default_factory=dict)


class Reading:
    """Reads line by line, with the open modes as a stack; also what an interactive session would hold."""

    def __init__(self, file: str = "", config: Config | None = None, modern: bool = False) -> None:
        self.file = file
        self.modern = modern
        self.stack: list[Frame] = [root(config)]
        self.diagnostics: list[Diagnostic] = []
        self.places: dict[Path, Place] = {}
        self.broken: set[Path] = set()
        self.ended = False
        self.line = Line("", 0)
        self.match = Match(_NOTHING, {}, {})
        self._shift = 0
        self._failed = False
        self._noted: set[str] = set()

    # --- for the effects ---

    def push(self, frame: Frame) -> None:
        """Open a mode."""
        self.stack.append(frame)

    def place(self, index: int) -> Place:
        """Where a word of the matched command stands (its index counts without a leading `no`)."""
        return self.line.place(index + self._shift)

    def keep_places(self, path: Path) -> None:
        """Remember where each value of the line stands."""
        for name, index in self.match.places.items():
            self.places[(*path, name)] = self.line.place(index + self._shift)

    def keep_place(self, path: Path, name: str | None) -> None:
        """Remember where one value of the line stands, or the line itself, under a path of its own."""
        index = 0 if name is None else self.match.places[name] + self._shift
        self.places[path] = self.line.place(index)

    def report(
        self, severity: Severity, code: str, place: Place, message: str, hint: str = "", secret: bool = True
    ) -> None:
        """Say something about a word of the line; the hint is left out where it could show a key."""
        if severity == "error":
            self._failed = True
            self.broken.add(self.stack[-1].path)
        if hint and secret and is_secret(self.match.command):
            hint = ""
        self.diagnostics.append(
            Diagnostic(severity, code, place.word, self.file, place.line, place.column, message, hint)
        )

    # --- reading ---

    @property
    def mode(self) -> str:
        """The name of the open mode."""
        return self.stack[-1].mode

    def read_line(self, text: str, number: int = 0) -> None:
        """Read one line; what there is to say goes to `diagnostics`."""
        line = Line(text, number)
        words = line.words
        if not words:
            return
        self.line = line
        negative = words[0].lower() == "no" and len(words) > 1
        self._shift = 1 if negative else 0
        used = words[1:] if negative else words

        def rest(index: int) -> str:
            return line.rest(index + self._shift)

        best, at = _UNMATCHED, len(self.stack) - 1
        for depth in range(len(self.stack) - 1, -1, -1):
            frame = self.stack[depth]
            found = program(frame.mode, frame.variant, negative, self.modern).match(used, rest)
            if isinstance(found, Match):
                self._apply(found, depth, negative)
                return
            if found.position > best.position or best is _UNMATCHED:
                best, at = found, depth
        self.match = Match(_NOTHING, {}, {})
        if not self._misplaced(used, rest, negative, best):
            self._explain(best, at, used, negative)

    def config(self) -> Config:
        """The configuration as it stands, with the open modes closed."""
        while len(self.stack) > 1:
            self.stack.pop().close()
        config: Config = self.stack[0].freeze()
        return config

    def _apply(self, match: Match, depth: int, negative: bool) -> None:
        command = match.command
        if command.does == "control":
            self._control(command)
            return
        while len(self.stack) > depth + 1:
            self.stack.pop().close()
        self.match = match
        frame = self.stack[-1]
        if frame.void:
            if command.enters and not negative:
                self._push_void(command.enters)
            return
        self._failed = False
        (UNDO if negative else DO)[command.does](self, frame, command, match.values)
        if self._failed or command.standing not in ("accepted", "later"):
            return
        if not negative or command.does in ("keep", "switch", "idle"):
            self._note(command)

    def _control(self, command: Command) -> None:
        if command.id == "end":
            self.ended = True
        elif command.id == "exit" and len(self.stack) > 1:
            self.stack.pop().close()

    def _push_void(self, mode: str) -> None:
        parent = self.stack[-1]
        self.push(Frame(mode, CLASSES.get(mode, Config), {}, parent, path=(*parent.path, "?"), void=True))

    def _note(self, command: Command) -> None:
        if command.keywords in self._noted:
            return
        self._noted.add(command.keywords)
        place = self.line.place(self._shift)._replace(word=command.keywords)
        if command.kind != "config":
            self.report("note", "no-effect", place, f"`{command.keywords}` has no effect in a file")
        elif command.standing == "accepted":
            self.report("note", "no-effect", place, f"`{command.keywords}` is kept and has no effect here")
        else:
            about = f" ({command.feature})" if command.feature else ""
            self.report("note", "not-yet", place, f"`{command.keywords}` is kept and has no effect yet{about}")

    # --- wrong lines ---

    def _misplaced(self, words: Sequence[str], rest: Rest, negative: bool, best: Failure) -> bool:
        """Report a line that is right elsewhere; False when it is right nowhere."""
        if len(words) == 1 and len(words[0]) > 3 and "configure".startswith(words[0].lower()) and not negative:
            if len(self.stack) > 1:
                self.report("error", "misplaced", self.line.place(0), "configuration mode is open already")
            return True
        for frame in reversed(self.stack):
            if not frame.variant:
                continue
            found = program(frame.mode, "", negative, self.modern).match(words, rest)
            if isinstance(found, Match):
                self._report_variant(frame, found.command)
                return True
        if best.position > 1 or (negative and best.position > 0):
            return False
        open_modes = {frame.mode for frame in self.stack}
        # A first word that fits here may be short for something else, or another version's.
        paired = tuple(_PAIRED[mode] for mode in open_modes if mode in _PAIRED)
        for mode in (*paired, "exec") if best.position else (*paired, *_INWARDS[self.mode], *MODES):
            if mode in open_modes:
                continue
            found = program(mode, "", negative, self.modern).match(words, rest)
            if isinstance(found, Match):
                self._report_elsewhere(mode, found.command)
                return True
        return False

    def _report_variant(self, frame: Frame, command: Command) -> None:
        title = {
            "ikev1": "an IKEv1 policy",
            "ikev2": "an IKEv2 policy",
            "static": "a static tunnel",
            "on-demand": "an on-demand tunnel",
            "manual": "a manual tunnel",
        }
        hint = f"ike2 policy {frame.key}" if command.misplaced == "S-030" else ""
        where = " or ".join(title[variant] for variant in command.variants)
        where += " (and in the IPsec profile)" if command.id in ("tunnel.mtu", "tunnel.df-bit") else ""
        message = f"`{command.keywords}` stands only in {where}, this is {title[frame.variant]}"
        self._report_wrong(command.misplaced, 0, message, hint)

    def _report_elsewhere(self, mode: str, command: Command) -> None:
        frame = self.stack[-1]
        if frame.void:
            return
        hint = ""
        if command.misplaced == "S-068" and frame.mode == "ipsec-sa":
            message, code = "no direction chosen yet: choose both, in or out first", "S-068"
        elif command.misplaced == "S-023":
            message, code = _ASP_GROUP, "S-023"
        elif mode == "exec":
            message, code = (
                f"`{command.keywords}` is a command of exec mode, not of the configuration",
                "misplaced",
            )
            if command.misplaced != "misplaced":
                code = command.misplaced
        else:
            code = command.misplaced if frame.mode in _PAIRED else "misplaced"
            message = f"`{command.keywords}` belongs in {MODES[mode].title}"
        self._report_wrong(code, 0, message, hint)

    def _explain(self, failure: Failure, depth: int, words: Sequence[str], negative: bool) -> None:
        """Report a line that no mode knows, and open a void mode where it would have opened one."""
        frame = self.stack[depth]
        silent = frame.void and (failure.position > 0 or depth > 0)
        if failure.position == 0:
            silent = False
        if not silent:
            self._report_failure(failure, frame, words, negative)
        enters = {command.enters for command in failure.commands}
        if failure.position > 0 and len(enters) == 1 and "" not in enters and not negative:
            while len(self.stack) > depth + 1:
                self.stack.pop().close()
            self._push_void(enters.pop())

    def _report_failure(self, failure: Failure, frame: Frame, words: Sequence[str], negative: bool) -> None:
        line, position = self.line, failure.position + self._shift
        if failure.ambiguous:
            several = ", ".join(failure.ambiguous)
            self._report_wrong("ambiguous", position, f"this could be {several}")
        elif failure.position >= len(words):
            code = "S-023" if words[0] == "asp-group" else "incomplete"
            self._report_wrong(code, position, f"the line is incomplete: expected {_listed(failure.expected)}")
        elif failure.refusal is not None and failure.refusing is not None:
            self._report_refusal(failure, position)
        elif failure.may_end is not None and len(failure.commands) == 1:
            command = failure.may_end
            message, hint = "the line ends before this word", line.replaced(position, len(line.words) - 1, "")
            if command.id == "asp-group":
                message = "`asp group` names a group; to serve a context it is `asp-group`"
                hint = line.replaced(0, 1, "asp-group")
            self._report_wrong(command.surplus, position, message, hint, is_secret(command))
        else:
            codes = {command.code for command in failure.commands}
            code = codes.pop() if len(codes) == 1 and failure.position > 0 else "unknown"
            if code == "bad-value":
                code = "unknown"
            near = difflib.get_close_matches(words[failure.position].lower(), failure.expected, 1, 0.7)
            what = "no such command" if failure.position == 0 else f"expected {_listed(failure.expected)}"
            meant = self._meant(position, near[0], frame, negative) if near else None
            hint = line.replaced(position, position, near[0]) if meant and not is_secret(meant) else ""
            if code == "S-041":
                what = "a profile knows set and clear; leave the line out to have the inner bit copied"
            if words[0] == "lifetime" and frame.mode == "ipsec-proposal":
                code, hint = "S-003", line.replaced(0, 0, "lifetime seconds")
            if words[0] == "asp-group" and frame.mode == "global":
                code, what = "S-023", _ASP_GROUP
                hint = line.replaced(0, 0, "asp group") if len(words) == 2 else ""
            self._report_wrong(code, position, what, hint)
            if meant is not None and meant.enters and not negative:
                # What follows is meant for the object that the line would have opened.
                self._push_void(meant.enters)

    def _report_refusal(self, failure: Failure, position: int) -> None:
        refusal, command, line = failure.refusal, failure.refusing, self.line
        assert refusal is not None
        assert command is not None
        code = command.code if refusal.code == "bad-value" else refusal.code
        hint = line.replaced(position, position, refusal.instead) if refusal.instead else ""
        if refusal.instead.endswith("/32") and position + 1 < len(line.words):
            length = mask_length(line.words[position + 1])
            if length is not None:
                hint = line.replaced(position, position + 1, f"{line.words[position]}/{length}")
                self._report_wrong("S-097", position + 1, "a prefix length is expected, not a mask", hint)
                return
        hidden = is_secret(command) and position > 0
        self._report_wrong(code, position, refusal.why, "" if hidden else hint, hidden)

    def _report_wrong(self, code: str, index: int, message: str, hint: str = "", hidden: bool = False) -> None:
        place = self.line.place(index)
        if hidden:
            place = place._replace(word=HIDDEN)
            hint = ""
        self.report("error", code, place, message, hint)

    def _meant(self, position: int, word: str, frame: Frame, negative: bool) -> Command | None:
        """The command that the line is with a near keyword, if that makes it right."""
        words = [*self.line.words]
        words[position] = word
        found = program(frame.mode, frame.variant, negative, self.modern).match(
            words[self._shift :], lambda index: " ".join(words[index + self._shift :])
        )
        return found.command if isinstance(found, Match) else None


def _listed(expected: Sequence[str]) -> str:
    return ", ".join(expected[:8]) + (" ..." if len(expected) > 8 else "")


def _inwards(mode: str) -> tuple[str, ...]:
    return tuple(name for name in MODES if mode in ancestors(name))


_INWARDS = {mode: _inwards(mode) for mode in MODES}
_PAIRED = {"ike-proposal": "ike2-proposal", "ike2-proposal": "ike-proposal"}
_ASP_GROUP = "`asp-group` belongs in a context; the group itself is `asp group`"
_NOTHING = Command("", (), "", "", does="none")


def parse(text: str, file: str = "", config: Config | None = None, *, modern: bool = False) -> Parsed:
    """Read a configuration file (or a transcript), commit it once at its end and check it as a whole.

    With `config` the lines change that configuration; without, they start from an empty one. `modern`: names of
    the algorithms of today's peers are known too. Never raises on any text: what is wrong is in the diagnostics,
    and those lines have no effect.
    """
    reading = Reading(file, config, modern)
    read_line = reading.read_line
    for number, line in enumerate(text.split("\n"), 1):
        read_line(line, number)
        if reading.ended:
            break
    checked, found = check(reading.config(), reading.places, reading.broken, file)
    return Parsed(checked, in_order((*reading.diagnostics, *found)), reading.places)
