"""What examples and their tiles tell, as it comes in: the rows of prototypes.

Nobody draws what is not meant, so it is taken from around the examples: candidates
that outline an example wrongly, and copies of the examples laid where there are none.
Other candidates are not used: some of them are of the kind and only not tagged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.fewshot.fast import Seen, Sizes, cell_features
from napari_sam_suite.engine.fewshot.pooling import (
    cells_per_pixel,
    coverage,
    descriptors,
)
from napari_sam_suite.engine.fewshot.prototypes import Prototypes
from napari_sam_suite.engine.fewshot.scorer import Scorer
from napari_sam_suite.engine.fewshot.verifier import look_at
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.protocol import weights_of
from napari_sam_suite.engine.nearby import Nearby

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.engine.models.protocol import Embedding, SamModel
    from napari_sam_suite.engine.tiles import Region

_MOST = 1000
"""Rows kept of each kind of background."""
_COPIES = 10
"""Copies of every example that are laid where there are none."""
_MATCH, _CLASH, _TOUCH = 0.7, 0.5, 0.2
"""IoU from which a candidate is an example; IoU below which it outlines one wrongly;
and the part of the smaller of the two that they share if they have to do with each
other at all."""


@dataclass(frozen=True)
class Tile:
    """A tile with examples.

    `masks` and `tags` are of all examples of its frame, numbered from `first`; `mine`
    are the indices of those that it shows best.
    """

    rgb: NDArray[np.uint8]
    region: Region
    masks: Masks
    tags: list[str]
    first: int
    mine: list[int]

    @property
    def drawn(self) -> Masks:
        """Its own examples."""
        return self.masks.select(self.mine)


@dataclass
class Rows:
    """Descriptors as they come in, by what is known of them."""

    rng: np.random.Generator
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    looks: list[NDArray[np.float32]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    rated: list[float] = field(default_factory=list)
    rest: list[NDArray[np.float32]] = field(default_factory=list)
    cells: list[NDArray[np.float32]] = field(default_factory=list)
    cell_rest: list[NDArray[np.float32]] = field(default_factory=list)

    def add_examples_of(self, tile: Tile, embedding: Embedding) -> None:
        """Describe the examples of a tile, and its cells."""
        vectors = descriptors(embedding, tile.drawn, tile.rgb, tile.region)
        looks = look_at(embedding, tile.drawn, tile.rgb, tile.region)
        named = [(tile.first + i, tile.tags[i]) for i in tile.mine]
        self.add_examples(vectors, looks, named)
        self.add_cells(embedding, tile.region, tile.masks, vectors)

    def add_examples(
        self,
        vectors: NDArray[np.float32],
        looks: NDArray[np.float32],
        named: list[tuple[int, str]],
        rated: float = np.nan,
    ) -> None:
        """Take descriptors, each with its example, and what rates the outline."""
        self.vectors.append(vectors)
        self.looks.append(looks)
        self.rated += [rated] * len(named)
        self.groups += [number for number, _ in named]
        self.labels += [tag for _, tag in named]

    def add_cells(
        self,
        embedding: Embedding,
        region: Region,
        masks: Masks,
        vectors: NDArray[np.float32],
    ) -> None:
        """Coarse features inside the examples, and of cells that no example touches."""
        cells = cell_features(embedding)
        size = (cells.shape[1], cells.shape[2])
        scale = cells_per_pixel(embedding, size)
        # The first columns of a descriptor are the mean of these features.
        self.cells.append(vectors[:, : len(cells)])
        free = np.zeros(size, bool)
        used = [int(np.ceil(n * s)) for n, s in zip(region.shape, scale, strict=True)]
        free[: used[0], : used[1]] = True
        for i in range(len(masks)):
            crop, (y0, x0) = masks.crop(i)
            origin = (y0 - region.y0, x0 - region.x0)
            laid, (top, left) = coverage(crop, origin, scale, size)
            part = free[top : top + laid.shape[0], left : left + laid.shape[1]]
            part &= laid < 1e-6
        self.cell_rest.append(cells[:, free].T)

    def likeness(self) -> Scorer:
        """Of single cells to those inside examples, so far."""
        return Scorer.fit(np.concatenate(self.cells), np.concatenate(self.cell_rest))

    def add_candidates(
        self, seen: Seen, masks: Masks, tags: list[str], first: int
    ) -> None:
        """Take candidates that are an example, or a wrong outline of one."""
        nearby = Nearby.of(masks.boxes)
        for i in range(len(seen.masks)):
            shared = np.zeros(len(masks), np.int64)
            for j in nearby.to(seen.masks.boxes[i]):
                shared[j] = seen.masks.intersection(i, j, masks)
            area = seen.masks.area[i]
            if not (shared > _TOUCH * np.minimum(area, masks.area)).any():
                continue
            iou = shared / (area + masks.area - shared)
            best = int(iou.argmax())
            if iou[best] >= _MATCH:
                self.add_examples(
                    seen.vectors[i : i + 1],
                    seen.looks[i : i + 1],
                    [(first + best, tags[best])],
                    float(seen.odds[i]),
                )
            elif iou[best] < _CLASH:
                self.rest.append(seen.vectors[i : i + 1])

    def lay_copies(self, examples: Masks, masks: Masks, region: Region) -> Masks:
        """The shapes of the examples at random places without examples."""
        builder = MaskBuilder(masks.shape)
        for i in range(len(examples)):
            crop, _ = examples.crop(i)
            room = [
                max(length - side, 0)
                for length, side in zip(region.shape, crop.shape, strict=True)
            ]
            for _ in range(_COPIES):
                y0, x0 = (int(self.rng.integers(n + 1)) for n in room)
                origin = (y0 + region.y0, x0 + region.x0)
                builder.add(crop, origin)
        copies, nearby = builder.build(), Nearby.of(masks.boxes)
        free = [
            k
            for k in range(len(copies))
            if all(
                copies.intersection(k, j, masks) <= _TOUCH * copies.area[k]
                for j in nearby.to(copies.boxes[k])
            )
        ]
        return copies.select(np.array(free, np.intp))

    def prototypes(
        self, model: SamModel, examples: Examples, sizes: Sizes
    ) -> Prototypes:
        """All rows, by example."""
        order = np.argsort(self.groups, kind="stable")
        return Prototypes(
            model=model.spec.id,
            weights=weights_of(model),
            mode="fast",
            tags=examples.tags,
            negatives=examples.negatives,
            labels=tuple(self.labels[i] for i in order),
            vectors=np.concatenate(self.vectors)[order],
            looks=np.concatenate(self.looks)[order],
            groups=np.array(self.groups, np.int64)[order],
            areas=sizes.areas,
            widths=sizes.widths,
            rated=np.array(self.rated, np.float32)[order],
            rest=self._some(self.rest),
            cells=np.concatenate(self.cells),
            cell_rest=self._some(self.cell_rest),
        )

    def _some(self, parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        rows = np.concatenate(parts)
        if len(rows) <= _MOST:
            return rows
        return rows[np.sort(self.rng.choice(len(rows), _MOST, replace=False))]
