from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_sam_suite.cli.app import app
from napari_sam_suite.cli.coordinates import read_numbers
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


@pytest.mark.parametrize(
    ("text", "numbers", "tags"),
    [
        ("30,40\n50,60,cell\n", [[30, 40], [50, 60]], ["", "cell"]),
        ("y,x\n30,40\n", [[30, 40]], [""]),
        ("x,y\n40,30\n", [[30, 40]], [""]),
        ("X, Y ,Tag\n40,30,cell\n", [[30, 40]], ["cell"]),
        ("y,x,kind,note\n30,40,cell,a\n", [[30, 40]], ["cell"]),
        ("tag,x,y\ncell,40,30\n", [[30, 40]], ["cell"]),
        ("y,x,time\n30,40,2\n", [[30, 40]], [""]),
        ("index,axis-0,axis-1\n0,30,40\n", [[30, 40]], [""]),
        ("index,axis-0,axis-1,class\n0,30,40,a\n", [[30, 40]], ["a"]),
        (
            " ,Label,Area,X,Y,Slice\n1,a.tif,0,40,30,1\n2,a.tif,0,60,50,1\n",
            [[30, 40], [50, 60]],
            ["", ""],
        ),
        ("y,x\n", [], []),
    ],
)
def test_points_are_taken_by_their_heading(
    tmp_path: Path, text: str, numbers: list[list[float]], tags: list[str]
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    assert read_numbers(str(path), 2, "points") == (numbers, tags)


@pytest.mark.parametrize(
    "text",
    [
        "y0,x0,y1,x1\n10,20,39,69\n",
        "X0,Y0,X1,Y1\n20,10,69,39\n",
        " ,Area,BX,BY,Width,Height\n1,7,20,10,50,30\n",
    ],
)
def test_boxes_are_taken_by_their_heading(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    assert read_numbers(str(path), 4, "boxes") == ([[10, 20, 39, 69]], [""])


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("points", "row,col\n3,4\n", "the heading 'row,col'; known are y,x and axis-0"),
        ("points", "y0,x0,y1,x1\n1,2,3,4\n", "known are y,x and axis-0,axis-1"),
        ("boxes", "y,x\n3,4\n", "known are y0,x0,y1,x1 and BX,BY,Width,Height"),
        ("points", "index,axis-0,axis-1,axis-2\n0,1,2,3\n", "a.csv has 3 axes"),
        ("points", "x,y,Slice\n3,4,1\n3,4,2\n", "of several frames, by its column"),
        ("points", "x,y\n3,here\n", "'here,3' is not 2 numbers"),
    ],
)
def test_headings_that_are_not_understood_are_refused(
    image: Path, flag: str, text: str, words: str
) -> None:
    path = image.with_name("a.csv")
    path.write_text(text)
    result = call("prompt", image, f"--{flag}", path, "--out", image.parent / "out")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert f"--{flag}: " in said
    assert words in said


@pytest.mark.parametrize(
    ("text", "flags", "hint"),
    [
        ("y,x,time\n30,30,2\n", ("--time", "2"), "--time, counted from 1"),
        (" ,X,Y,Slice\n1,30,30,2\n", ("--time", "2"), "--z or --time"),
        ("y,x,position\n30,30,5\n", ("--positions", "1"), "--positions, counted"),
    ],
)
def test_points_of_another_frame_than_the_first_need_one_that_is_chosen(
    image: Path, text: str, flags: tuple[str, ...], hint: str
) -> None:
    path = image.with_name("a.csv")
    path.write_text(text)
    result = call("prompt", image, "--points", path, "--out", image.parent / "out")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "a.csv is of another frame than the first" in said
    assert hint in said
    run(image, "prompt", "--points", path, *flags)
    assert list(saved(image).features["time"]) == [int("--time" in flags)]


