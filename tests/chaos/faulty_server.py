"""A server whose engines have faults: `python -m tests.chaos.faulty_server --faults FILE --bundles DIR …`.

It is the server of `python -m server` with the remaining flags, in a process whose backends were patched before it
started; the server itself has no door for faults. FILE is a JSON list of `tests.faulty_engine.Fault`, read again at each
batch: replace it to change what goes wrong, by `[]` to end it. No file means no faults. `launched(…, module=MODULE,
flags=("--faults", FILE))` starts it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from server.__main__ import main
from tests.faulty_engine import Faults, inject_into_backends

MODULE = "tests.chaos.faulty_server"

if __name__ == "__main__":
    at = sys.argv.index("--faults")
    inject_into_backends(Faults(Path(sys.argv[at + 1])))
    del sys.argv[at : at + 2]
    main()
