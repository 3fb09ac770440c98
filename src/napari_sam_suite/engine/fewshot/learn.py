"""From examples to prototypes: what they look like, and what looks otherwise.

Nobody draws what is not meant, so it is taken from around the examples: candidates
that outline an example wrongly, and copies of the examples laid where there are none.
Other candidates are not used: some of them are of the kind, only not tagged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.composite import Composite, compose
from napari_sam_suite.engine.fewshot.exact import crop_vectors
from napari_sam_suite.engine.fewshot.fast import (
    Seen,
    Sizes,
    cell_features,
    embed,
    look,
    tile_key,
)
from napari_sam_suite.engine.fewshot.pooling import (
    cells_per_pixel,
    coverage,
    descriptors,
)
from napari_sam_suite.engine.fewshot.progress import part_of
from napari_sam_suite.engine.fewshot.prototypes import Prototypes
from napari_sam_suite.engine.fewshot.scorer import Scorer
from napari_sam_suite.engine.fewshot.verifier import look_at
from napari_sam_suite.engine.masks import MaskBuilder, Masks
from napari_sam_suite.engine.models.protocol import weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam_suite.engine.fewshot.examples import Examples
    from napari_sam_suite.engine.fewshot.params import FewShotParams
    from napari_sam_suite.engine.finder import Report, Stop
    from napari_sam_suite.engine.frames import FrameIndex
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


def learn_exact(
    model: SamModel,
    examples: Examples,
    params: FewShotParams,
    report: Report,
    stop: Stop,
) -> Prototypes:
    """Encode a crop of every example; see `fewshot.exact`."""
    vectors, labels, parts = [], [], []
    count = len(examples.frames())
    for k, (frame, rgb) in enumerate(_frames(examples)):
        masks, tags = examples.masks(frame)
        tell = part_of(report, k, count)
        vectors.append(crop_vectors(model, rgb, masks, params.occupancy, tell, stop))
        labels += tags
        parts.append(Sizes.of(masks))
    sizes = Sizes.join(parts)
    return Prototypes(
        model=model.spec.id,
        weights=weights_of(model),
        mode="exact",
        tags=examples.tags,
        negatives=examples.negatives,
        labels=tuple(labels),
        vectors=np.concatenate(vectors),
        groups=np.arange(len(labels)),
        areas=sizes.areas,
        widths=sizes.widths,
    )


@dataclass
class Learner:
    """Learns from examples in fast mode; encodes every tile with examples once.

    Attributes
    ----------
    seen : dict
        What these tiles showed, by `tile_key`, so that a search of the same frame does
        not look at them again.
    """

    model: SamModel
    params: FewShotParams
    report: Report
    stop: Stop
    seen: dict[str, Seen] = field(default_factory=dict)

    def learn(self, examples: Examples) -> Prototypes:
        """Describe the examples and what is around them."""
        sizes = Sizes.join([Sizes.of(examples.masks(f)[0]) for f in examples.frames()])
        rows = _Rows(np.random.default_rng(0))
        first = done = 0
        for frame, rgb in _frames(examples):
            masks, tags = examples.masks(frame)
            tiles = self._tiles(rgb, masks, sizes)
            for region, embedding, mine in tiles:
                drawn = masks.select(mine)
                vectors = descriptors(embedding, drawn, rgb, region)
                looks = look_at(embedding, drawn, rgb, region)
                rows.add_examples(vectors, looks, [(first + i, tags[i]) for i in mine])
                rows.add_cells(embedding, region, masks, vectors)
            likeness = rows.likeness()
            for region, embedding, mine in tiles:
                self.report(done, len(examples.objects), "Learning from the examples")
                done += len(mine)
                seen = look(
                    self.model,
                    rgb,
                    region,
                    embedding,
                    sizes,
                    likeness,
                    self.params,
                    self.stop,
                )
                self.seen[tile_key(rgb, region)] = seen
                rows.add_candidates(seen, masks, tags, first)
                copies = rows.lay_copies(masks.select(mine), masks, region)
                rows.rest.append(descriptors(embedding, copies, rgb, region))
            first += len(masks)
        return rows.prototypes(self.model, examples, sizes)

    def _tiles(
        self, rgb: NDArray[np.uint8], masks: Masks, sizes: Sizes
    ) -> list[tuple[Region, Embedding, list[int]]]:
        """Tiles with examples, each example in the tile that shows it best."""
        shape = (rgb.shape[0], rgb.shape[1])
        regions = sizes.regions(shape, self.model, self.params)
        members: dict[int, list[int]] = {}
        for i in range(len(masks)):
            members.setdefault(_best_region(masks.boxes[i], regions), []).append(i)
        return [
            (regions[r], embed(self.model, rgb, regions[r], self.stop), mine)
            for r, mine in sorted(members.items())
        ]


@dataclass
class _Rows:
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
        return Scorer.fit(np.concatenate(self.cells), np.concatenate(self.cell_rest))

    def add_candidates(
        self, seen: Seen, masks: Masks, tags: list[str], first: int
    ) -> None:
        """Take candidates that are an example, or a wrong outline of one."""
        for i in range(len(seen.masks)):
            shared = np.array(
                [seen.masks.intersection(i, j, masks) for j in range(len(masks))]
            )
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
        copies = builder.build()
        free = [
            k
            for k in range(len(copies))
            if all(
                copies.intersection(k, j, masks) <= _TOUCH * copies.area[k]
                for j in range(len(masks))
            )
        ]
        return copies.select(np.array(free, np.intp))

    def prototypes(
        self, model: SamModel, examples: Examples, sizes: Sizes
    ) -> Prototypes:
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


def _frames(examples: Examples) -> Iterator[tuple[FrameIndex, NDArray[np.uint8]]]:
    """RGB of every frame with examples, composed as a run over all frames would."""
    image = examples.image
    composite = (examples.composite or Composite.default(image)).resolve(image)
    for frame in examples.frames():
        yield frame, compose(image.frame(frame), composite)


def _best_region(box: NDArray[np.int32], regions: list[Region]) -> int:
    """Of the tiles that show most of a box, the one in whose middle it lies."""

    def rank(region: Region) -> tuple[float, float]:
        low = np.maximum(box[:2], region.origin)
        high = np.minimum(box[2:], region.box[2:])
        inside = float(np.prod(np.maximum(high - low, 0)))
        middle = (np.array(region.origin) + region.box[2:]) / 2
        return -inside, float(np.abs((box[:2] + box[2:]) / 2 - middle).max())

    return min(range(len(regions)), key=lambda r: rank(regions[r]))
