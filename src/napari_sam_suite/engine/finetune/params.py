"""What the user can set for fine-tuning."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, Field

from napari_sam_suite.engine.params import Groups, Params

_RATES = {"instances": 4e-4, "seed": 1e-5}
_EPOCHS = {"instances": 30, "seed": 100}


class FinetuneParams(Params):
    """Fine-tuning: teach a model the shapes of one's own images.

    Names and defaults of what Dataloop's SAM 2 adapter has too are its own; learning
    rate and epochs suit the loss, and with ``loss="seed"`` they are its own as well.
    ``num_epochs`` is another name of `epochs`. For the adapter's whole configuration,
    see `seed.read_config`.
    """

    left_open: ClassVar[str] = "suits the loss"
    groups: ClassVar[Groups] = (
        (
            "Training",
            (
                "epochs",
                "learning_rate",
                "weight_decay",
                "batch_size",
                "patience",
                "save_interval",
                "calibrate",
            ),
        ),
        ("Lessons", ("train", "loss", "views", "prompts", "variants")),
        ("Data", ("validation", "complete", "tile", "seed")),
    )

    epochs: int | None = Field(
        None,
        ge=1,
        le=100_000,
        validation_alias=AliasChoices("epochs", "num_epochs"),
        title="Epochs",
        description="At most this often all training images are gone through; 30, or "
        "100 with the loss 'seed'.",
    )
    learning_rate: float | None = Field(
        None,
        ge=1e-7,
        le=1,
        title="Learning rate",
        description="Size of the steps; 4e-4, or 1e-5 with the loss 'seed'.",
    )
    weight_decay: float = Field(
        4e-5,
        ge=0,
        le=1,
        title="Weight decay",
        description="Pulls the weights towards zero.",
    )
    batch_size: int = Field(
        4,
        ge=1,
        le=1024,
        title="Batch size",
        description="Views of images for each step, whatever the memory is.",
    )
    save_interval: int = Field(
        10,
        ge=1,
        le=100_000,
        title="Save interval",
        description="Epochs between checkpoints that are kept.",
    )
    patience: int = Field(
        10,
        ge=1,
        le=100_000,
        title="Patience",
        description="Stop after so many epochs without a better score.",
    )
    train: Literal["decoder", "neck", "encoder"] = Field(
        "decoder",
        title="Train",
        description="What learns: 'decoder' is the mask decoder with the prompt "
        "encoder and the guide, 'neck' also the last layers of the image encoder, "
        "'encoder' all of it: better for unknown objects, slower, needs more memory.",
    )
    loss: Literal["instances", "seed"] = Field(
        "instances",
        title="Loss",
        description="'instances' teaches clicks, boxes, corrections and what is "
        "background; 'seed' is the loss of Dataloop's adapter.",
    )
    validation: float = Field(
        0.2,
        ge=0,
        le=0.9,
        title="Validation",
        description="Part of the frames that is only looked at to judge.",
    )
    complete: bool = Field(
        True,
        title="Every object is drawn",
        description="If not, places without a shape teach next to nothing.",
    )
    variants: int = Field(
        2,
        ge=0,
        le=16,
        title="Variants",
        description="So many more views of each tile: turned, scaled, lit otherwise.",
    )
    views: int = Field(
        32,
        ge=1,
        le=100_000,
        title="Views",
        description="An epoch has at least so many: few images are gone through again.",
    )
    prompts: int = Field(
        12,
        ge=1,
        le=256,
        title="Prompts",
        description="Clicks on each view and step.",
    )
    tile: Annotated[int, Field(ge=32)] | Literal["auto", "off"] = Field(
        "auto",
        title="Tile",
        description="Side of the tiles of large images; auto suits the objects.",
    )
    calibrate: bool = Field(
        True,
        title="Calibrate",
        description="Find the best thresholds of automatic masks on the validation "
        "frames.",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, title="Seed", description="Of everything drawn by lot."
    )

    def resolved(self) -> Self:
        """A copy in which nothing is left open."""
        rate, epochs = self.learning_rate, self.epochs
        return self.with_(
            learning_rate=_RATES[self.loss] if rate is None else rate,
            epochs=_EPOCHS[self.loss] if epochs is None else epochs,
        )
