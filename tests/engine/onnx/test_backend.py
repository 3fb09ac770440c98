"""The engine on onnxruntime: every prompt and automatic masks, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from engine.onnx.conftest import TISSUE
from napari_sam_suite.engine.auto import automatic_masks
from napari_sam_suite.engine.embed import EmbeddingCache, Remembering
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.params import AutoParams
from napari_sam_suite.engine.prompts.answers import answer
from napari_sam_suite.engine.prompts.params import PromptParams
from napari_sam_suite.engine.prompts.prompt import MaskPrompt, Prompt

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.onnx.export import Exported

EVERYTHING = AutoParams(
    search="grid",
    points_per_side=6,
    pred_iou_thresh=0,
    stability_score_thresh=0,
    box_nms_thresh=1,
    tile="off",
    overlap="allow",
)
PROMPTS = [
    Prompt(inside=((120, 80),)),
    Prompt(inside=((120, 80), (140, 90)), outside=((20, 300),)),
    Prompt(box=(60, 200, 130, 290)),
    Prompt(inside=((100, 250),), box=(60, 200, 130, 290)),
    Prompt(mask=MaskPrompt(np.ones((60, 70), bool), (200, 150))),
    Prompt(whole=True),
]


@pytest.fixture(scope="module")
def both(exported: Exported) -> tuple[Any, Any]:
    """The embedded model on torch, and its export."""
    return load_model("sam2-nano", device="cpu"), load_model(str(exported.folder))


def overlaps(a: Masks, b: Masks) -> list[float]:
    """IoU of each mask of `a` with the best of `b`."""
    return [
        max(
            (shared / (a.area[i] + b.area[j] - shared) if a.area[i] else 1.0)
            for j in range(len(b))
            for shared in [a.intersection(i, j, b)]
        )
        for i in range(len(a))
    ]


@pytest.mark.parametrize(
    "params",
    [
        EVERYTHING,
        EVERYTHING.with_(refine=True, points_per_side=3),
        EVERYTHING.with_(search="guided"),
        AutoParams(),
    ],
    ids=["grid", "refined", "guided", "default"],
)
def test_automatic_masks_are_those_of_torch(
    both: tuple[Any, Any], params: AutoParams
) -> None:
    ours, theirs = (automatic_masks(model, TISSUE, params) for model in both[::-1])
    assert abs(len(ours) - len(theirs)) <= 1 < len(theirs)
    assert np.mean(overlaps(theirs, ours)) >= 0.999


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("answers", ["best", "all"])
def test_every_prompt_is_answered_as_by_torch(
    both: tuple[Any, Any], prompt: Prompt, answers: Any
) -> None:
    params = PromptParams(answers=answers, tile="off")
    (true,), (found,) = (answer(model, TISSUE, [prompt], params) for model in both)
    assert len(true) == len(found)
    for a, b in zip(true, found, strict=True):
        assert (a.level, a.origin) == (b.level, b.origin)
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.crop.shape == b.crop.shape
        assert np.count_nonzero(a.crop != b.crop) <= 1e-3 * max(a.crop.sum(), 1)


def test_an_answer_is_corrected_from_where_it_was(both: tuple[Any, Any]) -> None:
    params = PromptParams(tile="off")
    found = []
    for model in both:
        (first,) = answer(model, TISSUE, PROMPTS[:1], params, keep_logits=True)
        more = [Prompt(inside=((120, 80), (130, 60)))]
        (again,) = answer(model, TISSUE, more, params, earlier={0: first[0]})
        found.append(again[0])
    assert found[0].score == pytest.approx(found[1].score, abs=1e-4)
    assert abs(int(found[0].crop.sum()) - int(found[1].crop.sum())) <= 2


def test_its_embeddings_are_remembered_in_files(
    both: tuple[Any, Any], tmp_path: Path
) -> None:
    def encode() -> Any:
        model = Remembering(both[1], EmbeddingCache(folder=tmp_path))
        return model.encode([TISSUE])[0].features

    first, again = encode(), encode()
    assert all(isinstance(level, np.ndarray) for level in again.values())
    assert all(np.array_equal(first[name], again[name]) for name in first)


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["torchvision"] = None
from typer.testing import CliRunner
from napari_sam_suite.cli.app import app
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, command)
    print(json.dumps([result.exit_code, result.stdout]))
"""


def dots(places: list[tuple[int, int]]) -> NDArray[np.uint16]:
    """A label image of discs."""
    y, x = np.mgrid[:128, :128]
    labels = np.zeros((128, 128), np.uint16)
    for number, (cy, cx) in enumerate(places, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 64] = number
    return labels


def test_commands_run_where_torch_is_not(exported: Exported, tmp_path: Path) -> None:
    picture, labels, movie = (
        str(tmp_path / name) for name in ("dots.tif", "objects.tif", "movie.tif")
    )
    objects = dots([(20, 20), (20, 60), (20, 100), (60, 20)])
    bright = dots([(y, x) for y in (20, 60, 100) for x in (20, 60, 100)]) > 0
    pixels = np.where(bright, 220, 40).astype(np.uint8)
    tifffile.imwrite(picture, pixels)
    tifffile.imwrite(labels, objects)
    tifffile.imwrite(movie, np.stack([pixels] * 2), metadata={"axes": "TYX"})
    auto = "--points-per-side 4 --tile off --search grid"
    shapes = "--tag unassigned --points-per-side 16"
    commands = [
        ["segment", picture, *auto.split()],
        ["segment", picture],
        ["prompt", picture, "--points", "20,20; 60,60"],
        ["prompt", picture, "--points", "20,20", "--outside", "40,40", "--together"],
        ["prompt", picture, "--boxes", "12,12,28,28"],
        ["prompt", picture, "--objects", labels, "--use", "mask"],
        ["prompt", picture, "--objects", labels, "--use", "both"],
        ["prompt", picture, "--whole"],
        ["few-shot", picture, "--examples", labels, *shapes.split()],
        ["propagate", movie, "--objects", labels],
        ["propagate", movie, "--objects", labels, "--method", "memory"],
    ]
    given = ["--model", str(exported.folder), "--json", "--out"]
    code = [sys.executable, "-c", WITHOUT_TORCH]
    asked = json.dumps(
        [[*c, *given, str(tmp_path / f"out{i}")] for i, c in enumerate(commands)]
    )
    done = subprocess.run([*code, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [status for status, _ in answers] == [0] * 10 + [1], done.stdout
    told = [json.loads(text)["images"][0] for _, text in answers]
    assert [image["objects"] > 0 for image in told[:-1]] == [True] * 10
    assert told[-2]["frames"] == 2
    assert "no video memory" in told[-1]["error"]["message"]
