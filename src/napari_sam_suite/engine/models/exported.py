"""An exported encoder and decoder on onnxruntime, behind the common protocol.

Nothing here needs torch: images and prompts are prepared with the arithmetic of the
adapters of SAM 1 and SAM 2, and embeddings and masks are arrays.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_sam_suite.engine.errors import ModelError
from napari_sam_suite.engine.models.onnxfile import DECODER, SINGLE_DECODER
from napari_sam_suite.engine.models.ports import part_names
from napari_sam_suite.engine.models.protocol import (
    MULTIMASK,
    SINGLE,
    Decoded,
    Embedding,
    Prompts,
)
from napari_sam_suite.engine.models.resize import resize
from napari_sam_suite.engine.models.sessions import Sessions
from napari_sam_suite.engine.models.transfer import hash_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam_suite.engine.models.memory import VideoMemory
    from napari_sam_suite.engine.models.protocol import Device
    from napari_sam_suite.engine.models.registry import ModelSpec

_CACHE_FLOATS = 2**21
"""Numbers in the image keys of one decoder call that stay in a CPU's cache."""
_GPU_BATCH = 64
_PARTS = {
    "image_embed": "image",
    "image_embeddings": "image",
    "high_res_feats_1": "middle",
    "high_res_feats_0": "fine",
    "guide": "guide",
}
"""What the files call the parts of an embedding, and what they are here."""


