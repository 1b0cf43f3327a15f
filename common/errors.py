"""The one vocabulary of errors that a person sees.

Every error says what is wrong, where, and the fix. `launch.cli` prints it in one piece without a
traceback and exits with `exit_code`; anything that is not an `OsimError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

from common.text import printable

ERROR_MARK = "error: "
"""How a process prints its OsimError: this mark at the start of a line, then the text, and nothing after it."""


class ExitCode(IntEnum):
    """Exit statuses of every `osim` verb."""

    DONE = 0
    USAGE = 2
    """Wrong use, configuration or input."""
    GATE = 3
    """A gate failed: coverage, numerics, budget."""
    INTERRUPTED = 4
    """Stopped before the end; the same command resumes it."""


class OsimError(Exception):
    """An error with a place and a fix, for a terminal whatever it quotes. Subclasses fix the exit code."""

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        text = f"{where}: {what}" if where else what
        super().__init__(printable(f"{text}\n  fix: {fix}" if fix else text))


class UsageError(OsimError):
    """Wrong arguments, missing files, taken ports: nothing was started."""


class ConfigError(OsimError):
    """A configuration with one or more violations, all of them listed."""

    def __init__(
        self, violations: Sequence[str], *, where: str = "", fix: str = "correct the keys named above"
    ) -> None:
        self.violations = tuple(violations)
        count = len(self.violations)
        listing = "\n".join(f"  - {v}" for v in self.violations)
        super().__init__(f"{count} problem{'s' if count != 1 else ''}\n{listing}", where=where, fix=fix)


class DataError(OsimError):
    """Input or stored bytes that cannot be trusted: a corrupt shard, a wrong schema, a tokenizer mismatch."""


SHAPE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, OSError)
"""What code that takes outside data apart raises when the data has another shape or cannot be read."""


@contextmanager
def data_errors(where: str, *, fix: str, what: str = "cannot be read") -> Iterator[None]:
    """SHAPE_ERRORS of the body as one DataError; the body does nothing but read and convert."""
    try:
        yield
    except SHAPE_ERRORS as e:
        text = str(e).splitlines() or [""]
        raise DataError(f"{what}: {type(e).__name__}: {text[0]:.300}", where=where, fix=fix) from e


class GateError(OsimError):
    """A run stopped itself because a stated bound did not hold."""

    exit_code = ExitCode.GATE


class Interrupted(OsimError):
    """The run was asked to stop; its state is on disk and the same command resumes it."""

    exit_code = ExitCode.INTERRUPTED


RESUME_FIX = "then run the same command again; what was finished before is untouched"
OF_THE_MACHINE = {
    errno.ENOSPC: ("the disk is full", "free space"),
    errno.EDQUOT: ("the disk quota is used up", "free space"),
    errno.EROFS: ("the file system is read-only", "make it writable, or give another folder"),
    errno.EACCES: ("no permission", "correct the permissions, or give another folder"),
    errno.EPERM: ("not permitted", "correct owner and attributes, or give another folder"),
    errno.EIO: ("the disk reports an error", "check the disk"),
    errno.ENAMETOOLONG: ("a longer file name than this file system takes", "give a shorter one"),
    errno.ESTALE: ("the network file system lost this file", "mount it again"),
}
"""Errors of the operating system that are no bug of ours: what is wrong, and the fix."""


def of_the_machine(e: OSError) -> UsageError | None:
    """The error that a person sees for an OSError that is not a bug; None for any other."""
    if e.errno not in OF_THE_MACHINE:
        return None
    what, fix = OF_THE_MACHINE[e.errno]
    return UsageError(what, where=str(e.filename or ""), fix=f"{fix}, {RESUME_FIX}")


def run_main(main: Callable[[], None]) -> NoReturn:
    """The outer boundary of a process: an OsimError is printed in one piece and becomes the exit code.

    So does an error of the machine (full disk, read-only folder). Anything else is a bug and keeps its traceback
    (exit 1).
    """
    try:
        main()
    except OsimError as e:
        _fail(e)
    except OSError as e:
        if (known := of_the_machine(e)) is None:
            raise
        _fail(known)
    sys.exit(int(ExitCode.DONE))


def _fail(e: OsimError) -> NoReturn:
    sys.stdout.flush()
    print(f"{ERROR_MARK}{e}", file=sys.stderr, flush=True)
    sys.exit(int(e.exit_code))
