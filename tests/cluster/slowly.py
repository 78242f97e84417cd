"""Run boldly with trainings that take at least so long for a step: for tests that disturb them.

STEP_S=0.1 python slowly.py pretrain --name ...        0.2 s where it is not given
"""

from __future__ import annotations

import os
import sys
import time

from boldly.cli import main
from boldly.training import loop

_STEP_S = float(os.environ.get("STEP_S", "0.2"))
_share = loop.learning_rate_share


def _slow_share(*arguments, **settings):
    time.sleep(_STEP_S)
    return _share(*arguments, **settings)


def slow_down() -> None:
    """Have trainings of this process take their time."""
    loop.learning_rate_share = _slow_share


if __name__ == "__main__":
    slow_down()
    sys.exit(main())
