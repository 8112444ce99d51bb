"""`reidkit train` that kills itself at a call of `os`, or in the middle of writing a file.

python tools/faults/dying.py CALL NUMBER before|after CONFIG --out ...
"""

import builtins
import io
import os
import signal
import sys
from typing import Any

from reidkit.cli import main


def die(call: str, number: int, moment: str) -> None:
    """Let this process kill itself at a call of `os`, or after `number` bytes of new files."""

    def now() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    left = number
    if call != "write":
        original = getattr(os, call)

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and moment == "before":
                now()
            result = original(*args, **options)
            if left == 0:
                now()
            return result

        setattr(os, call, counted)
        return
    open_ = io.open

    class Dying(io.BufferedWriter):
        def write(self, data: Any) -> int:
            nonlocal left
            piece = memoryview(data).cast("B")
            if len(piece) >= left:
                super().write(piece[:left])
                self.flush()
                now()
            left -= len(piece)
            return super().write(piece)

    def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode == "wb" and str(file).endswith(".tmp"):
            return Dying(io.FileIO(file, "w"))
        return open_(file, mode, *args, **options)

    io.open = builtins.open = opened  # type: ignore[assignment]


if __name__ == "__main__":
    call, number, moment = sys.argv[1:4]
    die(call, int(number), moment)
    sys.argv[1:4] = ["train"]
    main()
