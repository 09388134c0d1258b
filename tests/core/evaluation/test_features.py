"""Image encoders by name; the weights are random ones in local files."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ice_core.errors import IceError
from ice_core.evaluation.features import load_features

SMALL = "vit_small_patch14_dinov2"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of random weights, as timm keeps it."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("dino") / "small.safetensors"
    save_file(timm.create_model(SMALL, num_classes=0).state_dict(), file)
    return file


def test_dino_reads_local_weights_and_squeezes_any_picture(weights: Path) -> None:
    features = load_features(f"dino:{SMALL}={weights}")
    pictures = torch.rand(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    seen = features.encode_images(pictures)
    assert features.name == SMALL
    assert seen.shape == (2, 384)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(2))
    model = timm.create_model(
        SMALL, num_classes=0, pretrained=True, pretrained_cfg_overlay={"file": str(weights)}
    )
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    large = torch.nn.functional.interpolate(pictures, (518, 518), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        expected = model.eval()((large - mean) / std)
    torch.testing.assert_close(seen, torch.nn.functional.normalize(expected, dim=-1), rtol=1e-4, atol=1e-5)


def test_wrong_names_and_files_are_one_clear_error(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "odd.safetensors").write_bytes(b"no tensors")
    for text, message in (
        ("clop", "unknown features 'clop'"),
        ("dino:vit_smal_patch14_dinov2=x.safetensors", "near names"),
        (f"dino:{SMALL}=absent.safetensors", "there is no file"),
        (f"dino:{SMALL}=weights.bin", "can run code"),
        (f"dino:{SMALL}={tmp_path / 'odd.safetensors'}", "do not fit"),
        (f"dino:vit_base_patch14_dinov2={weights}", "do not fit"),
        ("clip:ViT-L-14=absent.safetensors", "there is no file"),
        ("clip:ViT-L-15/openai", "knows no model"),
    ):
        with pytest.raises(IceError, match=message):
            load_features(text)
