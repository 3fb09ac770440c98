from __future__ import annotations

from typing import TYPE_CHECKING

import tifffile

from engine.batch.experiments import recipe_of, write_stack
from engine.fewshot.test_prototypes import learnt
from engine.fewshot_fakes import RED, dots, tagged
from napari_sam_suite.engine.batch.work import plan_image
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.prompts.prompt import Prompt
from napari_sam_suite.engine.recipe import FewShot, Frames, Prompted
from napari_sam_suite.engine.recorded import Said, to_shapes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from napari_sam_suite.engine.recipe import Recipe


def searching(folder: Path, image: str) -> Recipe:
    """Few-shot on two pictures, with two examples on `image`."""
    for name in "ab":
        pixels = dots((64, 64), (20, 20, RED), (20, 40, RED))
        tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="rgb")
    drawn = tagged((64, 64), (20, 20, "cell"), (20, 40, "cell"))
    few = FewShot(tags=("cell",), examples=to_shapes(drawn), image=image)
    return recipe_of(folder / "*.tif", store=folder / "store", capability=few)


def test_examples_are_known_on_their_image_however_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = searching(tmp_path, "a.tif")
    finder, _, _ = plan_image(recipe, open_image(tmp_path / "a.tif"), learnt())
    assert len(finder.known) == 2
    finder, _, _ = plan_image(recipe, open_image(tmp_path / "b.tif"), learnt())
    assert finder.known is None


def test_once_it_is_learnt_other_images_do_without_that_of_the_examples(
    tmp_path: Path,
) -> None:
    recipe = searching(tmp_path, str(tmp_path / "a.tif"))
    (tmp_path / "a.tif").unlink()
    finder, frames, _ = plan_image(recipe, open_image(tmp_path / "b.tif"), learnt())
    assert finder.prototypes is not None and len(frames) == 1


def test_examples_are_learnt_from_though_their_image_has_not_the_frames(
    tmp_path: Path,
) -> None:
    recipe = searching(tmp_path, str(tmp_path / "a.tif"))
    movie = write_stack(tmp_path / "b.tif", 3)
    recipe = recipe.model_copy(update={"frames": Frames(time="2-3")})
    finder, frames, _ = plan_image(recipe, open_image(movie))
    assert len(finder.examples.objects) == 2 and len(frames) == 2


def test_prompts_on_none_of_the_chosen_frames_are_told(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "a.tif", 3)
    said = Said.of(Prompt(inside=((1.0, 2.0),), frame=FrameIndex(0, 2, 0)))
    for time, told in (("1-2", True), ("3", False)):
        recipe = recipe_of(
            path,
            store=tmp_path / "store",
            capability=Prompted(prompts=(said,)),
            frames=Frames(time=time),
        )
        _, frames, notices = plan_image(recipe, open_image(path))
        assert len(frames) == 1
        assert any("No prompt is on a frame" in text for text in notices) == told
