"""How the command line ends: a paragraph for what a person can mend, a traceback for a bug."""

import contextlib
import dis
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from absl import flags
from absl import logging as absl_logging

MENDABLE = 2  # exit status; that of a bug is 1
INTERRUPTED = 130  # as shells say of Ctrl-C


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """End the program with one paragraph where its message is for the user.

    ``--verbosity=1`` shows tracebacks, and what libraries log, all the same.
    """
    loud = flags.FLAGS.verbosity > 0 and not flags.FLAGS["verbosity"].using_default_value
    if not loud:
        _quieten()
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if loud or not is_answer(error):
            raise
        print(f"error: {_text(error)}", file=sys.stderr)
        sys.exit(MENDABLE)


def is_answer(error: Exception) -> bool:
    """Whether the message is for the user; else the program is wrong, not what it was given.

    It is where a ``raise`` of ganjax made it (any ValueError there says what to set), and where
    the system refused a file or memory.
    """
    if isinstance(error, OSError) or _is_out_of_memory(error):
        return True
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_globals["__name__"].startswith("ganjax."):
        return False
    raised = trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and not isinstance(error, AssertionError)


def _is_out_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)


def _text(error: Exception) -> str:
    if _is_out_of_memory(error):
        first = str(error).splitlines()[0]
        return (
            f"{first}\nThe devices have too little memory. Set config.train.batch lower, "
            "config.train.d_microbatches and g_microbatches higher, or split the parameters with "
            "config.mesh.fsdp."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _quieten() -> None:
    """Keep to what is said once: `CheckpointError` says what Orbax says in many tracebacks."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(_is_not_orbax)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.unraisablehook = _hook


def _is_not_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _hook(unraisable: Any) -> None:
    # What else was being written when a write failed comes back to Orbax, which has ended.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
