"""Fit what few-shot believes of its candidates; see `engine/fewshot/quality.py`.

Tasks are drawn from training images, held-out ones among them, and from new synthetic
scenes of kinds that the model is bad at: ten examples, and everything else in the image
to be found. A logistic regression over the candidates, every task of equal weight,
tells what each kind of evidence is worth. Prints the weights, and the F1 of every kind
when it is judged by weights fitted to the other kinds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit

from data import load_real, split
from evaluate import weights_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from fewshot_tasks import Sample, Task, crowded
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.choose import resolve
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.fewshot.prototypes import Prototypes, temper
from napari_sam_suite.engine.fewshot.quality import CHOSEN, rating_odds, size_odds
from napari_sam_suite.engine.frames import FrameIndex
from napari_sam_suite.engine.image import open_image
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.nano.config import WEIGHTS
from napari_sam_suite.engine.models.registry import find_model
from napari_sam_suite.engine.synthetic.scene import synthesize

if TYPE_CHECKING:
    from napari_sam_suite.engine.fewshot.fast import Seen
    from napari_sam_suite.engine.masks import Masks
    from napari_sam_suite.engine.metrics import Scores

EVIDENCE = ("likeness", "score", "stability", "guide", "chosen", "size", "before")
DRAWN = {"organelles": 30, "membrane": 40, "rods": 14, "touching nuclei": 30}
"""Synthetic kinds, and the diameter of their objects."""
_STRANGE = range(6)
"""Scenes of `anything`: no two look alike, so each is a kind of its own."""
_MOST, _SIDE = 30, 512
"""Images of a group, and the window of them that is searched."""
_STEEP = 12.0
"""What is told is whether the real IoU is above 0.5, with this much of a slope."""
_SMOOTH = 3e-3
"""Weight of the squares of the fitted weights."""


@dataclass
class Trial:
    """One searched task: its candidates, frame by frame.

    Attributes
    ----------
    kind : str
        Group of images.
    evidence : list of ndarray, shape (N, 7)
        In the units that `EVIDENCE` is weighed in.
    real : list of ndarray, shape (N,)
        IoU with the object that the candidate shares most with.
    """

    kind: str
    task: Task
    seen: list[Seen]
    evidence: list[np.ndarray]
    real: list[np.ndarray]

    def score(self, weights: np.ndarray) -> Scores:
        """Of what passes when candidates are judged by other weights."""
        found = []
        for seen, evidence in zip(self.seen, self.evidence, strict=True):
            odds = evidence @ weights
            passed = np.flatnonzero(odds >= 0)
            found.append(resolve(seen.masks.select(passed), odds[passed])[0])
        return self.task.score(found)


def samples(data: Path) -> dict[str, list[Sample]]:
    """Groups of images of one kind and, but for fluorescence, of one size."""
    groups: dict[str, list[Sample]] = {}
    for held, part in zip(("", " held out"), split(load_real(data)), strict=True):
        for item in part:
            shape = "x".join(map(str, item.labels.shape))
            kind = item.group if item.group == "fluo" else f"{item.group} {shape}"
            own = groups.setdefault(kind + held, [])
            if len(own) < _MOST:
                axes = "YXC" if item.image.ndim == 3 else "YX"
                frame = open_image(item.image, axes=axes, name=item.name)
                rgb = compose(frame.frame(FrameIndex()))
                window = crowded(rgb, item.labels.astype(np.int64), _SIDE)
                own.append(Sample(item.name, *window))
    for kind, width in DRAWN.items():
        groups[kind] = [_drawn(kind, seed, width) for seed in range(4)]
    for seed in _STRANGE:
        groups[f"anything {seed}"] = [_drawn("anything", seed, 30)]
    return groups


def _drawn(kind: str, seed: int, width: float) -> Sample:
    scene = synthesize(kind, (400, 400), 7700 + seed, diameter=width)
    axes = "YXC" if scene.image.ndim == 3 else "YX"
    rgb = compose(open_image(scene.image, axes=axes, name=kind).frame(FrameIndex()))
    return Sample(f"{kind} {seed}", rgb, scene.labels.astype(np.int64))


def search(model, kind: str, task: Task) -> Trial:
    """Learn from the examples of a task and look at all of its frames."""
    finder = FewShot(
        FewShotParams(), task.examples, known=task.examples.objects, keep=True
    )
    frames = list(task.image.frames())
    for frame in frames:
        rgb = compose(task.image.frame(frame))
        finder(model, rgb, frame, report=lambda *_: None, stop=lambda: False)
    seen = [finder.seen[frame] for frame in frames]
    assert finder.prototypes is not None
    evidence = [weigh(model, finder.prototypes, one) for one in seen]
    real = [
        reached(one.masks, truth)[0]
        for one, truth in zip(seen, task.truth, strict=True)
    ]
    return Trial(kind, task, seen, evidence, real)


def weigh(model, prototypes: Prototypes, seen: Seen) -> np.ndarray:
    """What speaks for each of N candidates, (N, 7), without weights."""
    tag, auto, masks = prototypes.tags[0], model.spec.auto, seen.masks
    likeness = prototypes.scorers[tag].score(seen.vectors)
    alike = temper(prototypes.calibrations[tag].log_odds(likeness))
    least = auto.pred_iou_thresh, auto.stability_score_thresh
    ratings = [
        (part - low) / (1 - low)
        for part, low in zip((masks.scores, masks.stability), least, strict=True)
    ]
    guide = seen.odds - rating_odds(masks, auto) - CHOSEN * seen.chosen
    sizes = size_odds(masks.area, prototypes.areas, weight=1.0)
    every = [alike, *ratings, guide, seen.chosen, sizes, np.ones(len(alike))]
    return np.stack(every, 1)


def reached(masks: Masks, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of each mask with the object that it shares most with, and that one's number.

    The number is 0 where a mask shares nothing with any.
    """
    areas = np.bincount(truth.ravel())
    found, which = np.zeros(len(masks)), np.zeros(len(masks), np.int64)
    for i in range(len(found)):
        crop, (y, x) = masks.crop(i)
        under = truth[y : y + crop.shape[0], x : x + crop.shape[1]][crop]
        shared = np.bincount(under, minlength=len(areas))
        shared[0] = 0
        which[i] = shared.argmax()
        best = which[i]
        found[i] = shared[best] / (crop.sum() + areas[best] - shared[best])
    return found, which


