"""Parser: from the text of a configuration to the typed configuration and its diagnostics.

A line that the open mode does not know is tried in the enclosing modes, up to global configuration, and the mode
changes with it; `exit` is never needed. Prompts and headers of transcripts are ignored. A line that misuses a
command is an error: it has no effect and the rest is still read. A line that matches no command is kept in its
place, with the deeper-indented lines below it. The parser does not raise, whatever the text is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chassis.config.diagnostics import Diagnostic, in_order
from chassis.config.drafts import Frame, KeptDraft, Path, SourceLine, SourcePosition, indent_of
from chassis.config.effects import DEFAULT_EFFECTS, EFFECTS, NO_EFFECTS
from chassis.config.grammar import MODES, Command, OptionalPart
from chassis.config.kept import CIRCUIT, PAIRED, anchor, misuses, with_clear_rest, with_encrypted_rest
from chassis.config.matcher import PREFIXES, Failure, Match, compiled_grammar
from chassis.config.objects import CLASSES
from chassis.config.parse_session import NO_COMMAND, ParseSession
from chassis.config.render import with_printed_anchors
from chassis.config.secrets import EncryptedFormError, RouterSecret, encrypted
from chassis.config.transcript import is_header, unfit
from chassis.config.validate import check, check_change
from chassis.config.values import HIDDEN_VALUE, mask_length
from chassis.model.ike import PreSharedKey
from chassis.model.ipsec import Key
from chassis.model.router import Config

Rest = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A parsed configuration, and its diagnostics in order of line and column.

    `checks` are those that the checks found, of the objects in `checked`; of all objects where it is None.
    """

    config: Config
    diagnostics: tuple[Diagnostic, ...]
    positions: dict[Path, SourcePosition] = field(repr=False, default_factory=dict)
    checks: tuple[Diagnostic, ...] = ()
    checked: frozenset[Path] | None = None


class _Block(NamedTuple):
    """A block of lines without effect: all lines deeper than `indent`. Each is kept `level` deeper in `draft`."""

    indent: int
    level: int
    draft: KeptDraft | None


