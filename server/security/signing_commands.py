"""The commands `ganforge keygen` and `ganforge sign`: sign bundles for servers that are started with --trust."""

from __future__ import annotations

from pathlib import Path

import click

from runtime import bundle, signing
from runtime.errors import BundleError

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.command(context_settings=_SETTINGS)
@click.argument("key", type=click.Path(path_type=Path))
def keygen(key: Path) -> None:
    """Make a private key in the file KEY, for `ganforge sign`, and its public key in KEY.pub, for `serve --trust`."""
    public_file = signing.keygen(key)
    click.echo(f"{key}: keep it secret; whoever has it can sign bundles")
    click.echo(f"{public_file}: for servers, {signing.read_public(public_file).name}")


@click.command(context_settings=_SETTINGS)
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, help="Private key, as `keygen` writes it."
)
def sign(folder: Path, key: Path) -> None:
    """Sign a bundle, after checking that its files are those of its manifest. Building it again removes the signature."""
    private = signing.read_private(key)
    checked = bundle.load(folder)
    manifest = (folder / bundle.MANIFEST).read_bytes()
    if bundle.version_of(manifest.decode()) != checked.version:
        raise BundleError(f"{folder}: it was built again meanwhile; sign it again")
    file = signing.sign(folder, manifest, private)
    click.echo(f"{checked.manifest.name}, version {checked.version}, signed: {file}")
