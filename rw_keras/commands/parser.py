"""Reading a command line: flags of one program, in any usual spelling, and the text of `--help`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# Columns of a help text, and those that the flags' names take.
_WIDTH, _NAMES = 100, 25


class UsageError(Exception):
    """The command line is wrong; the message says how."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a flag takes.

    Attributes:
        read: from the text to the value; its ValueError says what to give.
        metavar: what stands for the value in a help text.
    """

    read: Callable[[str], Any]
    metavar: str


def whole_number(low: int | None = None, high: int | None = None) -> Kind:
    """Whole numbers from `low` to `high`, both included."""
    return Kind(lambda text: _within(text, int, low, high, "a whole number"), "N")


def number(low: float | None = None, high: float | None = None) -> Kind:
    """Finite numbers from `low` to `high`, both included."""
    return Kind(lambda text: _within(text, float, low, high, "a number"), "X")


def _within(text, read, low, high, words):
    try:
        value = read(text)
        good = math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
    except (ValueError, OverflowError):
        good = False
    if good:
        return value
    bounds = "" if low is None else f" of {low} or more" if high is None else f" in [{low}, {high}]"
    raise ValueError(f"give {words}{bounds}")


def numbers() -> Kind:
    """Numbers with commas between."""

    def read(text):
        try:
            return [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError("it takes numbers with commas between, such as 1,0.7071,0.5") from None

    return Kind(read, "X,X,...")


def one_of(choices: Iterable[str], metavar: str = "NAME") -> Kind:
    """One of several words."""
    choices = tuple(choices)

    def read(text):
        if text not in choices:
            raise ValueError(f"value should be one of <{'|'.join(choices)}>")
        return text

    return Kind(read, metavar)


def or_none(kind: Kind) -> Kind:
    """What another kind takes, or the word none, which is `None`."""

    def read(given):
        if given.lower() == "none":
            return None
        try:
            return kind.read(given)
        except ValueError as error:
            raise ValueError(f"{error}, or none") from None

    return Kind(read, f"{kind.metavar}|none")


def text(metavar: str) -> Kind:
    """Any text, such as the name of a file."""
    return Kind(str, metavar)


def _boolean(given):
    if given.lower() in ("true", "t", "1"):
        return True
    if given.lower() in ("false", "f", "0"):
        return False
    raise ValueError("give true or false, or the flag alone")


_SWITCH = Kind(_boolean, "")


class _Flag(argparse.Action):
    """Reads a flag's value, and notes that it was given."""

    def __init__(self, option_strings, dest, *, kind, short=None, repeat=False, **keywords):
        super().__init__(option_strings, dest, **keywords)
        self.kind, self.short, self.repeat = kind, short, repeat

    def __call__(self, parser, values, given, option_string=None):
        given = "--" if given == [] else given  # so some versions of argparse hand it on
        try:
            value = self.kind.read(given)
        except ValueError as error:
            raise UsageError(f"flag --{self.dest}={given}: {error}") from None
        if self.repeat:
            value = [*(getattr(values, self.dest) if self.dest in values.given else ()), value]
        setattr(values, self.dest, value)
        values.given.add(self.dest)

    def in_help(self):
        """Its two columns in a help text."""
        short = f"-{self.short}, " if self.short else ""
        default = self.default if isinstance(self.default, (list, tuple)) else [self.default]
        stated = ", ".join(f"{one:g}" if isinstance(one, float) else f"{one}" for one in default if one not in (None, ""))
        stated = f" Default: {stated}." if stated and self.kind is not _SWITCH else ""
        return f"  {short}--{self.dest} {self.kind.metavar}".rstrip(), self.help + stated


