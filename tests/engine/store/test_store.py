from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.batch.experiments import AUTO, recipe_of, write_stack
from engine.fewshot.test_prototypes import learnt
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.errors import MissingExtra, OutputError
from napari_sam_suite.engine.fewshot import verifier
from napari_sam_suite.engine.formats import extras
from napari_sam_suite.engine.recipe import FewShot
from napari_sam_suite.engine.store.collect import collect
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from engine.fakes import FakeSam
    from napari_sam_suite.engine.recipe import Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    write_stack(tmp_path / "a.tif", 2)
    write_stack(tmp_path / "b.tif", 2)
    return recipe_of(tmp_path / "*.tif", store=tmp_path / "store", capability=AUTO)


def test_a_store_of_which_only_the_first_file_is_there_is_begun_again(
    recipe: Recipe, tmp_path: Path, model: FakeSam
) -> None:
    Store.create(recipe)
    store = tmp_path / "store"
    names = ("manifest.json", "recipe.json")
    first = min(names, key=lambda name: (store / name).stat().st_mtime_ns)
    for name in set(names) - {first}:
        (store / name).unlink()
    assert run_recipe(recipe).complete


def test_a_manifest_of_something_else_is_not_written_over(
    recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text('{"name": "an app"}')
    with pytest.raises(OutputError, match="other files"):
        Store.create(recipe)
    assert manifest.read_text() == '{"name": "an app"}'


def test_results_of_other_weights_are_refused(
    recipe: Recipe, tmp_path: Path, model: FakeSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other weights are another file.
    stamp = "napari_sam_suite.engine.batch.run._stamp"
    monkeypatch.setattr(stamp, lambda _: model.identity)
    model.identity = "one-torch.float32"
    assert run_recipe(recipe).done == 4
    model.identity = "one-torch.bfloat16"  # the same on another device
    assert run_recipe(recipe).skipped == 4
    model.identity = "two-torch.float32"
    with pytest.raises(OutputError, match="other weights of the model sam2-nano"):
        run_recipe(recipe)
    elsewhere = recipe.changed(outputs={"store": str(tmp_path / "elsewhere")})
    assert run_recipe(elsewhere).done == 4


def test_results_of_other_prototypes_in_the_same_file_are_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "cells.safetensors"
    learnt().save(path)
    few = FewShot(prototypes=str(path))
    recipe = recipe.model_copy(update={"capability": few})
    Store.create(recipe).begin({}, "weights")
    Store.create(recipe).begin({}, "weights")
    learnt(labels=("bud",) * 5 + ("cell",) * 5 + ("dirt",) * 5).save(path)
    with pytest.raises(OutputError, match=r"cells\.safetensors has changed"):
        Store.create(recipe).begin({}, "weights")


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_few_shot_does_not_go_on_with_another_verifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    recipe = recipe_of(tmp_path / "*.tif", store=tmp_path / "store")
    few = FewShot(params={"mode": mode}, prototypes=str(tmp_path / "cells"))
    learnt().save(tmp_path / "cells")
    recipe = recipe.model_copy(update={"capability": few})
    Store.create(recipe).begin({}, "weights")
    monkeypatch.setattr(verifier, "verifier_id", lambda: "newer")
    if mode == "exact":  # which asks no verifier
        Store.create(recipe).begin({}, "weights")
        return
    with pytest.raises(OutputError, match="few-shot of another release"):
        Store.create(recipe).begin({}, "weights")


def test_a_package_that_results_need_is_missed_before_any_work(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match=r"pyarrow.*\n?.*\[scale\]"):
        Store.create(recipe)
    assert not (tmp_path / "store").exists()


def test_a_damaged_record_is_the_images_own_failure(
    recipe: Recipe, tmp_path: Path, model: FakeSam
) -> None:
    run_recipe(recipe)
    (tmp_path / "store" / "images" / "a" / "image.json").write_text("{")
    again = run_recipe(recipe)
    assert (again.skipped, again.failed_images) == (2, 1)
    assert "image.json is damaged" in again.failures[0]["message"]
    collected = collect(Store.open(tmp_path / "store"), tmp_path / "out", ("geojson",))
    assert (collected.images, len(collected.failures)) == (1, 1)


def test_a_frame_whose_file_is_empty_is_done_again_and_a_damaged_one_is_named(
    recipe: Recipe, tmp_path: Path, model: FakeSam
) -> None:
    run_recipe(recipe)
    files = sorted((tmp_path / "store" / "images" / "a" / "objects").iterdir())
    whole = files[0].read_bytes()
    files[0].write_bytes(b"")
    again = run_recipe(recipe)
    assert (again.done, again.skipped) == (1, 3)
    assert files[0].read_bytes()[:4] == whole[:4] == b"PAR1"
    files[1].write_bytes(whole[:50])
    found = collect(Store.open(tmp_path / "store"), tmp_path / "out", ["geojson"])
    [failure] = found.failures
    assert files[1].name in failure["message"] and "run again" in failure["hint"]
    assert found.images == 1
