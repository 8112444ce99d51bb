"""`reidkit train` as a script, for torchrun and old habits: same arguments, same answer."""

import sys

from reidkit.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