class Parser(ParseSession):
    """Reads a text line by line.

    `flat`: all lines have the same indentation, as in a script or at a prompt. The stack of open modes then
    decides the mode of a line that matches no command; otherwise its indentation does.

    `typed`: the lines are an operator's. One that matches no command is an error then, as on the router.

    `secret` is that of the router whose configuration it is. None: it is not known, and an encrypted form stands
    for a key that is `opaque`; a configuration with such keys is not for a router.
    """

    def __init__(
        self,
        file: str = "",
        config: Config | None = None,
        modern: bool = False,
        flat: bool = True,
        typed: bool = False,
        secret: RouterSecret | None = None,
    ) -> None:
        super().__init__(file, config)
        self.modern = modern
        self.secret = secret
        self.flat = flat
        self.typed = typed
        self.ended = False
        self.resets = False
        """Whether the line begins with `default`."""
        self.has_kept = False
        """True after a line was kept."""
        self._reported_words: set[str] = set()
        self._unknown: set[str] = set()
        self._shared: dict[frozenset[str], frozenset[str]] = {}
        self._block: _Block | None = None
        self._skip_below: int | None = None
        """Indentation of a line that cannot be kept, while the lines below it are skipped; otherwise None."""

    # --- reading ---

    def read_line(self, text: str, number: int = 0) -> None:
        """Read one line and add its diagnostics."""
        line = SourceLine(text, number)
        words = line.words
        if not words or is_header(words):
            return
        self.line = line
        if self._skip_below is not None and line.indent > self._skip_below:
            # It belongs to the object that the wrong line before would have opened.
            return
        self._skip_below = None
        if fault := unfit(line.text):
            self._unfit(*fault)
            return
        if self._block is not None:
            if line.indent > self._block.indent:
                top = self.stack[-1]
                if top.draft is not None and top.inner is None:
                    top.inner = line.indent
                kept = self._kept_text()
                if kept is not None:
                    self._add_kept(self._block, *kept)
                return
            self._block = None
        negative = words[0].lower() in PREFIXES and len(words) > 1
        self.resets = negative and words[0].lower() == "default"
        self.shift = 1 if negative else 0
        used = words[1:] if negative else words

        def rest(index: int) -> str:
            return line.rest(index + self.shift)

        while self.stack[-1].draft is not None and not self._continues_mode(self.stack[-1], used, rest, negative):
            self.stack.pop()
        failures: list[tuple[Failure, int]] = []
        for depth in range(len(self.stack) - 1, -1, -1):
            frame = self.stack[depth]
            found = compiled_grammar(frame.mode, frame.variant, negative, self.modern).match(used, rest)
            if isinstance(found, Failure):
                failures.append((found, depth))
            elif found.command.kind != "config" or found.command.does == "control":
                self._apply(found, depth, negative)
                return
            elif frame.draft is not None:
                self._keep(depth, found.command.enters if not negative else "")
                return
            elif found.command.does != "foreign":
                self._apply(found, depth, negative)
                return
            elif depth <= self._depth_by_indent():
                self._keep_foreign(found.command, depth, negative)
                return
        self.match = Match(NO_COMMAND, {}, {})
        if self._report_misplaced(used, rest, negative, _furthest(failures)[0]):
            return
        wrong = [one for one in failures if self.stack[one[1]].draft is None and misuses(one[0], negative)]
        if wrong:
            self._report_misuse(*_furthest(wrong), used, negative)
        elif not self._report_coded(used, negative):
            self._keep_unknown(failures, used, negative)

    def config(self) -> Config:
        """Close the open modes and return the configuration."""
        self._close(0)
        config: Config = self.stack[0].freeze()
        return config

    def _apply(self, match: Match, depth: int, negative: bool) -> None:
        command = match.command
        if command.does == "control":
            self._control(command)
            return
        self._close(depth)
        self.match = match
        frame = self.stack[-1]
        if frame.inner is None and command.kind == "config":
            frame.inner = self.line.indent
        if frame.discarded:
            if command.enters and not negative:
                self._push_discarded(command.enters)
            return
        self.failed = False
        if command.has_secret and not negative and not self._encrypt_keys(match):
            return
        effects = DEFAULT_EFFECTS if self.resets else NO_EFFECTS if negative else EFFECTS
        effects[command.does](self, frame, command, match.values)
        if not self.failed and command.kind == "config":
            frame.after = anchor(command, match.values)
            self._mark_written(frame, command, negative)
        if self.failed or (command.kind == "config" and command.standing != "accepted"):
            return
        if not negative or command.does in ("keep", "switch", "idle"):
            self._report_no_effect(command)

    def _encrypt_keys(self, match: Match) -> bool:
        """Give each key of the line its encrypted form; return False for one that this router cannot read, and for
        the sign that stands for a key which was not shown."""
        for name, value in match.values.items():
            if isinstance(value, PreSharedKey | Key) and value.value == HIDDEN_VALUE.encode():
                what = f"{HIDDEN_VALUE} stands for a key that was not shown: give the key itself"
                self._report_wrong("S-022", match.word_index[name] + self.shift, what, hidden=True)
                return False
            if self.secret is None:
                continue
            try:
                match.values[name] = encrypted(value, self.secret)
            except EncryptedFormError as error:
                self._report_wrong("encrypted", match.word_index[name] + self.shift, str(error), hidden=True)
                return False
        return True

    def _mark_written(self, frame: Frame, command: Command, negative: bool) -> None:
        """Remember that a setting was typed, so that it is printed back even if it has its default value."""
        if command.does not in ("set", "flag", "shutdown") or "written" not in frame.fields:
            return
        line = f"no {command.id}" if negative else command.id
        written = frame.fields["written"] - {command.id, f"no {command.id}"}
        if not self.resets and (not negative or command.does == "flag"):
            written |= {line}
        frame.fields["written"] = self._shared.setdefault(written, written)

    def _control(self, command: Command) -> None:
        if command.id == "end":
            self.ended = True
        elif command.id == "exit" and len(self.stack) > 1:
            self.stack.pop().close()

    def _push_discarded(self, mode: str) -> None:
        parent = self.stack[-1]
        self.push(Frame(mode, CLASSES.get(mode, Config), {}, parent, path=(*parent.path, "?"), discarded=True))

    def _report_no_effect(self, command: Command) -> None:
        if command.keywords in self._reported_words:
            return
        self._reported_words.add(command.keywords)
        place = self.line.position(self.shift)._replace(word=command.keywords)
        if command.kind != "config":
            self.report("note", "no-effect", place, f"`{command.keywords}` has no effect in a file")
        else:
            self.report("note", "no-effect", place, f"`{command.keywords}` is kept and has no effect here")

    # --- lines without effect ---

    def _close(self, depth: int) -> None:
        """Leave the modes inside the one of this depth."""
        while len(self.stack) > depth + 1:
            self.stack.pop().close()

    def _is_flat(self, frame: Frame) -> bool:
        """Return whether lines of a mode may have the indentation of its opening line."""
        if frame.inner is not None:
            return frame.inner == frame.indent
        around = frame.parent
        return self.flat if around is None or around.parent is None else around.indent == frame.indent

    def _continues_mode(self, frame: Frame, words: Sequence[str], rest: Rest, negative: bool) -> bool:
        """Return whether the line may belong to a mode without effect."""
        if self.line.indent != frame.indent:
            return False
        if self._is_flat(frame):
            return True
        # A circuit takes the lines that it knows even if they are not indented, as on the router.
        return (
            frame.mode == CIRCUIT
            and frame.inner is None
            and isinstance(compiled_grammar(frame.mode, "", negative, self.modern).match(words, rest), Match)
        )

    def _depth_by_indent(self) -> int:
        """Return the depth of the mode that the line belongs to by its indentation."""
        indent = self.line.indent
        for depth in range(len(self.stack) - 1, 0, -1):
            frame = self.stack[depth]
            if indent > frame.indent or (indent == frame.indent and self._is_flat(frame)):
                return depth
        return 0

    def _keep(self, depth: int, enters: str = "") -> None:
        """Keep the line and the lines below it in the mode of this depth; `enters` is the mode that it opens."""
        self._close(depth)
        frame, indent = self.stack[-1], self.line.indent
        if frame.discarded:
            self._block = _Block(indent, 0, None)
            return
        kept = self._kept_text()
        if kept is None:
            self._skip_below = indent
            return
        self.has_kept = True
        draft = frame.draft
        if draft is None:
            draft = frame.add_kept()
        self._block = _Block(indent, frame.level, draft)
        self._add_kept(self._block, *kept)
        if enters:
            opened = Frame(enters, Config, {}, frame, path=(*frame.path, "?"))
            opened.draft, opened.level = draft, frame.level + 1
            self.push(opened)

    def _add_kept(self, block: _Block, text: str, shown: str | None) -> None:
        """Add the line to a block."""
        if block.draft is not None:
            blanks = " " * (block.level + self.line.indent - block.indent)
            block.draft.add(blanks + text, None if shown is None else blanks + shown)

    def _kept_text(self) -> tuple[str, str | None] | None:
        """Return the line as it is kept, and as it is printed without keys; None if this router cannot read it."""
        text = self.line.body
        if self.secret is None:
            return text, None
        try:
            text = with_clear_rest(text, self.secret)
        except EncryptedFormError as error:
            self._report_wrong("encrypted", len(self.line.words) - 1, str(error), hidden=True)
            return None
        return text, with_encrypted_rest(text, self.secret)

    def _keep_foreign(self, command: Command, depth: int, negative: bool) -> None:
        """Keep a line that is right on the router and has no effect here."""
        home = self._depth_by_indent()
        if depth < home and any(frame.indent < self.line.indent for frame in self.stack[depth + 1 :]):
            # It is inside a mode that does not know it, so it is not a line of an enclosing mode.
            depth = home
        last = sum(not isinstance(element, OptionalPart) for element in command.elements) - 1
        self._warn_unknown(0, last, "is not a part of the emulated router", "", depth)
        self._keep(depth, command.enters if not negative else "")

    def _keep_unknown(self, failures: Sequence[tuple[Failure, int]], words: Sequence[str], negative: bool) -> None:
        """Keep a line that no mode knows. If it opens a mode, or nearly does, also keep the lines after it."""
        home, enters, hint = self._depth_by_indent(), "", ""
        elsewhere = self._foreign(words, negative)
        if elsewhere is not None:
            enters = elsewhere.enters
            if self.line.indent == self.stack[home].indent:
                # It leaves the modes that do not know it, as on the router.
                home = 0
        else:
            meant, hint = self._nearest(failures, words, negative)
            enters = meant.enters if meant is not None else ""
        at = _furthest(failures)[0].position
        if self.typed and elsewhere is None:
            self._refuse_unknown(at, hint, "" if negative else enters)
            return
        self._warn_unknown(at, 0, "is not a command here", hint, home)
        self._keep(home, "" if negative else enters)

    def _refuse_unknown(self, position: int, hint: str, enters: str) -> None:
        """Report a typed line that no mode knows, by its first word: the others may be a key."""
        if not self.stack[-1].discarded:
            self.match = Match(NO_COMMAND, {}, {})
            first = self.line.words[self.shift]
            place = self.line.position(self.shift + position)._replace(word=first)
            self.report("error", "unknown", place, f"`{first}`: this line is not a command here", hint)
        if enters:
            self._push_discarded(enters)

    def _foreign(self, words: Sequence[str], negative: bool) -> Command | None:
        """Return the command without effect that a line matches in a mode that is not open."""
        for mode in ("context", "global"):
            found = compiled_grammar(mode, "", negative).match(words, lambda index: "")
            if isinstance(found, Match) and found.command.does == "foreign":
                return found.command
        return None

    def _nearest(
        self, failures: Sequence[tuple[Failure, int]], words: Sequence[str], negative: bool
    ) -> tuple[Command | None, str]:
        """Return the command that a line would match with one word changed, and that line if it may be shown."""
        position = _furthest(failures)[0].position
        for failure, depth in failures:
            if failure.position < position or position >= len(words):
                continue
            for word in difflib.get_close_matches(words[position].lower(), failure.expected, 1, 0.7):
                meant = self._command_with_word(position + self.shift, word, self.stack[depth], negative)
                if meant is not None:
                    at = position + self.shift
                    return meant, "" if meant.has_secret else self.line.replaced(at, at, word)
        return None, ""

    def _warn_unknown(self, position: int, last: int, what: str, hint: str, depth: int) -> None:
        """Warn, once for each first word, that a line is kept.

        The message has the words of the line up to `last`, as the grammar knows them: the others may be a key.
        `position` is that of the word that is wrong.
        """
        first = self.line.words[self.shift].lower()
        if first in self._unknown or self.stack[depth].discarded:
            return
        self._unknown.add(first)
        self.match = Match(NO_COMMAND, {}, {})
        words = " ".join(self.line.words[self.shift : self.shift + last + 1])
        place = self.line.position(self.shift + position)
        if position and not hint:
            # No command was nearly meant: it may be a key.
            place = place._replace(word=HIDDEN_VALUE)
        self.report("warning", "unknown", place, f"`{words}` {what}: kept without effect", hint)

    # --- wrong lines ---

    def _report_misplaced(self, words: Sequence[str], rest: Rest, negative: bool, best: Failure) -> bool:
        """Report a line that is right elsewhere and wrong here by a decision; return False for other lines."""
        if len(words) == 1 and len(words[0]) > 3 and "configure".startswith(words[0].lower()) and not negative:
            if len(self.stack) > 1:
                self.report("error", "misplaced", self.line.position(0), "configuration mode is open already")
            return True
        for frame in reversed(self.stack):
            if not frame.variant:
                continue
            found = compiled_grammar(frame.mode, "", negative, self.modern).match(words, rest)
            if isinstance(found, Match) and found.command.does != "foreign":
                self._report_variant(frame, found.command)
                return True
        if best.position > 1 or (negative and best.position > 0):
            return False
        # A first word that matches here may be an abbreviation of another command, or of the other IKE version.
        open_modes = {frame.mode for frame in self.stack}
        elsewhere = [PAIRED[mode] for mode in open_modes if mode in PAIRED and PAIRED[mode] not in open_modes]
        if "context" not in open_modes and not best.position:
            elsewhere.append("context")
        for mode in (*elsewhere, "exec"):
            found = compiled_grammar(mode, "", negative, self.modern).match(words, rest)
            if isinstance(found, Match) and (mode != "context" or found.command.misplaced == "S-023"):
                self._report_elsewhere(mode, found.command)
                return True
        return False

    def _report_coded(self, words: Sequence[str], negative: bool) -> bool:
        """Report a line that matches too little of any command, but has a diagnostic of its own."""
        frame = self.stack[-1]
        position, code, message, hint = self.shift, "S-023", _ASP_GROUP, ""
        if words[0] == "asp-group" and len(words) > 1:
            hint = self.line.replaced(0, 0, "asp group") if len(words) == 2 and frame.mode == "global" else ""
        elif words[0].lower() == "show":
            # All `show` lines are without effect, and are not lines of a configuration.
            if "show" not in self._reported_words:
                self._reported_words.add("show")
                self.report("note", "no-effect", self.line.position(0), "`show` has no effect in a file")
            return True
        elif words[0] == "lifetime" and frame.mode == "ipsec-proposal" and len(words) > 1:
            position, code, message = position + 1, "S-003", "expected kbytes, seconds"
            hint = self.line.replaced(0, 0, "lifetime seconds")
        else:
            return False
        if not frame.discarded:
            self._report_wrong(code, position, message, hint)
        return True

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
        message = f"`{command.keywords}` is valid only in {where}, this is {title[frame.variant]}"
        self._report_wrong(command.misplaced, 0, message, hint)

    def _report_elsewhere(self, mode: str, command: Command) -> None:
        frame = self.stack[-1]
        if frame.discarded:
            return
        code = command.misplaced
        if command.misplaced == "S-068":
            message = "no direction chosen yet: choose both, in or out first"
        elif command.misplaced == "S-023":
            message = _ASP_GROUP
        elif mode == "exec":
            message = f"`{command.keywords}` is a command of exec mode, not of the configuration"
        else:
            message = f"`{command.keywords}` belongs in {MODES[mode].title}"
        self._report_wrong(code, 0, message)

    def _report_misuse(self, failure: Failure, depth: int, words: Sequence[str], negative: bool) -> None:
        """Report a line that misuses a command, and discard the mode where it would have opened one."""
        frame = self.stack[depth]
        if not frame.discarded:
            self._report_failure(failure, frame, words, negative)
        enters = {command.enters for command in failure.commands if command.does != "foreign"}
        if failure.position > 0 and len(enters) == 1 and "" not in enters and not negative:
            self._close(depth)
            self._push_discarded(enters.pop())

    def _report_failure(self, failure: Failure, frame: Frame, words: Sequence[str], negative: bool) -> None:
        line, position = self.line, failure.position + self.shift
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
            self._report_wrong(command.surplus, position, message, hint, command.has_secret)
        else:
            codes = {command.code for command in failure.commands}
            code = codes.pop() if len(codes) == 1 and failure.position > 0 else "unknown"
            if code == "bad-value":
                code = "unknown"
            near = difflib.get_close_matches(words[failure.position].lower(), failure.expected, 1, 0.7)
            what = f"expected {_listed(failure.expected)}"
            meant = self._command_with_word(position, near[0], frame, negative) if near else None
            hint = line.replaced(position, position, near[0]) if meant and not meant.has_secret else ""
            if code == "S-041":
                what = "a profile knows set and clear; leave the line out to have the inner bit copied"
            hidden = failure.position > 0 and any(command.has_secret for command in failure.commands)
            self._report_wrong(code, position, what, hint, hidden)
            if meant is not None and meant.enters and not negative:
                # The next lines belong to the object that this line would have opened.
                self._push_discarded(meant.enters)

    def _report_refusal(self, failure: Failure, position: int) -> None:
        refusal, command, line = failure.refusal, failure.refusing, self.line
        assert refusal is not None
        assert command is not None
        code = command.code if refusal.code == "bad-value" else refusal.code
        hint = line.replaced(position, position, refusal.suggestion) if refusal.suggestion else ""
        if refusal.suggestion.endswith("/32") and position + 1 < len(line.words):
            length = mask_length(line.words[position + 1])
            if length is not None:
                hint = line.replaced(position, position + 1, f"{line.words[position]}/{length}")
                self._report_wrong("S-097", position + 1, "a prefix length is expected, not a mask", hint)
                return
        hidden = command.has_secret and position > 0
        self._report_wrong(code, position, refusal.reason, "" if hidden else hint, hidden)

    def _unfit(self, at: int, what: str) -> None:
        """Report a line that cannot be kept, without its text: it may contain a key."""
        self._block, self._skip_below, self.shift = None, self.line.indent, 0
        self.match = Match(NO_COMMAND, {}, {})
        place = self.line.position(0)._replace(word=HIDDEN_VALUE, column=at + 1)
        self.report("error", "bad-text", place, what)

    def _report_wrong(self, code: str, index: int, message: str, hint: str = "", hidden: bool = False) -> None:
        place = self.line.position(index)
        if hidden:
            place = place._replace(word=HIDDEN_VALUE)
            hint = ""
        self.report("error", code, place, message, hint)

    def _command_with_word(self, position: int, word: str, frame: Frame, negative: bool) -> Command | None:
        """Return the command that the line matches with a similar keyword, if that makes it right."""
        words = [*self.line.words]
        words[position] = word
        found = compiled_grammar(frame.mode, frame.variant, negative, self.modern).match(
            words[self.shift :], lambda index: " ".join(words[index + self.shift :])
        )
        return found.command if isinstance(found, Match) else None


