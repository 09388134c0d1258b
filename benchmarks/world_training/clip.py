"""Stage `clip`: text and image towers, trained contrastively with ground-truth positives.

Whether a caption is true of a picture is known, so that every true pair of a batch counts as a
positive (a bare "ball" fits many pictures) and captions with one attribute changed are negatives.
Half of the pictures have objects or the ground blacked out, as Stage One will show them.
"""

from __future__ import annotations

import random
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.world.architecture import CLIP_CONFIG
from ice_core.world.captions import Caption, caption, contradiction
from ice_core.world.scenes import Scene
from world_training.checkpoint import Average, Log, learning_rate, load_state, save_state
from world_training.data import RenderedSet
from world_training.tokens import END, tokenize

BATCH, PEAK_RATE = 128, 1.5e-3
MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)


def build() -> open_clip.CLIP:
    return open_clip.CLIP(**CLIP_CONFIG)


def _black_out(
    image: Tensor, masks: Tensor, count: int, rng: random.Random
) -> tuple[Tensor, tuple[int, ...], bool]:
    """Blacken some objects and perhaps the ground with imprecise masks; says what stays visible."""
    hidden = [i for i in range(count) if rng.random() < 0.45]
    ground_gone = rng.random() < 0.5
    if ground_gone and len(hidden) == count:
        hidden.remove(rng.choice(hidden))
    coarse = rng.choice([1, 2, 4, 8])
    soft = F.avg_pool2d(masks.float()[None], coarse)
    soft = F.interpolate(soft, size=image.shape[-2:], mode="nearest")[0]
    level = rng.choice([0.15, 0.35, 0.5, 0.65])
    black = torch.zeros(image.shape[-2:], dtype=torch.bool)
    for i in hidden:
        black |= soft[i] > level
    if ground_gone:
        black |= soft[:count].amax(0) <= rng.choice([0.1, 0.3, 0.5])
    visible = tuple(i for i in range(count) if i not in hidden)
    return image * ~black, visible, not ground_gone


def _batch(data: RenderedSet, rng: random.Random) -> tuple[Tensor, list[Caption], Tensor]:
    """Pictures [B, 3, 128, 128], captions (2 B with hard negatives), truth [B, T] bool."""
    pictures: list[Tensor] = []
    seen: list[tuple[Scene, tuple[int, ...], bool]] = []
    texts: list[Caption] = []
    wrong: list[Caption] = []
    for i in (rng.randrange(len(data.images)) for _ in range(BATCH)):
        image, scene = data.images[i], data.scenes[i]
        visible, ground = tuple(range(len(scene.objects))), True
        if rng.random() < 0.5:
            image, visible, ground = _black_out(image, data.masks[i], len(visible), rng)
        while True:
            text = caption(scene, rng, visible)
            if ground or text.ground is None:
                break
        if rng.random() < 0.5:
            image = image.flip(-1)
        pictures.append(image)
        seen.append((scene, visible, ground))
        texts.append(text)
        if (negative := contradiction(text, scene, rng)) is not None:
            wrong.append(negative)
    texts += wrong
    truth = torch.tensor(
        [[t.is_true_of(s, v) and (g or t.ground is None) for t in texts] for s, v, g in seen]
    )
    return torch.stack(pictures), texts, truth


def loss_of(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE with every true pair as an equal positive, both directions (texts that fit none: one)."""
    logits = scale * images @ texts.T
    target = truth / truth.sum(1, keepdim=True)
    to_text = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = truth.any(0)
    backward = truth.T[columns].float()
    target = backward / backward.sum(1, keepdim=True)
    to_image = -(target * logits.T[columns].log_softmax(1)).sum(1).mean()
    return (to_text + to_image) / 2


def _encode_texts(model: open_clip.CLIP, ids: Tensor) -> Tensor:
    """Pooled unit text features [T, D]; attention is causal, so that padding can be cut off."""
    length = int((ids == END).int().argmax(1).max()) + 1
    ids = ids[:, :length]
    x = model.token_embedding(ids) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    pooled = x[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
    return F.normalize(pooled @ model.text_projection, dim=-1)


def train(folder: Path, data: RenderedSet, steps: int, device: torch.device) -> open_clip.CLIP:
    torch.manual_seed(0)
    model = build().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    average, rng, start = Average(model, 0.995), random.Random(1), 0
    if state := load_state(folder / "clip.pt"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.state, start = state["average"], state["step"]
        rng = random.Random(start)
    log = Log("clip", every=20)
    model.train()
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, PEAK_RATE)
        pictures, captions, truth = _batch(data, rng)
        x = ((pictures.to(device).float() / 255) - MEAN.to(device)) / STD.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            images = model.encode_image(x.contiguous(memory_format=torch.channels_last), normalize=True)
            texts = _encode_texts(model, tokenize(captions).ids.to(device))
        truth = truth.to(device)
        scale = model.logit_scale.exp().clamp(max=60)
        loss = loss_of(images.float(), texts.float(), truth.float(), scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        with torch.no_grad():
            best = (images.float() @ texts.float().T).argmax(1)
            right = truth.gather(1, best[:, None]).float().mean()
        log.add(step + 1, steps, BATCH, loss=loss.item(), right=right.item())
        if (step + 1) % 60 == 0 or step + 1 == steps:
            save_state(
                folder / "clip.pt",
                {
                    "model": model.state_dict(),
                    "average": average.state,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
    model.load_state_dict(average.state)
    return model.eval()
