"""A model that learns: copies of the parts that do, on the trunk of the original."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from napari_sam_suite.engine.asking import is_out_of_memory
from napari_sam_suite.engine.embed import Remembering
from napari_sam_suite.engine.errors import ModelError, OutOfMemory
from napari_sam_suite.engine.models.adapter import Adapter
from napari_sam_suite.engine.models.protocol import (
    EVERY,
    MULTIMASK,
    Decoded,
    Embedding,
    Prompts,
    SamModel,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_sam_suite.engine.models.memory import VideoMemory

Train = Literal["decoder", "neck", "encoder"]
"""How much of a model learns: its decoder, and the neck or all of its encoder."""
_BEFORE_DECODER = ("conv_s0", "conv_s1")
"""Parts of SAM 2's mask decoder that run with the encoder."""
_MEMORY = ("memory_attention", "memory_encoder")


class Trainee:
    """A model in training; a `SamModel` itself, so that it can be tried out.

    The original is never changed. What its encoder, or the encoder's trunk, says of an
    image stays true while the decoder, or the neck too, learns: `look` gives it once,
    and `embed` makes of it what the model sees now. If all of the encoder learns, only
    the pixels stay.

    Parameters
    ----------
    base : SamModel
        The model to begin from; `original` is the same without what remembers.
    train : {"decoder", "neck", "encoder"}
        With `"neck"` the last layers of the image encoder learn too, and with SAM 2
        those of the decoder that run with them; with `"encoder"` all of its layers. A
        guide learns in any case.

    Raises
    ------
    ModelError
        If `base` is no network.
    """

    def __init__(self, base: SamModel, *, train: Train = "decoder") -> None:
        adapter = base.model if isinstance(base, Remembering) else base
        if not isinstance(adapter, Adapter):
            raise ModelError(
                f"{base.spec.id} cannot be trained.",
                "Choose a model with its own weights, not an exported one.",
            )
        self.base = base
        self.train = train
        self.original = adapter
        self.spec = base.spec
        self.device = base.device
        self.input_size = base.input_size
        network = copy.deepcopy(adapter.network, _unchanging(adapter, train))
        # 16-bit floats without a scaled loss lose small gradients.
        wide = torch.float32 if adapter.dtype == torch.float16 else adapter.dtype
        self.adapter = type(adapter)(network, base.spec, adapter.device, wide)
        self.parameters = _trainable(self.adapter, train)

    def twin(self) -> Trainee:
        """Another one of the same weights, with gradients of its own.

        For another thread; what it learns is what this one does.
        """
        twin = copy.copy(self)
        shared = _unchanging(self.original, self.train)
        for parameter in self.parameters.values():
            shared[id(parameter)] = torch.nn.Parameter(parameter.detach())
        mine = self.adapter
        network = copy.deepcopy(mine.network, shared)
        twin.adapter = type(mine)(network, self.spec, mine.device, mine.dtype)
        twin.parameters = _trainable(twin.adapter, self.train)
        return twin

    @property
    def identity(self) -> str:
        """Its weights, as they are now."""
        return self.adapter.identity

    @property
    def batch(self) -> int:
        """Prompts in one decoder call that suit the device."""
        return self.adapter.batch

    @batch.setter
    def batch(self, size: int) -> None:
        self.adapter.batch = size

    @property
    def guided(self) -> bool:
        """Whether the model says where objects are; that is learnt too."""
        return hasattr(self.adapter.network, "guide")

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed RGB images (H, W, 3), uint8."""
        return (self.adapter if self._half else self.base).encode(images)

    def look(self, pixels: NDArray[np.uint8]) -> Embedding:
        """What does not change while the model learns, of one image (H, W, 3), uint8.

        Asked of the original, not of what remembers its embeddings: those that come
        from its files are rounded.

        Raises
        ------
        OutOfMemory
            If the device has too little memory.
        """
        encode = self.original.look if self._half else self.original.encode
        if not self.frozen:
            encode = self.original.prepare
        try:
            found = encode([pixels])[0]
        except Exception as error:
            if is_out_of_memory(error):
                raise self.too_little_memory() from error
            raise
        # Tensors of inference mode cannot be learnt from; copies of them can.
        features = {name: tensor.clone() for name, tensor in found.features.items()}
        return Embedding(features, found.shape, found.scaled, found.padded)

    def embed(self, seen: Embedding) -> Embedding:
        """What the model makes now of what `look` gave, with gradients."""
        if not self._half:
            return seen
        with self._precision():
            return self.adapter.finish(seen, frozen=self.train == "decoder")

    def move(self, device: Any) -> None:
        """Go to another device."""
        self.base.move(device)
        self.adapter.move(device)
        self.device = device

    def decode(
        self,
        embedding: Embedding,
        prompts: Prompts,
        *,
        tokens: Sequence[int] = MULTIMASK,
        min_iou: float = 0.0,
    ) -> Decoded:
        """Draw masks for prompts; see `SamModel.decode`."""
        return self.adapter.decode(embedding, prompts, tokens=tokens, min_iou=min_iou)

    def video_memory(self, length: int) -> VideoMemory:
        """See `SamModel.video_memory`."""
        return self.base.video_memory(length)

    def refresh(self) -> None:
        """Forget what was computed from the weights, which are others now."""
        self.adapter.refresh()

    def forget_gradients(self) -> None:
        """Before a step."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def weights(self) -> dict[str, Tensor]:
        """Copies of what learns, on the CPU, by name."""
        return {n: p.detach().cpu().clone() for n, p in self.parameters.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights that `weights` gave."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        self.refresh()

    def answer(self, embedding: Embedding, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Logits (B, 4, h, w) and ratings (B, 4) of all answers, with gradients."""
        with self._precision():
            drawn = self.adapter.answer(embedding, prompts, EVERY)
        logits, iou = cast("Tensor", drawn.logits), cast("Tensor", drawn.iou)
        shape = (len(prompts), len(EVERY))
        grid = logits.shape[-2:]
        return logits.view(*shape, *grid).float(), iou.view(shape).float()

    def too_little_memory(self) -> OutOfMemory:
        """What to say when not even the smallest step fits."""
        return OutOfMemory(
            f"There is too little memory to train {self.spec.id}.",
            "Choose a smaller model or the CPU."
            if self.frozen
            else "Train the neck or the decoder alone, or choose a smaller model.",
        )

    @property
    def frozen(self) -> bool:
        """Whether a part of the encoder does not learn: what it says may be kept."""
        return self.train != "encoder"

    @property
    def _half(self) -> bool:
        """Whether what the whole encoder says does not stay as it is."""
        return self.train != "decoder" or self.guided

    def _precision(self) -> torch.autocast:
        dtype = self.adapter.dtype
        mixed = dtype != torch.float32
        return torch.autocast(self.device.type, dtype=dtype, enabled=mixed)


def _unchanging(adapter: Adapter, train: Train) -> dict[int, Any]:
    """Parts of the network that do not learn, as `deepcopy` takes them.

    The encoder's trunk is the larger part of the network by far.
    """
    network = adapter.network
    parts = [getattr(network, name, None) for name in _MEMORY]
    encoder = network.image_encoder
    if train == "neck":
        parts += [part for part in encoder.children() if part is not adapter.neck]
    elif train == "decoder":
        parts.append(encoder)
    return {id(part): part for part in parts if part is not None}


def _trainable(adapter: Adapter, train: Train) -> dict[str, nn.Parameter]:
    """Parameters that learn, by their names in the network."""
    network = adapter.network
    more = {"decoder": None, "neck": adapter.neck, "encoder": network.image_encoder}
    parts = [*adapter.learning_parts(), getattr(network, "guide", None), more[train]]
    learning = {id(p) for part in parts if part for p in part.parameters()}
    still = _BEFORE_DECODER if train == "decoder" else ()
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if id(parameter) in learning and not any(f".{n}." in name for n in still)
    }