def _listed(expected: Sequence[str]) -> str:
    return ", ".join(expected[:8]) + (" ..." if len(expected) > 8 else "")


def _furthest(failures: Sequence[tuple[Failure, int]]) -> tuple[Failure, int]:
    """Return the failure that matched most of the line; of several, that of the innermost mode."""
    return max(failures, key=lambda one: one[0].position)


def is_flat(lines: Sequence[str]) -> bool:
    """Return whether all lines of a file, except comments, have the same indentation."""
    first: int | None = None
    for line in lines:
        body = line.lstrip()
        if not body or body[0] == "!":
            continue
        indent = indent_of(line[: len(line) - len(body)])
        if first is None:
            first = indent
        elif indent != first:
            return False
    return True


_ASP_GROUP = "`asp-group` belongs in a context; the group itself is `asp group`"


def parse(
    text: str,
    file: str = "",
    config: Config | None = None,
    *,
    modern: bool = False,
    typed: bool = False,
    whole: bool = True,
    secret: RouterSecret | None = None,
) -> Parsed:
    """Read a configuration file (or a transcript), commit it once at its end and check it.

    With `config`, which was checked before, the lines change that configuration, and what they affect is checked.
    Otherwise they change an empty one, and the whole is checked. `modern`: also accept the algorithms that the
    guide does not have. `secret` is that of the router, and `typed`: the lines are an operator's, see `Parser`.
    `whole` False: leave the checks out. Errors in the text do not raise: they are in the diagnostics. Their lines
    have no effect.
    """
    lines = text.split("\n")
    parser = Parser(file, config, modern, is_flat(lines), typed, secret)
    read_line = parser.read_line
    for number, line in enumerate(lines, 1):
        read_line(line, number)
        if parser.ended:
            break
    made = parser.config()
    checks: tuple[Diagnostic, ...] = ()
    checked: frozenset[Path] | None = None
    if whole and config is None:
        made, checks = check(made, parser.positions, parser.broken, file)
    elif whole and config is not None:
        change = check_change(config, made, parser.positions, parser.broken, file)
        made, checks, checked = change.config, change.found, change.owners
    if parser.has_kept:
        made = with_printed_anchors(made)
    return Parsed(made, in_order((*parser.diagnostics, *checks)), parser.positions, checks, checked)
