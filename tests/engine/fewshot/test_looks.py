"""What the verifier sees stays with its masks, from the tile to the choice."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.examples import choose_examples
from napari_sam_suite.engine.fewshot.fast import embed
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.fewshot.verifier import SUMMARY, look_at
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.objects import Objects
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.tiles import Region

SIDE, FRAMES = 240, 2


@cache
def searched() -> tuple[SamModel, FewShot, list[np.ndarray]]:
    """Nuclei of two time points, three examples in each, and a search in tiles."""
    nano = load_model("sam2-nano", device="cpu", precision="float32")
    scenes = [
        synthesize("touching nuclei", (SIDE, SIDE), seed, diameter=44)
        for seed in range(FRAMES)
    ]
    frames = [
        compose(open_image(scene.image, axes="YX").frame(FrameIndex()))
        for scene in scenes
    ]
    image = open_image(np.stack(frames), axes="TYXC")
    shapes = []
    for k, scene in enumerate(scenes):
        every = Objects.from_labels(scene.labels, FrameIndex(time=k), tag="nucleus")
        large = (every.features["area"] > 300).to_numpy()
        shapes.append(every.select(np.flatnonzero(large)[[0, 2, 4]]))
    examples = choose_examples(image, Objects.concat(shapes), ["nucleus"])
    finder = FewShot(
        FewShotParams(tile=170), examples, known=examples.objects, keep=True
    )
    for k, rgb in enumerate(frames):
        frame = FrameIndex(time=k)
        finder(nano, rgb, frame, report=lambda *_: None, stop=lambda: False)
    return nano, finder, frames


def pictures(
    nano: SamModel, rgb: np.ndarray, masks: Masks, regions: list[Region]
) -> list[np.ndarray]:
    """Summaries (N, 96) of masks in each of the tiles."""
    return [
        look_at(embed(nano, rgb, region, lambda: False), masks, rgb, region)[
            :, :SUMMARY
        ]
        for region in regions
    ]


def tiles(nano: SamModel, finder: FewShot) -> list[Region]:
    assert finder.prototypes is not None
    return finder.prototypes.sizes.regions((SIDE, SIDE), nano, finder.params)


def best(seen: np.ndarray, wanted: list[np.ndarray]) -> np.ndarray:
    """How far each of (N, 96) is from the nearest of what tiles show of it."""
    return np.min([np.abs(seen - one).max(1) for one in wanted], 0)


def test_candidates_keep_their_own_looks_in_every_tile_and_frame() -> None:
    nano, finder, frames = searched()
    regions = tiles(nano, finder)
    assert len(regions) > 1
    for k, rgb in enumerate(frames):
        seen = finder.seen[FrameIndex(time=k)]
        rows = np.linspace(0, len(seen.masks) - 1, 12).astype(int)
        wanted = pictures(nano, rgb, seen.masks.select(rows), regions)
        assert best(seen.looks[rows, :SUMMARY], wanted).max() < 1e-3
        assert best(seen.looks[rows[::-1], :SUMMARY], wanted).max() > 0.1


def test_examples_keep_their_own_looks() -> None:
    nano, finder, frames = searched()
    prototypes, regions = finder.prototypes, tiles(nano, finder)
    assert prototypes is not None
    assert len(prototypes.looks) == len(prototypes.vectors) > 12
    drawn = np.flatnonzero(np.isnan(prototypes.rated))
    assert prototypes.groups[drawn].tolist() == [0, 1, 2, 3, 4, 5]
    for k, rgb in enumerate(frames):
        masks, _ = finder.examples.masks(FrameIndex(time=k))
        wanted = pictures(nano, rgb, masks, regions)
        mine = prototypes.looks[drawn[3 * k : 3 * k + 3], :SUMMARY]
        assert best(mine, wanted).max() < 1e-3


def test_outlines_by_the_model_have_looks_of_themselves() -> None:
    _, finder, _ = searched()
    prototypes = finder.prototypes
    assert prototypes is not None
    copies = np.flatnonzero(np.isfinite(prototypes.rated))
    looks = prototypes.looks[copies]
    assert len(np.unique(looks.round(3), axis=0)) > 0.9 * len(copies)
    # The first sign is the size, of which the example tells about the same.
    own = prototypes.areas[prototypes.groups[copies]]
    assert np.corrcoef(looks[:, SUMMARY], np.log(own))[0, 1] > 0.8


def test_prototypes_without_looks_are_told_once() -> None:
    nano, finder, frames = searched()
    assert finder.prototypes is not None
    blind = replace(finder.prototypes, looks=finder.prototypes.looks[:, :0])
    again = FewShot(finder.params, prototypes=blind)
    rgb = np.ascontiguousarray(frames[0][:120, :120])
    said = [
        again(
            nano,
            rgb,
            FrameIndex(time=k),
            report=lambda *_: None,
            stop=lambda: False,
        ).notices
        for k in range(2)
    ]
    assert "make them anew" in said[0][0]
    assert said[1] == ()


def test_what_is_found_depends_on_the_looks() -> None:
    _, finder, _ = searched()
    frame = FrameIndex()
    seen, found = finder.seen[frame], finder.filter(frame)
    blind = replace(seen, looks=seen.looks[:, :0])
    mixed = replace(seen, looks=seen.looks[::-1])
    for other in (blind, mixed):
        finder.seen[frame] = other
        again = finder.filter(frame)
        assert found.columns["similarity"] != again.columns["similarity"]
    finder.seen[frame] = seen
    assert finder.filter(frame).columns["similarity"] == found.columns["similarity"]
