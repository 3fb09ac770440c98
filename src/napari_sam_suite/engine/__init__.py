"""The engine: images in, objects out, without Qt and without napari.

Importing it is cheap: every public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_sam_suite.engine.batch.run import run_recipe, start_run
    from napari_sam_suite.engine.batch.summary import Summary
    from napari_sam_suite.engine.cluster import open_cluster, start_cluster_run
    from napari_sam_suite.engine.composite import Channel, Composite, compose
    from napari_sam_suite.engine.errors import EngineError
    from napari_sam_suite.engine.fewshot.examples import choose_examples
    from napari_sam_suite.engine.fewshot.finder import FewShot
    from napari_sam_suite.engine.fewshot.params import FewShotParams
    from napari_sam_suite.engine.fewshot.prototypes import Prototypes
    from napari_sam_suite.engine.finetune.data import gather_samples
    from napari_sam_suite.engine.finetune.folders import read_folders
    from napari_sam_suite.engine.finetune.loop import start_finetune
    from napari_sam_suite.engine.finetune.params import FinetuneParams
    from napari_sam_suite.engine.frames import FrameIndex, select_frames
    from napari_sam_suite.engine.generator import build_sam_generator
    from napari_sam_suite.engine.hierarchy.hierarchy import (
        Hierarchy,
        build_hierarchy,
    )
    from napari_sam_suite.engine.hierarchy.params import HierarchyParams
    from napari_sam_suite.engine.image import ImageSource, open_image
    from napari_sam_suite.engine.jobs import Engine, Job
    from napari_sam_suite.engine.measurements import measure
    from napari_sam_suite.engine.models.registry import MODELS, find_model
    from napari_sam_suite.engine.objects import Objects
    from napari_sam_suite.engine.onnx.export import export_onnx
    from napari_sam_suite.engine.onnx.params import ExportParams
    from napari_sam_suite.engine.params import AutoParams
    from napari_sam_suite.engine.prompts.finder import start_prompts
    from napari_sam_suite.engine.prompts.params import PromptParams
    from napari_sam_suite.engine.prompts.prompt import (
        Prompt,
        from_boxes,
        from_objects,
        from_points,
    )
    from napari_sam_suite.engine.propagation.finder import start_propagate
    from napari_sam_suite.engine.propagation.params import PropagateParams
    from napari_sam_suite.engine.recipe import Recipe
    from napari_sam_suite.engine.store.collect import collect
    from napari_sam_suite.engine.store.store import Store

_WHERE = {
    "AutoParams": "params",
    "Channel": "composite",
    "Composite": "composite",
    "Engine": "jobs",
    "EngineError": "errors",
    "ExportParams": "onnx.params",
    "FewShot": "fewshot.finder",
    "FewShotParams": "fewshot.params",
    "FinetuneParams": "finetune.params",
    "FrameIndex": "frames",
    "Hierarchy": "hierarchy.hierarchy",
    "HierarchyParams": "hierarchy.params",
    "ImageSource": "image",
    "Job": "jobs",
    "MODELS": "models.registry",
    "Objects": "objects",
    "Prompt": "prompts.prompt",
    "PromptParams": "prompts.params",
    "PropagateParams": "propagation.params",
    "Prototypes": "fewshot.prototypes",
    "Recipe": "recipe",
    "Store": "store.store",
    "Summary": "batch.summary",
    "build_hierarchy": "hierarchy.hierarchy",
    "build_sam_generator": "generator",
    "choose_examples": "fewshot.examples",
    "collect": "store.collect",
    "compose": "composite",
    "export_onnx": "onnx.export",
    "find_model": "models.registry",
    "from_boxes": "prompts.prompt",
    "from_objects": "prompts.prompt",
    "from_points": "prompts.prompt",
    "measure": "measurements",
    "gather_samples": "finetune.data",
    "open_cluster": "cluster",
    "open_image": "image",
    "read_folders": "finetune.folders",
    "run_recipe": "batch.run",
    "start_cluster_run": "cluster",
    "start_finetune": "finetune.loop",
    "select_frames": "frames",
    "start_prompts": "prompts.finder",
    "start_propagate": "propagation.finder",
    "start_run": "batch.run",
}

__all__ = [
    "MODELS",
    "AutoParams",
    "Channel",
    "Composite",
    "Engine",
    "EngineError",
    "ExportParams",
    "FewShot",
    "FewShotParams",
    "FinetuneParams",
    "FrameIndex",
    "Hierarchy",
    "HierarchyParams",
    "ImageSource",
    "Job",
    "Objects",
    "Prompt",
    "PromptParams",
    "PropagateParams",
    "Prototypes",
    "Recipe",
    "Store",
    "Summary",
    "build_hierarchy",
    "build_sam_generator",
    "choose_examples",
    "collect",
    "compose",
    "export_onnx",
    "find_model",
    "from_boxes",
    "from_objects",
    "from_points",
    "gather_samples",
    "measure",
    "open_cluster",
    "open_image",
    "read_folders",
    "run_recipe",
    "select_frames",
    "start_cluster_run",
    "start_finetune",
    "start_prompts",
    "start_propagate",
    "start_run",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
