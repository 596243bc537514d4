"""How a program ends: its exit status, and its errors on standard error in terms of its flags."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from rw_keras.commands.parser import Parser, UsageError
from rw_keras.files import printable

DONE, FAILED, USAGE, LEFT_OUT, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141


def finish(
    program: str,
    run: Callable[[], int],
    flags: Callable[[], Iterable[str]],
    interrupted: str = "what was not finished was not written",
) -> NoReturn:
    """Runs a program and exits.

    Args:
        program: its name, which stands before its errors.
        run: does it, and returns the exit status.
        flags: gives the names of its flags, for its errors.
        interrupted: what to say after Ctrl-C.

    Exits with 0 to 3 as `run` returns; 1 after an error that says why; 2 for a wrong command line; 130 interrupted; 141 when nobody
    reads its output any more.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        code = UNREAD  # as of a program that the signal SIGPIPE ends; there is nobody to tell
    except UsageError as error:
        _print_error(program, str(error))
        code = USAGE
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        _print_error(program, in_flags(str(error), flags()))
        code = FAILED
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {interrupted}", file=sys.stderr)
        code = INTERRUPTED
    _leave_no_output()
    sys.exit(code)


def run_program(parser: Parser, run: Callable[[Any], int | None]) -> NoReturn:
    """Runs a program of its own, such as one of examples/, by `sys.argv`, and exits.

    Args:
        parser: its flags.
        run: does it, from what was parsed, and returns the exit status; `None` is 0.
    """

    def parse_and_run():
        values = parser.parse_args()
        if values.help:
            print(parser.format_help(), end="")
            return DONE
        return run(values) or DONE

    finish(parser.prog, parse_and_run, parser.flags)


def refuse_arguments(program: str, values: Any) -> None:
    """Refuses arguments of a program that takes flags alone."""
    if values.arguments:
        raise UsageError(f"{program} takes no arguments, but got {values.arguments[0]!r}")


def in_flags(message: str, names: Iterable[str]) -> str:
    """An error of a function in the words of a program with flags of these names: `levels=8` becomes `--levels=8`."""
    flags = [name for name in names if len(name) > 1]
    if not flags:
        return message
    any_name = "|".join(map(re.escape, sorted(flags, key=len, reverse=True)))
    message = re.sub(rf"`({any_name})`", r"--\1", message)
    # A call in Python, such as `Index.load(path, searcher='numpy')`, stays one.
    either = rf"[\w.]+\([^()]*\)|(?<![\w.-])({any_name})=(?!=)"
    message = re.sub(either, lambda found: f"--{found[1]}=" if found[1] else found[0], message)
    return re.sub(r"(--\w+=)None\b", r"\1none", message)


def _print_error(program, message):
    # A file's name in it may hold anything, also what a terminal would act upon.
    print(f"{program}: " + "\n".join(map(printable, message.split("\n"))), file=sys.stderr)


def _leave_no_output():
    """Writes what is left of standard output; where that cannot be, drops it, or Python would complain as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
