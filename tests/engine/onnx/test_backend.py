"""The engine on onnxruntime: every prompt and automatic masks, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

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

    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.onnx.export import Exported

EVERYTHING = AutoParams(
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


@pytest.mark.parametrize("refine", [False, True])
def test_automatic_masks_are_those_of_torch(
    both: tuple[Any, Any], refine: bool
) -> None:
    params = EVERYTHING.with_(refine=refine, points_per_side=3 if refine else 6)
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


def test_commands_run_where_torch_is_not(exported: Exported, tmp_path: Path) -> None:
    Image.fromarray(TISSUE).save(tmp_path / "tissue.png")
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from napari_sam_suite.cli.app import app\n"
        "app()"
    )
    picture = str(tmp_path / "tissue.png")
    given = ["--model", str(exported.folder), "--json", "--out", str(tmp_path / "out")]
    auto = ["--points-per-side", "4", "--tile", "off", "--pred-iou-thresh", "0"]
    auto += ["--stability-score-thresh", "0"]
    for command in (
        ["segment", picture, *auto, *given],
        ["prompt", picture, "--boxes", "60,200,130,290", "--tile", "off", *given],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr + done.stdout
        (told,) = json.loads(done.stdout)["images"]
        assert told["objects"] > 0
