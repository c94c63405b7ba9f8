"""What every test shares: how hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is slow, not wrong: no deadline.
# On CI the same examples each time, so that a failure there can be repeated.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
