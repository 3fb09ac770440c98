"""The command ``few-shot``, with the embedded model on small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from commands import answer, explains, names, run
from engine.fewshot_fakes import tagged
from napari_sam_suite.cli.fewshot import Finding
from napari_sam_suite.engine.errors import ParameterError
from napari_sam_suite.engine.fewshot.prototypes import Prototypes
from napari_sam_suite.engine.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam_suite.engine.image import ImageSource

SPOTS = [(20, 20), (20, 60), (20, 100), (60, 20), (60, 60), (60, 100), (100, 60)]
SHAPE = (128, 128)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Bright discs on grey."""
    y, x = np.mgrid[:128, :128]
    pixels = np.full(SHAPE, 40, np.uint8)
    for cy, cx in SPOTS:
        pixels[(y - cy) ** 2 + (x - cx) ** 2 <= 64] = 220
    path = tmp_path / "dots.tif"
    tifffile.imwrite(path, pixels)
    return path


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.geojson"
    shapes = tagged(SHAPE, *[(y, x, "dot") for y, x in SPOTS[:3]], radius=8)
    shapes.save(path)
    return path


def few_shot(image: Path, *arguments: object):
    out = image.parent / "out"
    return run("few-shot", image, "--out", out, "--points-per-side", 16, *arguments)


def test_it_finds_what_is_like_the_examples(image: Path, examples: Path) -> None:
    result = few_shot(image, "--examples", examples, "--tag", "dot", "--json")
    assert result.exit_code == 0, result.output
    row = answer(result)["images"][0]
    assert row["objects"] >= 3
    assert row["notices"] == ["The 3 examples are not among the objects found."]
    found = Objects.load(image.parent / "out" / "dots.geojson")
    assert set(found.features["tag"]) == {"dot"}
    assert {"similarity", "runner_up", "margin"} <= set(found.features.columns)
    labels = tifffile.imread(image.parent / "out" / "dots.tif")
    assert labels.shape == SHAPE
    assert not labels[20, [20, 60, 100]].any()


def test_a_label_image_gives_examples_too(image: Path, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint16)
    y, x = np.mgrid[:128, :128]
    for number, (cy, cx) in enumerate(SPOTS[:3], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 64] = number
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels)
    result = few_shot(image, "--examples", path, "--tag", "dot", "--json")
    assert result.exit_code == 0, result.output
    assert answer(result)["images"][0]["objects"] >= 3


def test_what_was_learnt_serves_another_run(image: Path, examples: Path) -> None:
    saved = image.parent / "learnt" / "dots.safetensors"
    first = few_shot(
        image, "--examples", examples, "--tag", "dot", "--save-prototypes", saved
    )
    assert first.exit_code == 0, first.output
    assert names(saved.parent) == ["dots.json", "dots.safetensors"]
    assert all(str(saved.parent / name) in first.stdout for name in names(saved.parent))
    result = few_shot(image, "--prototypes", saved, "--json")
    assert result.exit_code == 0, result.output
    [row] = answer(result)["images"]
    assert row["objects"] >= 6 and not row["notices"]