@pytest.mark.parametrize("value", ["0", "1", "1.0", "", "B03"])
def test_points_of_the_first_frame_need_no_word_on_it(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(f"y,x,time\n30,40,{value}\n")
    unsaid = ["positions", "z", "time"]
    assert read_numbers(str(path), 2, "points", unsaid) == ([[30, 40]], [""])


def test_boxes_are_told_of_points_in_them_that_do_not_belong(image: Path) -> None:
    recipe = image.parent / "said.json"
    boxes, outside = "42,42,18,18; 52,54,76,78", "20,40; 90,5"
    given = ("--boxes", boxes, "--outside", outside, "--save-recipe", recipe)
    run(image, "prompt", *given, "--points", "64,66")
    prompts = json.loads(recipe.read_text())["capability"]["prompts"]
    assert [prompt.get("outside", []) for prompt in prompts] == [
        [[20, 40], [90, 5]],
        [[20, 40]],
        [],
    ]


@pytest.mark.parametrize("flag", ["--whole", "--objects"])
def test_points_outside_of_nothing_that_is_typed_are_refused(
    image: Path, flag: str
) -> None:
    given: list[object] = [flag]
    if flag == "--objects":
        labels = np.zeros((96, 96), np.uint8)
        labels[20:40, 20:40] = 1
        given += [image.parent / "given.tif"]
        tifffile.imwrite(image.parent / "given.tif", labels)
    out = image.parent / "out"
    result = call("prompt", image, *given, "--outside", "20,20", "--out", out)
    assert result.exit_code == 1
    assert "Give --points or --boxes" in " ".join(result.output.split())


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


def test_one_axis_typed_beside_objects_leaves_points_in_the_first_of_the_others(
    tmp_path: Path, image: Path
) -> None:
    """As without objects, which themselves stay in their frames."""
    discs = tifffile.imread(image)[0]
    movie = tmp_path / "movie.tif"
    tifffile.imwrite(movie, np.broadcast_to(discs, (2, 3, *discs.shape)).copy(),
                     imagej=True, metadata={"axes": "TZYX"})  # fmt: skip
    labels = np.zeros((96, 96), np.uint8)
    labels[54:75, 56:77] = 1
    given = tmp_path / "given.geojson"
    Objects.from_labels(labels).with_features(time=1, z=2).save(given)
    said = ("prompt", "--objects", given, "--points", "30,30")
    for flags, places in (
        (("--time", "2"), [(1, 0), (1, 2)]),
        (("--z", "2-3"), [(0, 1), (0, 2), (1, 2)]),
        (("--time", "all", "--z", "all"),
         [(t, z) for t in (0, 1) for z in (0, 1, 2)] + [(1, 2)]),
    ):  # fmt: skip
        recipe = tmp_path / "said.json"
        recipe.unlink(missing_ok=True)
        run(movie, *said, *flags, "--save-recipe", recipe)
        table = Objects.load(movie.parent / "out" / "movie.geojson").features
        found = sorted(zip(table["time"], table["z"], strict=True))
        assert found == places
        prompts = json.loads(recipe.read_text())["capability"]["prompts"]
        assert len(prompts) == len(places)


def test_what_is_typed_beside_objects_is_for_the_first_frame(image: Path) -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[54:75, 56:77] = 1
    path = image.parent / "given.geojson"
    Objects.from_labels(labels).with_features(time=1).save(path)
    said = ("prompt", "--objects", path, "--points", "30,30")
    assert run(image, *said)["objects"] == 2
    assert list(saved(image).features["time"]) == [0, 1]
    assert run(image, *said, "--time", "all")["objects"] == 3
    assert list(saved(image).features["time"]) == [0, 1, 1]
    recipe = image.parent / "said.json"
    run(image, *said, "--save-recipe", recipe)
    prompts = json.loads(recipe.read_text())["capability"]["prompts"]
    assert [prompt["frame"] for prompt in prompts] == [[1, 1, 1], [1, 2, 1]]


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


def test_of_several_frames_with_that_start_one_has_to_be_chosen(
    tmp_path: Path, image: Path
) -> None:
    discs = tifffile.imread(image)[0]
    movie = tmp_path / "movie.tif"
    tifffile.imwrite(movie, np.broadcast_to(discs, (2, 3, *discs.shape)).copy(),
                     imagej=True, metadata={"axes": "TZYX"})  # fmt: skip
    labels = np.zeros((96, 96), np.uint8)
    labels[54:75, 56:77] = 1
    one = Objects.from_labels(labels)
    given = tmp_path / "given.geojson"
    planes = [one.with_features(z=z, time=t) for t in (0, 1) for z in (0, 2)]
    Objects.concat(planes).save(given)
    asked = ("propagate", "--objects", given, "--axis", "time")
    for flags, words in (
        (("--start", 1), "time 1 are of 2 frames: z 1, 3. Say in which one to begin "
                         "with --z."),
        ((), "are of 4 frames: z 1, 3; time 1-2. Say in which one to begin with --z "
             "and --start."),
        (("--start", 1, "--z", 2), "There are no objects in z 2, time 1."),
        (("--start", 1, "--time", 2), "--start and --time name different frames"),
    ):  # fmt: skip
        result = call(asked[0], movie, *asked[1:], "--out", tmp_path / "out", *flags)
        assert result.exit_code == 1
        assert words in " ".join(result.output.split())
    for flags in ("--start", 1, "--z", 3), ("--time", 1, "--z", 3):
        run(movie, *asked, *flags)
        table = Objects.load(tmp_path / "out" / "movie.geojson").features
        assert list(zip(table["time"], table["z"], strict=True)) == [(0, 2), (1, 2)]
    one.save(given)
    run(movie, *asked, "--start", 2, "--z", 3, "--direction", "backward")
    table = Objects.load(tmp_path / "out" / "movie.geojson").features
    assert sorted(zip(table["time"], table["z"], strict=True)) == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("command", "frames"),
    [
        (("propagate", "--start", 2, "--direction", "forward"), 3),
        (("propagate", "--steps", 1), 2),
        (("prompt",), 1),
    ],
)
def test_frames_that_nobody_asked_for_are_not_missing(
    image: Path, command: tuple[object, ...], frames: int
) -> None:
    movie = np.repeat(tifffile.imread(image), 2, axis=0)
    options = {"photometric": "minisblack", "metadata": {"axes": "TYX"}}
    tifffile.imwrite(image, movie, **options)
    labels = np.zeros((96, 96), np.uint8)
    labels[20:40, 20:40] = 1
    given = image.parent / "given.tif"
    tifffile.imwrite(given, labels)
    Objects.load(given).save(given.with_suffix(".geojson"))
    name, *flags = command
    row = run(image, name, "--objects", given.with_suffix(".geojson"), *flags)
    assert (row["frames"], row["partial"]) == (frames, False)
    assert not any("were finished" in text for text in row["notices"])


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
