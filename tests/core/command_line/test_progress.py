"""Long work shows that it goes on, and what is done of it is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from extractions import MARKED
from fakes import FakeBackbone
from torch import Tensor

from ice_core.command_line import commands
from ice_core.command_line.cli import main
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.localization.retrieval.retriever import Retriever


class Towers:
    """Embeds words one after the other around a circle, and every picture like the first."""

    name, fingerprint, scale = "towers", "12" * 32, 100.0

    def encode_images(self, images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(images), -1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        angles = torch.tensor([float("".join(c for c in text if c.isdigit()) or 0) for text in texts])
        return torch.stack([angles.cos(), angles.sin()], 1)


def test_a_long_vocabulary_shows_how_far_it_is_once(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = Vocabulary.from_text("\n".join(f"word{i}" for i in range(1000)))
    retriever = Retriever(Towers(), words, cache_folder=files / "cache")
    monkeypatch.setattr(commands, "_retriever", lambda *_: (retriever, []))
    command = ["extract", "squares.png", "--steps", "2", "--axes", "color"]
    main([*command, "--out", "one"])
    err = capsys.readouterr().err
    for line in ("0/1000", "256/1000", "512/1000", "1000/1000"):
        assert f"reading vocabulary {line}" in err
    main([*command, "--out", "two"])
    assert "reading vocabulary" not in capsys.readouterr().err


def test_many_pictures_are_written_as_they_are_drawn(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*MARKED[:-1], "2", "--axes", "color", "--out", "out"]) == 0
    decode, batches = FakeBackbone.decode_latent, []

    def stopped(self: FakeBackbone, latents: Tensor) -> Tensor:
        batches.append(len(latents))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return decode(self, latents)

    monkeypatch.setattr(FakeBackbone, "decode_latent", stopped)
    capsys.readouterr()
    assert main(["compose", "a {ball.object}", "--concepts", "out", "--out", "p.png", "--count", "20"]) == 130
    out, err = capsys.readouterr()
    assert out.split() == ["p.png", *(f"p-{i}.png" for i in range(2, 17))]
    assert all((files / name).is_file() for name in out.split())
    assert "drawing pictures 8/20" in err
    assert "ice: interrupted; 16 of 20 pictures are written" in err