class Parser(argparse.ArgumentParser):
    """The flags of one program.

    A flag is written `--max_side 5`, `--max_side=5` or `--max-side=5`, before or after other arguments; a switch `--json`,
    `--nojson` or `--json=false`. After `--` nothing is a flag. Names are not abbreviated. What was parsed has an attribute for each
    flag, `given`, the names of those that were given, and `arguments`, all else.

    Args:
        description: of the program, for `--help`: paragraphs, which are filled, and indented lines, which stay as they are.
        keywords: see `argparse.ArgumentParser`.
    """

    def __init__(self, *, description: str | None = None, **keywords: Any) -> None:
        super().__init__(description=description, add_help=False, allow_abbrev=False, **keywords)
        self._sections: dict[str, list[_Flag]] = {}
        # A way to write a flag -> its name, the value that this means if it takes none, and whether it is an earlier name.
        self._spellings: dict[str, tuple[str, str | None, bool]] = {}
        self._required: list[str] = []
        self.add_argument("arguments", nargs="*")
        self.section("Flags")
        self.switch("help", "Print this text.", short="h")

    def section(self, title: str) -> None:
        """Puts the flags that follow under a title of the help text."""
        self._current = self._sections.setdefault(title, [])

    def flag(
        self,
        name: str,
        words: str,
        kind: Kind,
        default: Any = None,
        *,
        short: str | None = None,
        repeat: bool = False,
        required: bool = False,
        earlier: Sequence[str] | Mapping[str, str] = (),
    ) -> None:
        """Adds a flag that takes a value.

        Args:
            name: with underscores between its words.
            words: for the help text.
            kind: what it takes.
            default: its value where it is not given.
            short: a letter, for `-o`.
            repeat: whether it may be given several times; its value is then a list.
            required: whether it has to be given.
            earlier: names that it had, which go on working and tell the present one. Those of a mapping took no value: each meant
                the one that it is mapped to.
        """
        self._add(name, kind, words, default, short=short, repeat=repeat)
        if required:
            self._required.append(name)
        for known in earlier:
            self._spellings[known] = name, earlier[known] if isinstance(earlier, Mapping) else None, True

    def switch(self, name: str, words: str, *, short: str | None = None, earlier: Sequence[str] = ()) -> None:
        """Adds a flag that is on or off, and off where it is not given."""
        self._add(name, _SWITCH, words, False, short=short)
        for known in (name, *earlier):
            self._spellings[f"no{known}"] = name, "false", known != name
        for known in earlier:
            self._spellings[known] = name, "true", True

    def _add(self, name, kind, words, default, **keywords):
        action = self.add_argument(f"--{name}", dest=name, action=_Flag, kind=kind, default=default, help=words, **keywords)
        self._current.append(action)
        for spelling in (name, action.short) if action.short else (name,):
            self._spellings[spelling] = name, None, False

    def flags(self) -> dict[str, Kind]:
        """The flags by their names."""
        return {flag.dest: flag.kind for flags in self._sections.values() for flag in flags}

    def parse_known_args(self, args=None, namespace=None):
        """See `argparse.ArgumentParser`; a command line that is wrong raises a `UsageError`."""
        values = argparse.Namespace() if namespace is None else namespace
        values.given = set()
        found, rest = super().parse_known_args(self._plain(sys.argv[1:] if args is None else args), values)
        missing = [f"--{name}" for name in self._required if name not in found.given]
        if missing and not found.help:
            raise UsageError(f"give {' and '.join(missing)}; --help says what for")
        return found, rest

    def error(self, message):
        raise UsageError(message)

    def _plain(self, arguments):
        """The same command line as argparse cannot take otherwise: `--flag=value` each, then `--`, then all that are no flags."""
        flags, others, named = [], [], {}
        waiting = iter(arguments)
        for argument in waiting:
            if argument == "--":
                others += waiting
            elif argument == "-" or not argument.startswith("-"):
                others.append(argument)
            else:
                spelling, name, value = self._spelled(argument)
                if value is None:
                    value = next(waiting, None)
                if value is None:
                    raise UsageError(f"flag {argument} needs a value; --help says which")
                flags.append(f"--{name}={value}")
                named.setdefault(name, {})[spelling] = None
        self._tell_of_earlier(named)
        return [*flags, "--", *others]

    def _spelled(self, argument):
        """How a flag is spelled, its name, and its value where it stands in the same argument."""
        written, equals, value = argument.partition("=")
        spelling = written.removeprefix("-").removeprefix("-").replace("-", "_")
        if spelling not in self._spellings:
            close = difflib.get_close_matches(spelling, self.flags(), 1)
            mend = f"did you mean --{close[0]}?" if close else f"`{self.prog} --help` lists those that there are"
            raise UsageError(f"there is no flag {written}; {mend}")
        name, meant, _ = self._spellings[spelling]
        is_switch = self.flags()[name] is _SWITCH
        if not equals:
            return spelling, name, "true" if meant is None and is_switch else meant
        if meant is not None and (meant == "false" or not is_switch):
            raise UsageError(f"flag {argument}: {written} takes no value; leave ={value} out")
        return spelling, name, value

    def _tell_of_earlier(self, named):
        """Says what is called otherwise now, and refuses a flag that is given under both names."""
        for name, spellings in named.items():
            for spelling in spellings:
                _, meant, earlier = self._spellings[spelling]
                if not earlier:
                    continue
                is_switch = self.flags()[name] is _SWITCH
                now = f"--no{name}" if is_switch and meant == "false" else f"--{name}"
                now += f"={meant}" if meant is not None and not is_switch else ""
                if len(spellings) > 1:
                    raise UsageError(f"--{spelling} is the earlier name of {now}; leave it out, since --{name} is given.")
                print(f"--{spelling} is called {now} now.", file=sys.stderr)

    def format_help(self):
        lines = []
        for paragraph in (self.description or "").strip().split("\n\n"):
            is_text = not paragraph.startswith(" ")
            lines += [*(textwrap.wrap(paragraph, _WIDTH, break_on_hyphens=False) if is_text else paragraph.split("\n")), ""]
        for title, flags in sorted(self._sections.items(), key=lambda section: section[0] != "Flags"):
            lines.append(f"{title}:")
            for flag in sorted(flags, key=lambda flag: flag.dest == "help"):
                name, words = flag.in_help()
                wrapped = textwrap.wrap(words, _WIDTH - _NAMES, break_on_hyphens=False)
                if len(name) > _NAMES - 2:
                    lines.append(name)
                    name = ""
                lines += [f"{name if not number else '':{_NAMES}s}{line}" for number, line in enumerate(wrapped)]
            lines.append("")
        return "\n".join(lines[:-1]) + "\n"
