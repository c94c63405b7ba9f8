"""docs/licences.md lists every package of each extra with the licence in its metadata; the bill of materials is complete."""

from __future__ import annotations

import json
import re
from importlib import metadata

import click
import pytest
from click.testing import CliRunner

from server import sbom
from tests.test_packaging import EXTRAS, PINS, ROOT, closure

PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (\w+):", PAGE, re.MULTILINE)
ROWS = dict(re.findall(r"^\| \[?([\w.-]+)(?:\]\(.*\))? \| (.+) \|$", PAGE, re.MULTILINE))
# Extras that deliver nothing.
FOR_DEVELOPERS = {"dev", "bench", "inception"}


def own(name: str) -> str | None:
    """The licence that an installed package's metadata name; None if it is not installed here."""
    try:
        return sbom.licence(metadata.metadata(name))
    except metadata.PackageNotFoundError:
        return None


def test_every_extra_that_is_delivered_has_a_section() -> None:
    assert set(SECTIONS) == set(EXTRAS) - FOR_DEVELOPERS


@pytest.mark.parametrize("extra", SECTIONS)
def test_every_package_of_an_extra_is_listed_with_its_licence(extra: str) -> None:
    missing = {name: own(name) for name in sorted(closure(extra)) if name not in ROWS}
    assert missing == {}, "add these rows to docs/licences.md"
    different = {
        name: (ROWS[name], licence)
        for name in sorted(closure(extra))
        if (licence := own(name)) is not None and licence != ROWS[name]
    }
    assert different == {}, "docs/licences.md says the first, the package the second"


def test_no_row_is_left_over() -> None:
    assert set(ROWS) - {"package"} <= closure(*SECTIONS)
    assert set(ROWS) - {"package"} <= set(PINS)


def test_no_licence_is_copyleft_but_that_of_libvips() -> None:
    strong = {name for name, licence in ROWS.items() if re.search(r"\b(A?GPL|LGPL|SSPL|BUSL)", licence)}
    assert strong == {"pyvips-binary"}


def test_the_bill_of_materials_lists_what_the_server_needs_and_no_more() -> None:
    document = json.loads(CliRunner().invoke(sbom.main, []).stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {each["name"]: each for each in document["components"]}
    assert {"grpcio", "openvino", "pyvips-binary", "numpy"} <= set(components)
    assert not {"torch", "onnx", "pytest"} & set(components)
    assert components["grpcio"]["purl"] == f"pkg:pypi/grpcio@{metadata.version('grpcio')}"
    assert all(each["licenses"] for each in components.values())
    references = [each["bom-ref"] for each in [*components.values(), document["metadata"]["component"]]]
    assert len(set(references)) == len(references)
    assert {each["ref"] for each in document["dependencies"]} == set(references)
    assert {ref for each in document["dependencies"] for ref in each["dependsOn"]} <= set(references)


def test_two_runs_give_the_same_document() -> None:
    assert CliRunner().invoke(sbom.main, []).stdout == CliRunner().invoke(sbom.main, []).stdout


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package"])
    with pytest.raises(click.ClickException, match="no-such-package is not installed"):
        sbom.installed(["serve"])
