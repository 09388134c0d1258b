"""The batch on a real Ray cluster of two nodes, with workers that die in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_workers import open_nothing, open_slow_worker, open_worker, pictures_in

from ice_core.errors import IceError
from ice_core.library.batch import Filed, jobs_in, run_batch
from ice_core.library.engines import LocalEngine
from ice_core.library.entries import Query
from ice_core.library.ray_engine import RayEngine
from ice_core.library.store import Library

pytest.importorskip("ray", reason="Ray is not installed: `python -m uv sync --extra ray`")

PICTURES = {f"{n}.png": f"picture {n}" for n in range(6)} | {"bad.png": "bad", "odd.png": "odd"}
HELPERS = Path(__file__).parents[2] / "helpers"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes with a core each, whose workers can import the tests' helpers."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(HELPERS), os.environ.get("PYTHONPATH", ""))))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
        yield cluster.address
        cluster.shutdown()


def contents(library: Library) -> list[tuple[str, str, dict[str, str]]]:
    hits = library.search(Query(limit=1000))
    return sorted((hit.entry.title, hit.entry.key, hit.entry.properties) for hit in hits)


def test_killed_workers_are_replaced_and_results_stay_the_same(address: str, tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "pictures", PICTURES)
    pictures_in(folder, {"poison.png": "poison"})
    filed: list[Filed] = []
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with Library(tmp_path / "ray") as library:
        engine = RayEngine(address, workers=2)
        for one in run_batch(library, jobs_in(folder, ""), engine, open_slow_worker):
            if not filed:
                os.kill(one.process, signal.SIGKILL)
            filed.append(one)
        on_ray = contents(library)
        assert library.check().problems == ()
    assert signal.getsignal(signal.SIGTERM) is on_sigterm
    errors = {one.job.name: one.error for one in filed if one.error}
    assert "its worker died 2 times" in errors.pop("poison.png")
    assert errors == {"bad.png": "nothing was found", "odd.png": "ValueError: odd"}
    assert len({one.process for one in filed if not one.error}) >= 2
    (folder / "poison.png").unlink()
    with Library(tmp_path / "local") as library:
        list(run_batch(library, jobs_in(folder, ""), LocalEngine(), open_worker))
        assert contents(library) == on_ray


def test_a_cluster_that_does_not_answer_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    for address, message in (("a:1", "answers at 'a:1': The current node"), ("", "could be started here")):
        with pytest.raises(IceError, match=message):
            list(RayEngine(address).outcomes([], open_worker))


def test_what_no_worker_can_do_is_one_clear_error(address: str, tmp_path: Path) -> None:
    jobs = jobs_in(pictures_in(tmp_path / "pictures", PICTURES), "")
    with Library(tmp_path / "library") as library:
        with pytest.raises(IceError, match="the model is not there"):
            list(run_batch(library, jobs, RayEngine(address, 1), open_nothing))
        with pytest.raises(IceError, match=r"3 workers .* room for \(2\); give --workers 2"):
            list(run_batch(library, jobs, RayEngine(address, 3), open_worker))
