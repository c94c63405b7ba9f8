"""A server whose engines have faults: `python -m tests.chaos.faulty_server FAULTS.json --bundles DIR …`.

It is the server of `python -m server` with the remaining arguments, in a process whose backends were patched before it
started; the server itself has no door for faults. FAULTS.json is a list of `tests.faulty_engine.Fault`, read again at each
batch: write it (atomically) to change what goes wrong, `[]` to end it. No file means no faults.
"""

from __future__ import annotations

import sys
from pathlib import Path

from server.__main__ import main
from tests.faulty_engine import Faults, inject_into_backends

if __name__ == "__main__":
    inject_into_backends(Faults(Path(sys.argv.pop(1))))
    main()