# What is wrong is told before anything is loaded


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""
    import napari_sam_suite.engine.models.load as load

    def fail(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(load, "load_model", fail)


@pytest.mark.usefixtures("no_model")
class TestMistakes:
    def test_no_tag(self, image: Path, examples: Path) -> None:
        result = few_shot(image, "--examples", examples)
        explains(result, "No tag was chosen", "--tag", "The tags there are:", "dot")

    def test_a_place_where_prototypes_cannot_be_saved(
        self, image: Path, examples: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        there = ("--tag", "dot", "--save-prototypes", tmp_path / "file" / "dots")
        result = few_shot(image, "--examples", examples, *there)
        explains(result, "--save-prototypes")

    def test_a_tag_that_no_shape_has(self, image: Path, examples: Path) -> None:
        result = few_shot(image, "--examples", examples, "--tag", "mouse")
        explains(result, "no shapes with the tag 'mouse'", "dot")

    def test_a_tag_that_is_also_not_meant(self, image: Path, examples: Path) -> None:
        result = few_shot(image, "--examples", examples, "--tag", "dot", "--not", "dot")
        explains(result, "'dot' is to be found and not")

    def test_neither_examples_nor_prototypes(self, image: Path) -> None:
        explains(few_shot(image, "--tag", "dot"), "--examples", "--prototypes")

    def test_examples_that_are_not_there(self, image: Path) -> None:
        result = few_shot(image, "--examples", "nowhere.geojson", "--tag", "dot")
        explains(result, "nowhere.geojson")

    def test_a_file_without_shapes(self, image: Path, tmp_path: Path) -> None:
        none, empty = tmp_path / "none.geojson", tmp_path / "empty.tif"
        none.write_text('{"type": "FeatureCollection", "features": []}')
        tifffile.imwrite(empty, np.zeros(SHAPE, np.uint16))
        for path in (none, empty):
            result = few_shot(image, "--examples", path, "--tag", "dot")
            explains(result, f"There are no shapes in {path.name}.")

    def test_shapes_that_are_all_empty(self, image: Path, tmp_path: Path) -> None:
        path = tmp_path / "points.geojson"
        ring = "[[5, 5], [5, 5], [5, 5], [5, 5]]"
        path.write_text(
            '{"type": "FeatureCollection", "features": [{"type": "Feature", '
            '"properties": {"tag": "dot"}, '
            f'"geometry": {{"type": "Polygon", "coordinates": [{ring}]}}}}]}}'
        )
        result = few_shot(image, "--examples", path, "--tag", "dot")
        explains(result, "All shapes in points.geojson are empty.")

    def test_labels_of_another_size(self, image: Path, tmp_path: Path) -> None:
        path = tmp_path / "labels.tif"
        tifffile.imwrite(path, np.ones((32, 48), np.uint16))
        result = few_shot(image, "--examples", path, "--tag", "dot")
        explains(result, "32 x 48", "128 x 128")

    def test_prototypes_that_are_not_there(self, image: Path) -> None:
        explains(few_shot(image, "--prototypes", "nowhere"), "nowhere.safetensors")

    def test_a_folder_in_place_of_prototypes(self, image: Path) -> None:
        explains(few_shot(image, "--prototypes", "."), "'.' is no name for prototypes")

    @pytest.mark.parametrize("flag", ["--tag", "--not"])
    def test_tags_that_prototypes_do_not_have(
        self, image: Path, tmp_path: Path, flag: str
    ) -> None:
        none = np.zeros(0, np.float32)
        learnt = Prototypes(
            "sam2-nano", "", "fast", ("dot",), ("dust",), (), none, none, none, none
        )
        learnt.save(tmp_path / "dots")
        given = ("--prototypes", tmp_path / "dots")
        result = few_shot(image, *given, flag, "mouse")
        explains(result, "find dot, and nothing else", "--examples")

    def test_a_threshold_that_is_none(self, image: Path, examples: Path) -> None:
        result = few_shot(
            image, "--examples", examples, "--tag", "dot", "--threshold", "high"
        )
        explains(result, "threshold")

    def test_too_many_points_for_sam_1(self, image: Path, examples: Path) -> None:
        result = run(
            "few-shot", image, "--out", image.parent / "out", "--mode", "exact",
            "--examples", examples, "--tag", "dot", "--points-per-side", 256,
            "--model", "sam_vit_b_01ec64",
        )  # fmt: skip
        explains(result, "256", "16 to 128")

    def test_areas_that_leave_no_room(self, image: Path, examples: Path) -> None:
        result = few_shot(
            image, "--examples", examples, "--tag", "dot",
            "--min-area", 100, "--max-area", 50,
        )  # fmt: skip
        explains(result, "--max-area cannot be 50", "--min-area is 100")


# What was learnt from is never overwritten


@pytest.mark.usefixtures("no_model")
class TestInputsOutliveTheRun:
    @pytest.mark.parametrize(
        ("written", "ending"),
        [
            ("labels", ".tif"),
            ("geojson", ".geojson"),
            ("coco", ".coco.json"),
            ("rois", ".rois.zip"),
        ],
    )
    def test_examples_where_a_result_would_go(
        self, image: Path, tmp_path: Path, written: str, ending: str
    ) -> None:
        path = tmp_path / "drawn" / f"dots{ending}"
        path.parent.mkdir()
        path.write_bytes(b"work of an afternoon")
        result = run(
            "few-shot", image, "--out", path.parent, "--examples", path,
            "--tag", "dot", "--format", written,
        )  # fmt: skip
        explains(result, "would overwrite the examples", path.name, "--out")
        assert path.read_bytes() == b"work of an afternoon"

    def test_examples_where_the_result_of_a_later_image_would_go(
        self, image: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "other.geojson"
        path.write_text("{}")
        result = run(
            "few-shot", image, tmp_path / "other.ome.tif", "--out", tmp_path,
            "--examples", path, "--tag", "dot", "--format", "geojson",
        )  # fmt: skip
        explains(result, "would overwrite the examples")

    def test_examples_under_another_name_of_the_same_file(
        self, image: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "dots.geojson"
        path.write_text("{}")
        link = tmp_path / "link.geojson"
        link.symlink_to(path)
        result = run(
            "few-shot", image, "--out", tmp_path, "--examples", link,
            "--tag", "dot", "--format", "geojson",
        )  # fmt: skip
        explains(result, "would overwrite the examples")

    def test_prototypes_where_a_result_would_go(
        self, image: Path, tmp_path: Path
    ) -> None:
        # saved as `dots.coco.safetensors`, they have their card in the COCO file
        path = tmp_path / "dots.coco.safetensors"
        path.write_bytes(b"")
        path.with_suffix(".json").write_text("{}")
        result = run(
            "few-shot", image, "--out", tmp_path, "--prototypes", path,
            "--format", "coco",
        )  # fmt: skip
        explains(result, "would overwrite the prototypes", "dots.coco.json")

    def test_prototypes_saved_over_those_given(
        self, image: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "learnt.safetensors"
        result = few_shot(
            image, "--prototypes", path, "--save-prototypes", tmp_path / "learnt"
        )
        explains(result, "would overwrite the prototypes", "--save-prototypes")

    def test_prototypes_saved_over_the_examples(
        self, image: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "drawn.coco.json"
        path.write_text("{}")
        result = few_shot(
            image, "--examples", path, "--tag", "dot", "--save-prototypes", path
        )
        explains(result, "would overwrite the examples", "--save-prototypes")

    def test_prototypes_saved_over_a_result(self, image: Path, examples: Path) -> None:
        result = few_shot(
            image, "--examples", examples, "--tag", "dot", "--format", "coco",
            "--save-prototypes", image.parent / "out" / "dots.coco.json",
        )  # fmt: skip
        explains(result, "would overwrite the results", "--save-prototypes")


@pytest.mark.usefixtures("no_model")
def test_examples_are_seen_as_what_is_searched_though_their_image_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((3, 2, *SHAPE), np.uint8)
    still, movie = tmp_path / "ref.tif", tmp_path / "movie.tif"
    tifffile.imwrite(still, pixels[0], imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(movie, pixels, imagej=True, metadata={"axes": "TCYX"})
    drawn = tmp_path / "ref.geojson"
    tagged(SHAPE, (20, 20, "dot"), radius=8).save(drawn)
    shown = {}

    def start(self: Finding, _: object, image: ImageSource, *__: object) -> None:
        channels = self.examples.composite.channels
        shown[image.name] = [channel.visible for channel in channels]
        raise ParameterError("That is all.")

    monkeypatch.setattr(Finding, "start", start)
    run(
        "few-shot", still, movie, "--examples", drawn, "--tag", "dot", "--time", "2-3",
        "--channels", "2", "--out", tmp_path / "out",
    )  # fmt: skip
    assert shown == {"movie": [False, True]}


def test_the_help_says_that_the_examples_decide_what_is_left_open() -> None:
    shown = " ".join(run("few-shot", "--help").output.split())
    assert shown.count("default: suits the examples") == 3
    assert "suits the model" not in shown
