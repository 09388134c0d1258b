"""Train every model of the bundled world from nothing, and write the files that the package ships.

    python tools/train_world.py                      # everything, resumable at any point
    python tools/train_world.py --only unet --unet-steps 40000
    python tools/train_world.py --from-shipped --only clip unet export

    torchrun --nproc-per-node 2 tools/train_world.py --from-shipped --only unet --threads 1 --unet-peak 0.5

Several processes train the U-Net together, which is where the time goes; the other stages each would do for
itself, so that they come before, in one.

Each stage keeps its state in --folder (the user's cache) and goes on where it stopped. On two CPU cores the
defaults take some hours. An accelerator takes more at once; there let the clock end a stage:

    python tools/train_world.py --from-shipped --only vae --vae-steps 100000 --minutes vae=2
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from world import clip, denoiser, judge, vae
from world.checkpoint import load_state, save_state
from world.data import RenderedSet, judge_set, training_set
from world.judging import WEIGHTS as JUDGE_FILE
from world.shipped import Shipped, shipped

from ice_core.localization.retrieval.cache import default_cache_folder
from ice_core.standalone.ldm import text_state_from_open_clip, to_original_layout
from ice_core.world.architecture import METADATA
from ice_core.world.bundled import CLIP_FILE, MODEL_FILE, WEIGHTS

STAGES = ("render", "vae", "clip", "judge", "unet", "decoder", "export")


def _latents(
    folder: Path, autoencoder: AutoencoderTiny, data: RenderedSet, count: int, device: torch.device
) -> torch.Tensor:
    """Latents of the first `count` training scenes, made once: from then on the encoder is frozen."""
    path = folder / "latents.pt"
    if state := load_state(path):
        return state["latents"]
    latents = vae.encode_all(autoencoder, data.images[:count], device)
    save_state(path, {"latents": latents})
    return latents


def _half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in half precision; single numbers, such as the latent scale, as they are."""
    return {k: (v.half() if v.dim() else v).detach().cpu().contiguous() for k, v in state.items()}


def _export(
    folder: Path, unet: UNet2DConditionModel, autoencoder: AutoencoderTiny, towers: open_clip.CLIP
) -> None:
    """Write the checkpoint and the image tower; the judge writes itself."""
    state = towers.state_dict()
    text = text_state_from_open_clip(state)
    save_file(_half(to_original_layout(unet, autoencoder, text)), folder / MODEL_FILE.name, METADATA)
    image = {k: v for k, v in state.items() if k.startswith("visual.")}
    image |= {k: state[k] for k in ("text_projection", "logit_scale")}
    image = {k: v.detach().cpu().half() if v.is_floating_point() else v for k, v in image.items()}
    save_file(image, folder / CLIP_FILE.name)
    for name in (MODEL_FILE.name, CLIP_FILE.name):
        print(f"{name}: {(folder / name).stat().st_size / 2**20:.1f} MiB")


def _judge_file(out: Path) -> Path:
    """The judge is no part of the package, and lies beside the tools unless another folder was asked for."""
    return JUDGE_FILE if out == WEIGHTS else out / JUDGE_FILE.name


def _minutes(text: str) -> tuple[str, float]:
    """ "unet=30" -> ("unet", 30.0)."""
    stage, _, number = text.partition("=")
    if stage not in ("vae", "judge", "unet", "decoder") or not float(number) > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: vae, judge, unet or decoder, '=' and minutes above 0")
    return stage, float(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=default_cache_folder() / "world-training")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the shipped files are written")
    parser.add_argument(
        "--from-shipped", action="store_true", help="where --folder holds no state, start from the weights"
    )
    parser.add_argument(
        "--only",
        choices=STAGES,
        nargs="+",
        default=STAGES[1:],
        help="stages; `render` draws the scenes alone, which the others do where they are missing",
    )
    parser.add_argument("--scenes", type=int, default=14336)
    parser.add_argument("--unet-scenes", type=int, default=14336, help="how many of them the U-Net sees")
    parser.add_argument("--judge-scenes", type=int, default=6144)
    parser.add_argument("--vae-steps", type=int, default=3000)
    parser.add_argument("--clip-steps", type=int, default=2500)
    parser.add_argument("--text-steps", type=int, default=1500, help="of these, until the text is frozen")
    parser.add_argument("--judge-steps", type=int, default=900)
    parser.add_argument("--decoder-steps", type=int, default=600)
    parser.add_argument("--unet-steps", type=int, default=5000)
    parser.add_argument(
        "--minutes",
        type=_minutes,
        nargs="+",
        default=[],
        metavar="STAGE=MINUTES",
        help="end a stage after so long, earlier runs by the clock included (not clip; not with torchrun)",
    )
    parser.add_argument("--unet-peak", type=float, default=1.0, help="its highest learning rate, as a share")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for all cores")
    parser.add_argument(
        "--compile", action="store_true", help="compile the U-Net: minutes at the start, faster after"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, folder, minutes = torch.device(args.device), args.folder, dict(args.minutes)
    args.out.mkdir(parents=True, exist_ok=True)

    if minutes and "WORLD_SIZE" in os.environ:
        parser.error("several processes do not share a clock: say steps instead of --minutes")
    if device.type != "cpu":
        torch.set_float32_matmul_precision("high")
    start = shipped() if args.from_shipped else Shipped()
    if "render" in args.only:
        training_set(folder, args.scenes)
        judge_set(folder, args.judge_scenes)
    if "judge" in args.only:
        data = judge_set(folder, args.judge_scenes)
        held_out = 512
        train = RenderedSet(data.scenes[held_out:], data.images[held_out:], data.masks[held_out:])
        test = RenderedSet(data.scenes[:held_out], data.images[:held_out], data.masks[:held_out])
        model = judge.train(train, args.judge_steps, device, start.judge, minutes.get("judge"))
        print("judge on held-out renders:", judge.accuracy(model, test, device))
        save_file(_half(model.state_dict()), _judge_file(args.out))
    if set(args.only) <= {"render", "judge"}:
        return

    data = training_set(folder, args.scenes)

    def steps(stage: str) -> int:
        """Stages that are only needed by others train no further."""
        return int(getattr(args, f"{stage}_steps")) if stage in args.only else 0

    if set(args.only) & {"vae", "unet", "decoder", "export"}:
        autoencoder = vae.train(folder, data, steps("vae"), device, start.vae, minutes.get("vae"))
    if set(args.only) & {"clip", "unet", "export"}:
        towers = clip.train(folder, data, steps("clip"), args.text_steps, device, start.clip)
    if set(args.only) & {"unet", "decoder", "export"}:
        latents = _latents(folder, autoencoder, data, args.unet_scenes, device)
    if set(args.only) & {"unet", "export"}:
        unet = denoiser.train(
            folder,
            data,
            latents,
            towers,
            steps("unet"),
            device,
            start.unet,
            args.compile,
            args.unet_peak,
            minutes.get("unet"),
        )
    if set(args.only) & {"decoder", "export"}:
        vae.train_decoder(
            folder, autoencoder, data, latents, steps("decoder"), device, minutes.get("decoder")
        )
    if "export" in args.only:
        _export(args.out, unet, autoencoder, towers)


if __name__ == "__main__":
    main()
