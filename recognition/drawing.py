"""The look of all figures: colours, style, and the drawing that a file is written from.

Matplotlib's Agg backend, no global state.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, FAINT = "#1f2933", "#6b7785", "#e3e7ec"
RIGHT, WRONG = "#2468b0", "#c2402e"
PALETTE = (
    *(RIGHT, "#e8833a", "#2f9e61", WRONG, "#8660b5", "#8c6a4f", "#d66fae", "#7f8a96", "#b3a429", "#27a7b8"),
    *("#9ac4e8", "#f8c59b", "#9bdbb0", "#f0a397", "#c9b6e4", "#cdb7a7", "#f2bfdd", "#c3cad2", "#e0d98c", "#9edde6"),
)
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # class names may hold dollar signs
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "figure.dpi": 120,
}


@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of so many inches in the house's style, and write it when the block ends without an error."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # the stub lists every key as a literal
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # Scripts that the font lacks are drawn as boxes; the tables hold the names.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def write_message(path: Path, title: str, text: str) -> None:
    """A figure that only says something."""
    with drawing(path, 5.0, 1.6) as figure:
        figure.text(0.5, 0.62, title, ha="center", va="center", fontsize=13, fontweight="bold")
        figure.text(0.5, 0.32, text, ha="center", va="center", color=MUTED)


def short(text: str, longest: int = 24, keep_end: bool = False) -> str:
    """A text on one line, cut to a length with an ellipsis."""
    text = " ".join(str(text).split())
    if len(text) <= longest:
        return text
    return "…" + text[1 - longest :] if keep_end else text[: longest - 1] + "…"
