"""Few-shot on images whose truth is known: the fast mode beside the exact one.

    python benchmarks/fewshot.py DATA --json fewshot.json

DATA holds the folders ``dev_dsb2018``, ``dev_usiigaci_phase``, ``dev_em_chloroplast``
and ``dev_bbbc007_sparse``. For every group of images, ``--repeats`` times: a seed draws
``--images`` images of one size, or more where these have too few objects, and
``--examples`` objects in them, and everything else
in these images is looked for. Examples count neither as found nor as missed. Prints F1
at IoU 0.5 (recall where not every object is in the truth), with the suggested threshold
and with the best one that the truth could show, and the calls of encoder and decoder.

Every repeat is written to the JSON file when it is done. Started again, the command
goes on where it was; with everything done it prints the table. It refuses a file of
other weights or settings.

The exact mode gets the same images and examples, no largest area, and ``--points``
points per side of every tile that automatic masks take; documented are 128 of the whole
frame.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot_tasks import SPARSE, Task, read_groups
from napari_sam_suite.engine.composite import compose
from napari_sam_suite.engine.fewshot.finder import FewShot
from napari_sam_suite.engine.fewshot.params import FewShotParams
from napari_sam_suite.engine.models.load import load_model
from napari_sam_suite.engine.models.protocol import weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.metrics import Scores
    from napari_sam_suite.engine.models.protocol import SamModel

    Row = dict[str, float]

_THRESHOLDS = {"fast": np.arange(0.1, 1.0, 0.1), "exact": np.arange(0.5, 1.0, 0.05)}
_SETTINGS = ("examples", "images", "points", "largest")


@dataclass
class Counted:
    """A model that counts what it is asked."""

    model: SamModel
    encoded: int = 0
    decoded: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Any:
        """Count the images."""
        self.encoded += len(images)
        return self.model.encode(images)

    def decode(self, embedding: Any, prompts: Any, **options: Any) -> Any:
        """Count the prompts."""
        self.decoded += len(prompts)
        return self.model.decode(embedding, prompts, **options)


def run(model: Counted, task: Task, params: FewShotParams) -> Row:
    """One repeat of one mode: learn from the examples, search all images."""
    model.encoded = model.decoded = 0
    start = time.process_time()
    known = task.examples.objects
    finder = FewShot(params, task.examples, known=known, keep=True)
    frames = list(task.image.frames())
    found = [
        finder(
            model, compose(task.image.frame(f)), f, report=_silent, stop=_never
        ).masks
        for f in frames
    ]
    seconds, count = time.process_time() - start, len(frames)
    suggested = task.score(found)
    tries = [
        task.score([finder.filter(f, float(t)).masks for f in frames])
        for t in _THRESHOLDS[params.mode]
    ]
    return {
        **_numbers(suggested),
        "best": max(_numbers(s)["f1"] for s in (suggested, *tries)),
        "encoded": model.encoded / count,
        "decoded": model.decoded / count,
        "cpu_seconds": seconds / count,
    }


def _numbers(scores: Scores) -> Row:
    names = ("f1", "precision", "recall")
    return {name: float(np.nan_to_num(getattr(scores, name))) for name in names}


def _silent(*_: object) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


def read_results(path: Path | None, about: dict[str, Any]) -> dict[str, Row]:
    """What an earlier start has measured; nothing of other weights or settings."""
    if path is None or not path.is_file():
        return {}
    before = json.loads(path.read_text())
    if before["about"] != about:
        raise SystemExit(f"{path} is of {before['about']}, not {about}: use another.")
    found: dict[str, Row] = before["repeats"]
    return found


def print_table(repeats: dict[str, Row]) -> None:
    """Means of every group that both modes have searched, and what issue 5 asks."""
    groups = sorted({key.rsplit("|", 2)[0] for key in repeats})
    print(
        "group | repeats | measure | fast | exact | fast, best threshold | fast / exact"
    )
    gains, losses = [], []
    for group in groups:
        rows = [
            {mode: repeats[f"{group}|{mode}|{seed}"] for mode in ("fast", "exact")}
            for seed in range(1000)
            if all(f"{group}|{m}|{seed}" in repeats for m in ("fast", "exact"))
        ]
        if not rows:
            continue
        measure = "recall" if group.startswith(SPARSE) else "f1"

        def mean(mode: str, name: str, rows: list[dict[str, Row]] = rows) -> float:
            return float(np.mean([row[mode][name] for row in rows]))

        fast, exact = mean("fast", measure), mean("exact", measure)
        gains.append(fast - exact)
        losses.append(mean("fast", "best") - mean("fast", "f1"))
        cells = [f"{fast:.2f}", f"{exact:.2f}", f"{mean('fast', 'best'):.2f} (F1)"]
        for name, digits in (("precision", 2), ("encoded", 1), ("cpu_seconds", 1)):
            pair = [f"{mean(mode, name):.{digits}f}" for mode in ("fast", "exact")]
            cells.append(f"{name} " + " / ".join(pair))
        print(" | ".join([group, str(len(rows)), measure, *cells]))
    if gains:
        print(
            f"fast - exact: {np.mean(gains):+.3f} on average, least {min(gains):+.3f}"
        )
        print(f"loss of the suggested threshold: {np.mean(losses):.3f} F1 on average")


def main() -> None:
    """Measure what is missing in the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sam2-nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--group", default="", help="only groups with this in the name")
    parser.add_argument("--modes", default="fast,exact")
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=3, help="per group and repeat")
    parser.add_argument("--points", type=int, default=32, help="of the exact mode")
    parser.add_argument("--largest", type=int, default=1024, help="side of a window")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = Counted(load_model(args.model, device=args.device, precision="float32"))
    settings = {
        "fast": FewShotParams(),
        "exact": FewShotParams(
            mode="exact", points_per_side=args.points, max_area=0, tile="auto"
        ),
    }
    about = {"model": args.model, "weights": weights_of(model.model)}
    about |= {name: getattr(args, name) for name in _SETTINGS}
    repeats = read_results(args.json, about)
    groups = read_groups(args.data, args.largest)
    names = [name for name in groups if args.group in name]
    # By seeds, so that a part of the work is a part of every group.
    for seed, name, mode in (
        (s, n, m)
        for s in range(args.repeats)
        for n in names
        for m in args.modes.split(",")
    ):
        key = f"{name}|{mode}|{seed}"
        if key in repeats:
            continue
        rng = np.random.default_rng(seed)
        task = Task.draw(groups[name], args.examples, args.images, rng)
        repeats[key] = run(model, task, settings[mode])
        cells = [f"{k} {v:.3f}" for k, v in repeats[key].items()]
        print(f"{key}: " + ", ".join(cells), flush=True)
        if args.json is not None:
            text = json.dumps({"about": about, "repeats": repeats}, indent=1)
            args.json.write_text(text)
    print_table(repeats)


if __name__ == "__main__":
    main()
