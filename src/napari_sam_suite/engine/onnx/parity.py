"""The proof of an export: the same questions to the original and to the files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.protocol import Decoded, Prompts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.protocol import Embedding, SamModel

AMBIGUOUS = 2
"""Points, padding included, up to which SAM takes the best of three masks."""

_TOKENS = (0, 1, 2, 3)
_LIMIT = 32.0
"""The files give logits within plus and minus this."""


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from its original.

    Attributes
    ----------
    embedding, logits : float
        Largest difference of a number; infinite where only the masks count.
    overlap : float
        Mean IoU of the masks, at least.
    """

    embedding: float
    logits: float
    overlap: float


TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-3, 0.999),
    "float16": Tolerance(np.inf, np.inf, 0.99),
    "int8": Tolerance(np.inf, np.inf, 0.97),
}


@dataclass(frozen=True)
class Row:
    """One kind of prompt on one image.

    Attributes
    ----------
    masks : int
        How many were compared.
    logits, score : float
        Largest difference of a logit and of a predicted IoU.
    overlap, worst : float
        Mean and smallest IoU of the masks with the original's.
    """

    image: str
    prompt: str
    masks: int
    logits: float
    score: float
    overlap: float
    worst: float


@dataclass
class Parity:
    """What came out of a comparison.

    Attributes
    ----------
    embedding : dict
        Largest difference of each feature map, over all images.
    rows : list of Row
        By image and kind of prompt.
    """

    tolerance: Tolerance
    embedding: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def logits(self) -> float:
        """Largest difference of a logit."""
        return max(row.logits for row in self.rows)

    @property
    def overlap(self) -> float:
        """Mean IoU of all masks."""
        counts = [row.masks for row in self.rows]
        return float(np.average([row.overlap for row in self.rows], weights=counts))

    def failures(self) -> list[str]:
        """What is outside of the tolerance, each as a phrase; empty if nothing is."""
        t, found = self.tolerance, []
        worst = max(self.embedding.values())
        if not worst <= t.embedding:
            found.append(f"embeddings differ by {worst:.1e}, allowed are {t.embedding}")
        if not self.logits <= t.logits:
            found.append(f"logits differ by {self.logits:.1e}, allowed are {t.logits}")
        if not self.overlap >= t.overlap:
            found.append(
                f"the masks' mean IoU is {self.overlap:.4f}, at least {t.overlap} is "
                "needed"
            )
        return found

    def require(self, name: str) -> None:
        """Refuse an export that is outside of the tolerance.

        Raises
        ------
        ModelError
            If it is; the message has the numbers.
        """
        found = self.failures()
        if found:
            raise ModelError(
                f"The export of {name} is not what the model says: {'; '.join(found)}.",
                "Nothing was written. Try `precision` float32, or another `opset`.",
            )

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an open limit is null."""
        limits = asdict(self.tolerance)
        return {
            "tolerance": {k: v if np.isfinite(v) else None for k, v in limits.items()},
            "embedding": self.embedding,
            "logits": self.logits,
            "mask_iou": self.overlap,
            "rows": [asdict(row) for row in self.rows],
        }

    def as_json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def as_table(self) -> str:
        """A table to read, in Markdown."""
        lines = [
            "| image | prompt | masks | logits differ by | IoU predictions differ by "
            "| masks' mean IoU | smallest |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r.image} | {r.prompt} | {r.masks} | {r.logits:.1e} | {r.score:.1e} "
            f"| {r.overlap:.5f} | {r.worst:.5f} |"
            for r in self.rows
        ]
        maps = ", ".join(f"{name} {gap:.1e}" for name, gap in self.embedding.items())
        return "\n".join(lines) + f"\n\nEmbeddings differ by: {maps}.\n"


def compare(
    original: SamModel,
    exported: SamModel,
    images: Mapping[str, NDArray[np.uint8]],
    tolerance: Tolerance,
    *,
    single_mask: bool = False,
) -> Parity:
    """Ask both models the same, each with its own embedding of the image.

    Parameters
    ----------
    original, exported : SamModel
        What is to be, and what is.
    images : mapping of str to ndarray, shape (H, W, 3), uint8
        RGB images by name.
    tolerance : Tolerance
        What is allowed.
    single_mask : bool
        Whether the export gives one mask only, which is to be the one that SAM's rule
        chooses.
    """
    parity = Parity(tolerance)
    for name, image in images.items():
        (true,), (found,) = original.encode([image]), exported.encode([image])
        mine = found.maps()
        for part, values in true.maps().items():
            gap = float(np.abs(values - mine[part]).max())
            parity.embedding[part] = max(gap, parity.embedding.get(part, 0.0))
        for kind, prompts in _questions(original, true).items():
            parity.rows.append(
                _row(
                    name,
                    kind,
                    _ask(original, true, prompts, choose=single_mask),
                    _ask(exported, found, prompts, choose=False, one=single_mask),
                )
            )
    return parity


def _questions(model: SamModel, embedding: Embedding) -> dict[str, Prompts]:
    """One set of prompts of every kind, spread over the image."""
    height, width = embedding.shape
    place = np.array([[0.31, 0.27], [0.52, 0.64], [0.74, 0.38], [0.45, 0.81]])
    middle = place * [height, width]
    reach = np.array([height, width]) / np.array([[9], [6], [4], [3]])
    boxes = np.concatenate([middle - reach / 2, middle + reach / 2], axis=1)
    clicks = Prompts.clicks(middle)
    several = np.stack([middle, middle + reach, middle - reach], axis=1)
    labels = np.tile([1, 0, 0], (len(middle), 1))
    nothing = np.zeros((len(middle), 0, 2)), np.zeros((len(middle), 0), np.int64)
    earlier = model.decode(embedding, clicks, tokens=(0,)).numpy().logits
    earlier = earlier[:, None].clip(-_LIMIT, _LIMIT)
    return {
        "point": clicks,
        "points": Prompts(several, labels),
        "box": Prompts(*nothing, boxes),
        "point + box": Prompts(clicks.points, clicks.labels, boxes),
        "mask": Prompts(*nothing, masks=earlier),
        "point + mask": Prompts(clicks.points, clicks.labels, masks=earlier),
        "none": Prompts(nothing[0][:1], nothing[1][:1]),
    }


def _ask(
    model: SamModel,
    embedding: Embedding,
    prompts: Prompts,
    *,
    choose: bool,
    one: bool = False,
) -> Decoded:
    """All masks of every prompt, or the one that is asked for or chosen."""
    tokens = _TOKENS[:1] if one else _TOKENS
    found = model.decode(embedding, prompts, tokens=tokens).numpy()
    if not choose:
        return found
    corners = 0 if prompts.boxes is None else 2
    count = prompts.points.shape[1] + corners
    padded = model.spec.family == "sam1" and not corners and count
    scores = found.iou.reshape(len(prompts), -1).copy()
    scores[:, 0] += 1000 if count + bool(padded) > AMBIGUOUS else -1000
    row = scores.argmax(1) + len(_TOKENS) * np.arange(len(prompts))
    return Decoded(
        *(a[row] for a in (found.logits, found.iou, found.prompt, found.token))
    )


def _row(image: str, kind: str, true: Decoded, found: Decoded) -> Row:
    expected = true.logits.clip(-_LIMIT, _LIMIT)
    given = found.logits.clip(-_LIMIT, _LIMIT)
    overlap = _overlap(expected > 0, given > 0)
    return Row(
        image,
        kind,
        len(expected),
        float(np.abs(expected - given).max()),
        float(np.abs(true.iou - found.iou).max()),
        float(overlap.mean()),
        float(overlap.min()),
    )


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of every mask (N, h, w) with its counterpart; 1 where both are empty."""
    shared = np.count_nonzero(a & b, axis=(1, 2))
    joined = np.count_nonzero(a | b, axis=(1, 2))
    return np.where(joined > 0, shared / np.maximum(joined, 1), 1.0)
