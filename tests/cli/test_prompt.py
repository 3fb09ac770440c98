from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_sam_suite.cli.app import app
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

runner = CliRunner()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two time points with two bright discs on noise."""
    y, x = np.mgrid[:96, :96]
    frame = np.random.default_rng(0).integers(0, 30, (96, 96)).astype(np.uint8)
    frame[(y - 30) ** 2 + (x - 30) ** 2 < 144] = 220
    frame[(y - 64) ** 2 + (x - 66) ** 2 < 144] = 180
    path = tmp_path / "discs.tif"
    tifffile.imwrite(path, np.stack([frame, frame]), metadata={"axes": "TYX"})
    return path


def call(*arguments: object) -> Any:
    return runner.invoke(app, [str(a) for a in arguments])


def run(image: Path, command: str, *arguments: object) -> dict[str, Any]:
    out = image.parent / "out"
    result = call(command, image, "--out", out, "--json", *arguments)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["images"]
    assert row["error"] is None
    return dict(row)


def saved(image: Path) -> Objects:
    return Objects.load(image.parent / "out" / "discs.geojson")


def test_points_and_boxes_become_objects_of_the_first_frame(image: Path) -> None:
    row = run(image, "prompt", "--points", "30,30; 64,66", "--boxes", "18,18,42,42")
    assert (row["frames"], row["objects"]) == (1, 3)
    table = saved(image).features
    assert list(table["prompt"]) == [1, 2, 3]
    labels = tifffile.imread(image.parent / "out" / "discs.tif")
    assert labels.shape == (2, 96, 96)
    assert not labels[1].any()


def test_prompts_count_in_every_chosen_frame(image: Path) -> None:
    row = run(image, "prompt", "--boxes", "18,18,42,42", "--time", "all")
    assert (row["frames"], row["objects"]) == (2, 2)


def test_tags_come_from_a_csv_file_or_for_all(image: Path) -> None:
    boxes = image.with_suffix(".csv")
    boxes.write_text("y0,x0,y1,x1,tag\n18,18,42,42,round\n52,54,76,78,other\n")
    run(image, "prompt", "--boxes", boxes)
    assert list(saved(image).features["tag"]) == ["round", "other"]
    run(image, "prompt", "--boxes", boxes, "--tag", "cell")
    assert list(saved(image).features["tag"]) == ["cell", "cell"]


def test_a_bad_prompt_is_told_and_the_others_go_on(image: Path) -> None:
    row = run(image, "prompt", "--points", "300,30; 30,30")
    assert row["objects"] == 1
    assert row["notices"][0].startswith("Prompt 1 is left out: the point y 300")


def test_the_whole_frame_has_three_ranked_answers(image: Path) -> None:
    run(image, "prompt", "--whole", "--answers", "all")
    table = saved(image).features
    assert list(table["rank"]) == list(range(1, len(table) + 1))
    assert table["score"].is_monotonic_decreasing


def test_existing_objects_are_drawn_again_where_they_are(image: Path) -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[20:40, 20:40] = 1
    given = Objects.from_labels(labels).with_features(time=1, tag="cell")
    path = image.parent / "given.geojson"
    given.save(path)
    row = run(image, "prompt", "--objects", path, "--use", "both")
    table = saved(image).features
    assert row["frames"] == 1
    assert list(table["time"]) == [1]
    assert list(table["tag"]) == ["cell"]
    assert list(table["parent"]) == list(given.features["id"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to look for"),
        (["--points", "30"], "--points: '30' is not 2 numbers"),
        (["--boxes", "1,2,3,a"], "--boxes: '1,2,3,a' is not 4 numbers"),
        (["--points", "nowhere.csv"], "--points: there is no file 'nowhere.csv'"),
        (["--points", "900,900"], "counted from 0, y before x"),
        (["--whole", "--use", "shape"], "--use cannot be 'shape'"),
        (["--objects", "missing.geojson"], "missing.geojson"),
    ],
)
def test_mistakes_are_one_sentence(
    image: Path, arguments: list[str], words: str
) -> None:
    result = call("prompt", image, "--out", image.parent / "out", *arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_objects_are_carried_on_with_their_numbers(image: Path) -> None:
    labels = np.zeros((96, 96), np.uint8)
    y, x = np.mgrid[:96, :96]
    labels[(y - 30) ** 2 + (x - 30) ** 2 < 144] = 1
    labels[(y - 64) ** 2 + (x - 66) ** 2 < 144] = 2
    given = image.parent / "given.tif"
    tifffile.imwrite(given, labels)
    row = run(image, "propagate", "--objects", given)
    assert (row["frames"], row["objects"]) == (2, 4)
    drawn = tifffile.imread(image.parent / "out" / "discs.tif")
    assert drawn[:, 30, 30].tolist() == [1, 1]
    assert drawn[:, 64, 66].tolist() == [2, 2]
    table = saved(image).features
    assert sorted(table["track"]) == [1, 1, 2, 2]


def test_numbers_of_a_label_image_are_those_of_its_tracks(image: Path) -> None:
    labels = np.zeros((96, 96), np.uint8)
    y, x = np.mgrid[:96, :96]
    labels[(y - 30) ** 2 + (x - 30) ** 2 < 144] = 9
    labels[(y - 64) ** 2 + (x - 66) ** 2 < 144] = 7
    given, out = image.parent / "given.tif", image.parent / "out"
    tifffile.imwrite(given, labels)
    recipe = image.parent / "on.json"
    run(image, "propagate", "--objects", given, "--save-recipe", recipe)
    drawn = tifffile.imread(out / "discs.tif")
    assert drawn[:, 30, 30].tolist() == [9, 9]
    assert drawn[:, 64, 66].tolist() == [7, 7]
    assert sorted(saved(image).features["track"]) == [7, 7, 9, 9]
    shapes = json.loads(recipe.read_text())["capability"]["objects"]
    assert [shape["track"] for shape in shapes] == [7, 9]


def test_propagation_offers_no_answers_to_choose_from() -> None:
    assert "--answers" in call("prompt", "--help").output
    offered = call("propagate", "--help").output
    assert "--answers" not in offered
    assert "--mask-threshold" in offered


def test_objects_without_a_frame_are_put_where_start_says(image: Path) -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[20:40, 20:40] = 1
    given = image.parent / "given.tif"
    tifffile.imwrite(given, labels)
    run(
        image,
        *("propagate", "--objects", given, "--start", 2, "--direction", "backward"),
    )
    assert sorted(saved(image).features["time"]) == [0, 1]


def test_a_way_that_leads_nowhere_is_said(image: Path) -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[20:40, 20:40] = 1
    given = image.parent / "given.tif"
    tifffile.imwrite(given, labels)
    out = image.parent / "out"
    result = call("propagate", image, "--objects", given, "--out", out, "--axis", "z")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "has only one plane, so there is no way along z" in said
    assert "Set --axis to time: it has 2 time points" in said


@pytest.mark.parametrize("command", ["prompt", "propagate"])
def test_objects_of_an_image_of_another_size_are_refused(
    image: Path, command: str
) -> None:
    labels = np.zeros((50, 70), np.uint8)
    labels[20:40, 20:40] = 1
    given = image.parent / "given.tif"
    tifffile.imwrite(given, labels)
    result = call(command, image, "--objects", given, "--out", image.parent / "out")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "of an image of 50 x 70 pixels, and 'discs' has 96 x 96" in said


def test_embeddings_are_kept_where_asked(image: Path) -> None:
    folder = image.parent / "embeddings"
    run(image, "prompt", "--points", "30,30", "--embeddings", folder)
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_nothing_of_the_progress_is_in_a_pipe(image: Path) -> None:
    out = image.parent / "out"
    result = call("prompt", image, "--points", "30,30", "--out", out)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "\n\n" not in result.stdout


@pytest.mark.parametrize("command", ["prompt", "propagate"])
def test_the_objects_that_are_read_are_never_written_over(
    image: Path, command: str
) -> None:
    run(image, "prompt", "--points", "30,30")
    objects = (image.parent / "out" / "discs.geojson").rename(
        image.with_name("discs.geojson")
    )
    before = objects.read_bytes()
    asked = (command, image, "--objects", objects, "--format", "geojson")
    result = call(*asked, "--out", image.parent)
    assert result.exit_code == 1
    assert "discs.geojson would overwrite the input" in " ".join(result.output.split())
    assert objects.read_bytes() == before
