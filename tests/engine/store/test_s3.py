"""A run into an object store, spoken to as to Amazon's: a server of its own, here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from engine.batch.experiments import contents, recipe_of, write_stack
from napari_sam_suite.engine.batch.run import run_recipe
from napari_sam_suite.engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.fakes import FakeSam


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of an empty bucket called ``plates``."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.clear_instance_cache()
    system.mkdir("plates")
    yield system
    system.clear_instance_cache()
    server.stop()


def test_a_run_into_a_bucket_goes_on_where_it_was(
    tmp_path: Path, model: FakeSam, bucket: Any
) -> None:
    path = write_stack(tmp_path / "a.tif", 4)
    recipe = recipe_of(path, store="s3://plates/first")
    assert run_recipe(recipe).done == 4
    bucket.rm_file("plates/first/images/a/objects/p1_t2_z1.parquet")
    again = run_recipe(recipe)
    assert (again.done, again.skipped, again.complete) == (1, 3, True)
    assert run_recipe(recipe).skipped == 4
    assert not Store.open("s3://plates/first").image("a").failures()
    run_recipe(recipe_of(path, store=tmp_path / "local"))
    assert contents("s3://plates/first") == contents(tmp_path / "local")
