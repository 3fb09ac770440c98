"""From examples to prototypes: what they look like, and what looks otherwise."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.composite import Composite, compose
from napari_sam_suite.engine.errors import Cancelled
from napari_sam_suite.engine.fewshot.exact import crop_vectors
from napari_sam_suite.engine.fewshot.fast import (
    Seen,
    Sizes,
    embed,
    look,
    tile_key,
)
from napari_sam_suite.engine.fewshot.pooling import (
    descriptors,
)
from napari_sam_suite.engine.fewshot.progress import part_of
from napari_sam_suite.engine.fewshot.prototypes import Prototypes
from napari_sam_suite.engine.fewshot.rows import Rows, Tile
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

_KEPT = 32
"""Tiles whose embeddings are kept until they are looked at; others are encoded again,
for they take memory of the device."""
_TEXT = "Learning from the examples"


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
    """Learns from examples in fast mode; encodes tiles with examples once.

    Of more than 32 such tiles those beyond are encoded twice.

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
        """Describe the examples and what is around them.

        What is around them is looked for once all are described: points are asked
        where something is like any of them, as in a search.
        """
        sizes = Sizes.join([Sizes.of(examples.masks(f)[0]) for f in examples.frames()])
        rows = Rows(np.random.default_rng(0))
        kept: deque[Embedding] = deque()
        for tile in self._tiles(examples, sizes, part_of(self.report, 0, 2)):
            embedding = embed(self.model, tile.rgb, tile.region, self.stop)
            if len(kept) < _KEPT:
                kept.append(embedding)
            rows.add_examples_of(tile, embedding)
        likeness = rows.likeness()
        for tile in self._tiles(examples, sizes, part_of(self.report, 1, 2)):
            rgb, region = tile.rgb, tile.region
            if kept:
                embedding = kept.popleft()
            else:
                embedding = embed(self.model, rgb, region, self.stop)
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
            rows.add_candidates(seen, tile.masks, tile.tags, tile.first)
            copies = rows.lay_copies(tile.drawn, tile.masks, region)
            rows.rest.append(descriptors(embedding, copies, rgb, region))
        return rows.prototypes(self.model, examples, sizes)

    def _tiles(
        self, examples: Examples, sizes: Sizes, report: Report
    ) -> Iterator[Tile]:
        """Tiles with examples, each example in the tile that shows it best."""
        first = done = 0
        for frame, rgb in _frames(examples):
            masks, tags = examples.masks(frame)
            shape = (rgb.shape[0], rgb.shape[1])
            regions = sizes.regions(shape, self.model, self.params)
            members: dict[int, list[int]] = {}
            for i in range(len(masks)):
                members.setdefault(_best_region(masks.boxes[i], regions), []).append(i)
            for r, mine in sorted(members.items()):
                report(done, len(examples.objects), _TEXT)
                if self.stop():
                    raise Cancelled
                yield Tile(rgb, regions[r], masks, tags, first, mine)
                done += len(mine)
            first += len(masks)
        report(done, done, _TEXT)


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
