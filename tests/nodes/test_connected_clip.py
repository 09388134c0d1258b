"""CLIP_VISION and a checkpoint's CLIP as towers, on small models of the host's own classes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools.comfy_host import PACK, Host, find_hosts

pytestmark = pytest.mark.host


@pytest.fixture(
    scope="module", params=find_hosts() or [None], ids=lambda host: host.version if host else "no host"
)
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    host: Host | None = request.param
    if host is None:
        pytest.skip("there is no ComfyUI: set COMFYUI_PATH to its folder")
    if (problem := host.problem()) is not None:
        pytest.skip(problem)
    script = Path(__file__).with_name("connected_clip_probe.py")
    command = [str(part) for part in (host.python, script, host.path, PACK)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def test_both_towers_make_unit_embeddings_of_one_width(answers: dict[str, Any]) -> None:
    assert answers["shapes"] == [[3, 64], [2, 64]]
    assert answers["norms"] == pytest.approx([1.0] * 5, abs=1e-5)


def test_texts_are_embedded_as_the_host_does_it_alone_or_together(answers: dict[str, Any]) -> None:
    assert answers["batching"] < 1e-5
    assert answers["host"] < 1e-5


def test_the_whole_picture_is_seen(answers: dict[str, Any]) -> None:
    assert answers["border"] > 1e-4


def test_weights_have_a_fingerprint(answers: dict[str, Any]) -> None:
    assert len(answers["fingerprint"]) == 64


def test_a_clip_without_projection_is_refused_with_the_way_out(answers: dict[str, Any]) -> None:
    assert "SD 2.x and SDXL" in answers["sd1"]
    assert "open_clip model" in answers["sd1"]


def test_towers_of_different_widths_are_refused_with_the_way_out(answers: dict[str, Any]) -> None:
    assert "48" in answers["mismatch"]
    assert "ViT-H/14 for SD 2.x" in answers["mismatch"]
