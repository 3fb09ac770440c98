"""What every painter of synthetic scenes returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam_suite.engine.synthetic.shapes import Field, Labels


@dataclass
class Canvas:
    """What a painter returns: intensities in 0..1 before the microscope."""

    light: Field
    labels: Labels
    parts: Labels | None = None
