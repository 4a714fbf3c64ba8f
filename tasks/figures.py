"""Figures as small pictures: MLflow keeps one a version for years, and Prefect shows them inside its reports."""

import io
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

COLOURS = 64
"""Enough for bars, lines and letters; the file is a third of one in true colour."""


def picture_of(figure: "Figure") -> "Image":
    """The figure with a palette, 100 pixels an inch."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    return Image.open(drawn).convert("RGB").quantize(COLOURS)


def data_url(figure: "Figure") -> str:
    """The picture itself as an address, so that Prefect needs no way to MLflow's files."""
    packed = io.BytesIO()
    picture_of(figure).save(packed, format="png", optimize=True)
    return f"data:image/png;base64,{b64encode(packed.getvalue()).decode()}"
