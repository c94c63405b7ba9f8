"""What is installed, as a software bill of materials (CycloneDX 1.6) or a table of licences: `python -m server.sbom`.

`make sbom` and the Dockerfile call it; tests compare docs/licences.md with it. It reads the installed packages' own metadata
and starts at what ganforge's extras ask for, so what else lies in the environment is not listed. The kept tool for this,
cyclonedx-bom, lists a whole environment, and would bring 21 packages of its own into the image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "ganforge"
# SPDX expressions of packages whose metadata name their licence in words, or as a whole text. `packaging.licenses` knows only
# expressions. tests/test_licences.py lists what is missing.
SPDX_OF_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "LGPL-3.0-or-later": "LGPL-3.0-or-later",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MPL-2.0": "MPL-2.0",
    "PSF-2.0": "PSF-2.0",
    "Proprietary": "LicenseRef-Proprietary",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: Other/Proprietary License": "LicenseRef-Proprietary",
}
SHORT = 40  # characters; a longer "License" is the licence's text


@dataclass(frozen=True)
class Package:
    """An installed package. licence: as SPDX writes it, "" if its metadata do not say. needs: canonical names."""

    name: str
    version: str
    licence: str
    homepage: str
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL (https://github.com/package-url/purl-spec)."""
        return f"pkg:pypi/{self.name}@{self.version}"


def installed(extras: Sequence[str]) -> dict[str, Package]:
    """ganforge and all that its extras bring here, by canonical name. Raises click.ClickException if one is missing."""
    found: dict[str, Package] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(ROOT, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            described = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            raise click.ClickException(
                f"{name} is not installed; install ganforge[{','.join(extras)}] first"
            ) from None
        children = list(_needs(name, wanted))
        needs = {child for child, _ in children} | set(found[name].needs if name in found else ())
        found[name] = Package(
            name, described["Version"], licence(described), _homepage(described), tuple(sorted(needs))
        )
        waiting += children
    return found


def _needs(name: str, extras: frozenset[str]) -> Iterable[tuple[str, frozenset[str]]]:
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def licence(described: Any) -> str:
    """The licence in a package's metadata as an SPDX expression; in its own words if we do not know those."""
    if described["License-Expression"]:
        return str(described["License-Expression"])
    words = [(described["License"] or "").removeprefix("OSI Approved :: ").strip()]
    words += [line for line in described.get_all("Classifier", []) if line.startswith("License :: ")]
    known = [SPDX_OF_WORDS[each] for each in words if each in SPDX_OF_WORDS]
    return known[0] if known else next((each for each in words if 0 < len(each) <= SHORT), "")


def _homepage(described: Any) -> str:
    if described["Home-page"]:
        return str(described["Home-page"])
    links = [line.partition(", ") for line in described.get_all("Project-URL", [])]
    by_label = {label.lower(): link for label, _, link in links}
    return next((by_label[label] for label in ("homepage", "source", "repository") if label in by_label), "")


def cyclonedx(packages: Mapping[str, Package]) -> dict[str, Any]:
    """A CycloneDX document. It has no date and no serial number, so that the same installation gives the same document."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(packages[ROOT], "application")},
        "components": [
            _component(package, "library") for name, package in sorted(packages.items()) if name != ROOT
        ],
        "dependencies": [
            {
                "ref": package.purl,
                "dependsOn": [packages[need].purl for need in package.needs if need != name],
            }
            for name, package in sorted(packages.items())
        ],
    }


def _component(package: Package, kind: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if re.search(r" (AND|OR|WITH) ", package.licence):
        component["licenses"] = [{"expression": package.licence}]
    elif package.licence.startswith("LicenseRef-"):
        component["licenses"] = [{"license": {"name": package.licence.removeprefix("LicenseRef-")}}]
    elif package.licence:
        component["licenses"] = [{"license": {"id": package.licence}}]
    if package.homepage:
        component["externalReferences"] = [{"type": "website", "url": package.homepage}]
    return component


def table(packages: Mapping[str, Package]) -> str:
    """A Markdown table of names, licences and home pages, without versions: it changes only when a licence does."""
    rows = [
        f"| [{package.name}]({package.homepage}) | {package.licence} |"
        if package.homepage
        else f"| {package.name} | {package.licence} |"
        for name, package in sorted(packages.items())
        if name != ROOT
    ]
    return "\n".join(["| package | licence |", "|---|---|", *rows])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--extra",
    "extras",
    multiple=True,
    default=["serve"],
    show_default=True,
    help="Extra that is installed; several as serve,nvidia.",
)
@click.option("--licences", is_flag=True, help="Print a Markdown table of licences instead.")
def main(extras: tuple[str, ...], licences: bool) -> None:
    """Print what this installation of ganforge consists of, as CycloneDX JSON."""
    packages = installed([extra for each in extras for extra in each.split(",")])
    click.echo(table(packages) if licences else json.dumps(cyclonedx(packages), indent=2))


if __name__ == "__main__":
    main()