class ExportedModel:
    """A folder that ``export-onnx`` wrote, as a `SamModel`.

    Parameters
    ----------
    spec : ModelSpec
        What `find_model` made of the folder.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    precision : str
        ``"auto"``, or what the files were exported in.
    ending : str
        Of the files that are run: ``"onnx"``, or ``"ort"`` where they were written.

    Raises
    ------
    MissingExtra
        If onnxruntime is not installed.
    ModelError
        If a file is missing, damaged, or belongs to another export, or there is no
        such device.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: str = "auto",
        precision: str = "auto",
        ending: str = "onnx",
    ) -> None:
        assert spec.file is not None, "an exported model is a folder"
        self.spec = spec
        self.folder = spec.file.parent
        self._sessions = Sessions(self.folder, device=device, ending=ending)
        self.card = self._sessions.card
        _check_precision(precision, self.card)
        self.input_size = spec.input_size
        cells = (self.input_size // 16) ** 2
        share = _CACHE_FLOATS // (cells * self._sessions.width)
        self.batch = max(1, share) if self.device.type == "cpu" else _GPU_BATCH

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self._sessions.place

    @cached_property
    def identity(self) -> str:
        """Tells these weights in this precision from all others.

        All files are read for it once: a card does not tell two models apart whose
        checkpoint has no hash, and decoders differ where encoders do not.
        """
        digest = hashlib.sha256()
        for part in part_names(self.spec.family, self.card["masks"]):
            for file in sorted(self.folder.glob(f"{part}.onnx*")):
                digest.update(f"{file.name} {hash_file(file)} ".encode())
        return f"{digest.hexdigest()[:16]}-onnx-{self.card['precision']}"

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images of shape (H, W, 3), uint8."""
        return [self._embed(image) for image in images]

    def move(self, device: Device) -> None:
        """Go to the CPU; embeddings are arrays and stay what they are."""
        self._sessions.move(device)

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks for prompts; see `SamModel.decode`.

        An export with a single mask gives that one, whichever token is asked for.
        """
        feed = self._feed(embedding, prompts)
        wanted = list(tokens)
        if self.card["masks"] == "three":
            logits, iou = self._draw(feed, wanted)
        else:
            small = "low_res_masks" if self.spec.family == "sam1" else "masks"
            outputs = [small, "iou_predictions"]
            logits, iou = self._sessions.run(DECODER, outputs, feed)
            if self.card["masks"] == "all":
                logits, iou = logits[:, wanted], iou[:, wanted]
        keep = iou > min_iou if min_iou > 0 else np.ones(iou.shape, bool)
        prompt, column = keep.nonzero()
        token = np.array(wanted, np.int64)[column]
        return Decoded(logits[keep], iou[keep], prompt.astype(np.int64), token)

    def require_masks(self) -> None:
        """Refuse an export that has not all masks that the engine asks for.

        Raises
        ------
        ModelError
            If it was made with a single mask.
        """
        if self.card["masks"] == "best":
            raise ModelError(
                f"The model in {self.folder} was exported with `single_mask`.",
                "It draws one mask where several are needed: export it without.",
            )

    def video_memory(self, length: int) -> VideoMemory:
        """Begin to remember objects in a movie; see `SamModel.video_memory`."""
        raise ModelError(
            f"{self.spec.id} has no video memory: it is not exported.",
            "Set `method` to frames, or choose the checkpoint.",
        )

    # -- images ------------------------------------------------------------------

    def _embed(self, image: NDArray[np.uint8]) -> Embedding:
        pixels, scaled = self.prepare(image)
        found = self._sessions.encode(pixels)
        features = {_PARTS[name]: values for name, values in found.items()}
        shape = (image.shape[0], image.shape[1])
        return Embedding(features, shape, scaled, padded=self.spec.family == "sam1")

    def prepare(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Make the encoder's input of an RGB image.

        Returns
        -------
        pixels : ndarray, shape (1, 3, S, S), float32
            Scaled, normalised and, for SAM 1, padded with zeros.
        scaled : (int, int)
            Height and width that the image fills.
        """
        side = self.input_size
        mean = np.array(self.card["mean"], np.float32)
        std = np.array(self.card["std"], np.float32)
        square = np.zeros((side, side, 3), np.float32)
        if self.spec.family == "sam2":
            scaled = side, side
            small = resize(image.astype(np.float32) / np.float32(255), scaled)
            square[:] = (small - mean) / std
        else:
            ratio = side / max(image.shape[:2])
            scaled = (
                int(image.shape[0] * ratio + 0.5),
                int(image.shape[1] * ratio + 0.5),
            )
            picture = Image.fromarray(image).resize(
                scaled[::-1], Image.Resampling.BILINEAR
            )
            small = np.asarray(picture, np.float32)
            square[: scaled[0], : scaled[1]] = (small - 255 * mean) / (255 * std)
        return np.ascontiguousarray(square.transpose(2, 0, 1)[None]), scaled

    # -- prompts -----------------------------------------------------------------

    def _feed(self, embedding: Embedding, prompts: Prompts) -> dict[str, Any]:
        """The decoder's inputs, by name."""
        points, labels = prompts.points, prompts.labels
        if prompts.boxes is not None:
            points = np.concatenate([prompts.boxes.reshape(-1, 2, 2), points], axis=1)
            marks = np.broadcast_to(np.array([2, 3]), (len(points), 2))
            labels = np.concatenate([marks, labels], axis=1)
        elif self.spec.family == "sam1" and points.shape[1]:
            # SAM 2's files add this themselves
            points = np.concatenate([points, np.zeros((len(points), 1, 2))], axis=1)
            labels = np.concatenate([labels, np.full((len(labels), 1), -1)], axis=1)
        height, width = embedding.shape
        down, across = embedding.scaled
        xy = points[..., ::-1] * np.array([across / width, down / height])
        low = self.input_size // 4
        masks = prompts.masks
        if masks is None:
            masks = np.zeros((1, 1, low, low))
        feed: dict[str, Any] = {
            "point_coords": xy.astype(np.float32),
            "point_labels": labels.astype(np.float32),
            "mask_input": np.asarray(masks, np.float32),
            "has_mask_input": np.full(1, prompts.masks is not None, np.float32),
        }
        given = embedding.features
        if self.spec.family == "sam1":
            shape = np.array(embedding.shape, np.float32)
            return feed | {"image_embeddings": given["image"], "orig_im_size": shape}
        return feed | {
            "image_embed": given["image"],
            "high_res_feats_0": given["fine"],
            "high_res_feats_1": given["middle"],
        }

    def _draw(
        self, feed: dict[str, Any], wanted: list[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """SAM 2's masks of the wanted tokens, (B, T, low, low), and their IoU."""
        asked = ["masks", "iou_predictions"]
        columns: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for name, tokens in ((SINGLE_DECODER, SINGLE), (DECODER, MULTIMASK)):
            if set(wanted) & set(tokens):
                masks, iou = self._sessions.run(name, asked, feed)
                columns |= {t: (masks[:, i], iou[:, i]) for i, t in enumerate(tokens)}
        logits, scores = zip(*(columns[token] for token in wanted), strict=True)
        return np.stack(logits, 1), np.stack(scores, 1)


def _check_precision(precision: str, card: dict[str, Any]) -> None:
    if precision not in ("auto", card["precision"]):
        raise ModelError(
            f"`precision` cannot be {precision}: the model was exported in "
            f"{card['precision']}.",
            "Leave it at auto, or export the model again.",
        )
