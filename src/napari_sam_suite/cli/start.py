"""Where the command line begins: it can be stopped before it is there.

Nothing of ours, and nothing that takes time, is imported before the signals are heard.
"""

from __future__ import annotations

import os
import signal

_USUAL = (signal.default_int_handler, signal.SIG_DFL)


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it with 130 from the beginning."""
    # Whoever started us may ignore one of them, or have a use for it.
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    ours = [one for one, handler in before.items() if handler in _USUAL]
    for one in ours:
        signal.signal(one, _leave)
    from napari_sam_suite.cli.app import app

    for one in ours:
        signal.signal(one, signal.default_int_handler)
    try:
        app(prog_name="napari-sam-suite")
    finally:
        for one in ours:
            signal.signal(one, before[one])


def _leave(*_: object) -> None:
    """End at once: nothing is begun yet, and half of an import is no state to be in."""
    os._exit(128 + signal.SIGINT)