def fit(trials: list[Trial]) -> np.ndarray:
    """Weights (7,) of the evidence."""
    rows = [np.concatenate(trial.evidence) for trial in trials]
    share = np.concatenate([np.full(len(r), 1 / len(r) / len(rows)) for r in rows])
    wanted = expit(_STEEP * (np.concatenate([r for t in trials for r in t.real]) - 0.5))
    inputs, target, weight = (
        torch.tensor(a) for a in (np.concatenate(rows), wanted, share)
    )
    spread = inputs.std(0).clamp(min=1e-6)
    spread[-1] = 1
    found = torch.zeros(len(EVIDENCE), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([found], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        said = inputs / spread @ found
        each = F.binary_cross_entropy_with_logits(said, target, reduction="none")
        loss = (weight * each).sum() + _SMOOTH * (found[:-1] ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return (found / spread).detach().numpy()


def main() -> None:
    """Fit from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--seeds", type=int, default=2, help="tasks of each group")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    spec = find_model(weights_of(args.weights), family="sam2", config="nano")
    model = load_model(spec, device="cpu", precision="float32")
    trials = []
    for kind, images in samples(args.data).items():
        for seed in range(args.seeds):
            try:
                task = Task.draw(images, 10, 1, np.random.default_rng(seed))
            except ValueError as error:
                print(f"{kind}: {error}", file=sys.stderr)
                break
            trials.append(search(model, kind, task))
            print(kind, seed, len(trials[-1].real[0]), file=sys.stderr, flush=True)
    scores = {}
    for kind in dict.fromkeys(trial.kind.removesuffix(" held out") for trial in trials):
        others = fit([t for t in trials if not t.kind.startswith(kind)])
        own = [t.score(others).f1 for t in trials if t.kind.startswith(kind)]
        scores[kind] = round(float(np.nanmean(own)), 3)
    weights = dict(zip(EVIDENCE, np.round(fit(trials), 3).tolist(), strict=True))
    sys.stdout.write(json.dumps({"weights": weights, "F1": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
