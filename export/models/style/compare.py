"""`python -m export.models.style.compare PHOTOGRAPH PICTURE…`: how far pictures are from a photograph's content and a style.

Prints both losses, without weights, of the photograph itself and of pictures made of it, by a network of this family or by
`export.stylize`. The figures in the model card are this command's.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor

from export import data
from export.models.style.objective import Perceptual, read_style
from export.models.style.recipes import COMPACT
from export.networks.features import open_vgg19
from runtime.errors import GanforgeError, InvalidInput

PICTURE = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("photograph", metavar="PHOTOGRAPH", type=PICTURE)
@click.argument("pictures", metavar="PICTURE…", type=PICTURE, nargs=-1)
@click.option("--style", type=PICTURE, required=True, help="The picture whose style they should have.")
@click.option(
    "--vgg19", type=PICTURE, help="Weights of VGG19, or of its first layers.  [default: downloaded]"
)
@click.option("--style-px", type=click.IntRange(min=0), default=COMPACT.style_px, show_default=True,
              help="The style picture's shorter side; 0 for its own size.")  # fmt: skip
@click.option("--content-layer", default=COMPACT.content_layer, show_default=True)
@click.option("--style-layers", default=COMPACT.style_layers, show_default=True)
def main(
    photograph: Path,
    pictures: tuple[Path, ...],
    style: Path,
    vgg19: Path | None,
    style_px: int,
    content_layer: str,
    style_layers: str,
) -> None:
    """Print the losses of PICTURE… against the content of PHOTOGRAPH and a style."""
    try:
        painting, described = read_style(style, style_px)
        names = style_layers.split(",")
        net = open_vgg19(vgg19).network(tuple(dict.fromkeys((*names, content_layer))), activated=True)
        objective = Perceptual(net, content_layer, names, painting)
        original = read(photograph)
        click.echo(f"style: {described}; content at {content_layer}, style at {style_layers}")
        for path in (photograph, *pictures):
            picture = read(path)
            if picture.shape != original.shape:
                raise InvalidInput("PICTURE", f"{path.name} has another size than {photograph.name}")
            with torch.inference_mode():
                terms = objective(original, picture)
            click.echo("  ".join([f"{path.name}:", *(f"{key} {float(terms[key]):.4g}" for key in terms)]))
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error


def read(path: Path) -> Tensor:
    """[1, 3, H, W] float32 in [0, 1]."""
    return data.as_floats(data.planes(data.read_picture(path))[None])


if __name__ == "__main__":
    main()
