"""A plugin whose disk takes its time for a state."""

import time

from reidkit.engine import checkpoint

_write = checkpoint._write


def _write_slowly(*args):
    time.sleep(3)
    _write(*args)


checkpoint._write = _write_slowly
