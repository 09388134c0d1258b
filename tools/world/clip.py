"""Stage `clip`: text and image towers, trained contrastively with ground-truth positives.

Whether a caption is true of a picture is known, so that every true pair of a batch counts as a
positive (a bare "ball" fits many pictures) and captions with one attribute changed are negatives.
Half of the pictures have objects or the ground blacked out, as Stage One will show them.

After `text_steps` the text transformer is frozen, since the U-Net conditions on it; the image tower and
the projection of both go on and can be trained beside the U-Net.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.model.prompts import NEUTRAL_TEMPLATES
from ice_core.world.architecture import CLIP_CONFIG
from ice_core.world.captions import Caption, caption, contradiction, vocabulary
from ice_core.world.colors import FINE_NAMES, NAMES, distances
from ice_core.world.scenes import INTRINSIC_AXES, Scene
from world.checkpoint import Average, Log, learning_rate, load_state, save_state
from world.data import RenderedSet
from world.judging import JUDGED
from world.tokens import END, pieces, plain, tokenize

BATCH, PEAK_RATE, WORD_WEIGHT = 128, 1.5e-3, 2.0
IDENTITY_WEIGHT, IDENTITY_SCALE = 1.0, 10.0
AXIS_WEIGHT, AXIS_SCALE = 0.5, 15.0
COLOR_SOFTNESS = 4.0
"""CIEDE2000 by which a color name fits a color e times worse."""
COLOR_NAMES = (*NAMES, *FINE_NAMES)
VOCABULARY = CLIP_CONFIG["text_cfg"]["vocab_size"]
MEAN = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
STD = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)


def build() -> open_clip.CLIP:
    return open_clip.CLIP(**CLIP_CONFIG)


@dataclass(frozen=True)
class View:
    """A scene of which only some objects, and perhaps not the ground, can be seen."""

    scene: Scene
    visible: tuple[int, ...]
    ground: bool


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


def _batch(data: RenderedSet, rng: random.Random) -> tuple[Tensor, list[Caption], Tensor, list[View]]:
    """Pictures [B, 3, 128, 128], captions (2 B with hard negatives), truth [B, T] bool, what is seen."""
    pictures: list[Tensor] = []
    seen: list[View] = []
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
        seen.append(View(scene, visible, ground))
        texts.append(text)
        if (negative := contradiction(text, scene, rng)) is not None:
            wrong.append(negative)
    texts += wrong
    truth = torch.tensor(
        [[t.is_true_of(v.scene, v.visible) and (v.ground or t.ground is None) for t in texts] for v in seen]
    )
    return torch.stack(pictures), texts, truth, seen


def word_truth(seen: Sequence[View]) -> dict[str, Tensor]:
    """Which bare words are true of each picture: axis -> [B, values] float."""
    return {
        axis: torch.tensor(
            [
                [
                    float(
                        (v.ground and v.scene.ground == value)
                        if axis == "ground"
                        else any(value in v.scene.objects[i].words(axis) for i in v.visible)
                    )
                    for value in values
                ]
                for v in seen
            ]
        )
        for axis, values in JUDGED.items()
    }


def color_truth(seen: Sequence[View]) -> Tensor:
    """How near each color name, plain or fine, is to the colors of each picture: [B, names], 0..1."""
    rows = []
    for view in seen:
        paints = [view.scene.objects[i].paint for i in view.visible]
        near = [
            torch.from_numpy(np.exp(-distances(p, fine=True)[1] / COLOR_SOFTNESS)).float() for p in paints
        ]
        shares = [n / n.sum() for n in near]
        rows.append(torch.stack(shares).sum(0) if shares else torch.zeros(len(COLOR_NAMES)))
    return torch.stack(rows)


def axis_loss(axes: Tensor, values: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of each axis word's feature against the means of all axes' values.

    axes: [A, D] unit, in the order of `values`; values: axis -> [V, D] unit.
    """
    means = F.normalize(torch.stack([v.mean(0) for v in values.values()]), dim=-1)
    return F.cross_entropy(AXIS_SCALE * axes @ means.T, torch.arange(len(axes), device=axes.device))


def word_loss(logits: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of the bare words of each axis against each other, every true one an equal target.

    Among captions color and ground tell nearly all pictures apart, and kinds stay one point in the
    space (measured: cosine 0.99 between them after 66 000 pictures); here nothing else can.
    logits: [B, sum of values] in the order of the axes.
    """
    total, first = logits.new_zeros(()), 0
    for target in truth.values():
        part = logits[:, first : first + target.shape[1]]
        first += target.shape[1]
        count = target.sum(1, keepdim=True)
        some = (count > 0).float()[:, 0]
        losses = -(target / count.clamp(min=1) * part.log_softmax(1)).sum(1)
        total = total + (losses * some).sum() / some.sum().clamp(min=1)
    return total / len(truth)


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


class WordReader(nn.Module):
    """Reads a word off the hidden state at its own position, by cosine; thrown away after training.

    The U-Net is conditioned on hidden states. Left to the contrastive loss, those of the kinds were
    nearly one (measured: cosines up to 0.97), and the U-Net drew kinds by chance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = {word_ids[0]: n for n, word in enumerate(vocabulary()) if (word_ids := pieces(word))}
        self.weight = nn.Parameter(torch.randn(len(self.words), CLIP_CONFIG["text_cfg"]["width"]))

    def forward(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Cross-entropy over the world's words. hidden: [T, L, D]; ids: [T, L]."""
        index = torch.full((VOCABULARY,), -1, device=ids.device)
        index[list(self.words)] = torch.tensor(list(self.words.values()), device=ids.device)
        wanted = index[ids]
        spoken = wanted >= 0
        read = F.normalize(hidden[spoken].float(), dim=-1) @ F.normalize(self.weight, dim=-1).T
        return F.cross_entropy(IDENTITY_SCALE * read, wanted[spoken])


def _text_parameters(model: open_clip.CLIP) -> list[nn.Parameter]:
    """What the hidden states depend on: everything of the text tower but its projection."""
    modules = (model.token_embedding, model.transformer, model.ln_final)
    return [model.positional_embedding, *(p for m in modules for p in m.parameters())]


def _hidden_states(model: open_clip.CLIP, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Last hidden states [T, L, D] and ids [T, L]; attention is causal, so that padding can be cut off."""
    length = int((ids == END).int().argmax(1).max()) + 1
    ids = ids[:, :length]
    x = model.token_embedding(ids) + model.positional_embedding[:length]
    return model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length])), ids


def _pool(model: open_clip.CLIP, hidden: Tensor, ids: Tensor) -> Tensor:
    """Unit text features [T, D] from the hidden states at the end tokens."""
    pooled = hidden[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
    return F.normalize(pooled @ model.text_projection, dim=-1)


def train(
    folder: Path,
    data: RenderedSet,
    steps: int,
    text_steps: int,
    device: torch.device,
    initial: dict[str, Tensor] | None = None,
) -> open_clip.CLIP:
    """Train to `steps`, or go on from the state in `folder`, else from `initial` weights."""
    torch.manual_seed(0)
    model = build().to(device)
    if initial:
        model.load_state_dict(initial)
    # Pulls properties into the picture's embedding while words do not yet point at them; not kept.
    head = nn.Linear(CLIP_CONFIG["embed_dim"], sum(map(len, JUDGED.values()))).to(device)
    reader = WordReader().to(device)
    learned = [*model.parameters(), *head.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    average, rng, start = Average(model, 0.995), random.Random(1), 0
    taught = model.token_embedding.weight.detach().any(1) if initial else torch.zeros(VOCABULARY).bool()
    if state := load_state(folder / "clip.pt"):
        model.load_state_dict(state["model"])
        head.load_state_dict(state["head"])
        reader.load_state_dict(state["reader"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        start, taught = state["step"], state["taught"]
        rng = random.Random(start)
    log = Log("clip", every=20)
    model.train()
    for step in range(start, steps):
        if step == text_steps:
            model.load_state_dict(average.state)
        text_learns = step < text_steps
        for parameter in _text_parameters(model):
            parameter.requires_grad_(text_learns)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, PEAK_RATE)
        pictures, captions, truth, seen = _batch(data, rng)
        template = rng.choice(("{}", "{}", "a {}", rng.choice(NEUTRAL_TEMPLATES)))
        named = [*(value for values in JUDGED.values() for value in values), *COLOR_NAMES, *INTRINSIC_AXES]
        words = [plain(template.format(value)) for value in named]
        ids = tokenize([*captions, *words]).ids
        taught[ids.unique()] |= text_learns
        x = ((pictures.to(device).float() / 255) - MEAN.to(device)) / STD.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            images = model.encode_image(x.contiguous(memory_format=torch.channels_last), normalize=True)
            hidden, ids = _hidden_states(model, ids.to(device))
            texts = _pool(model, hidden, ids)
        truth = truth.to(device)
        scale = model.logit_scale.exp().clamp(max=60)
        images, words_encoded = images.float(), texts[len(captions) :].float()
        texts = texts[: len(captions)].float()
        wanted = {axis: t.to(device) for axis, t in word_truth(seen).items()}
        first = sum(map(len, JUDGED.values()))
        values, colors, axes = words_encoded.split([first, len(COLOR_NAMES), len(INTRINSIC_AXES)])
        by_word = word_loss(scale * images @ values.T, wanted)
        by_color = word_loss(scale * images @ colors.T, {"color": color_truth(seen).to(device)})
        parts = dict(zip(JUDGED, values.split([len(v) for v in JUDGED.values()]), strict=True))
        by_axis = axis_loss(axes, {axis: parts[axis] for axis in INTRINSIC_AXES})
        by_head = word_loss(head(scale * images), wanted)
        identity = reader(hidden, ids)
        loss = loss_of(images, texts, truth.float(), scale) + WORD_WEIGHT * (by_word + by_head)
        loss = loss + IDENTITY_WEIGHT * identity + by_color + AXIS_WEIGHT * by_axis
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        average.update(model, step)
        with torch.no_grad():
            kinds = len(JUDGED["kind"])
            best = (images @ values[:kinds].T).argmax(1, keepdim=True)
            some = wanted["kind"].sum(1) > 0
            right = wanted["kind"].gather(1, best)[some].mean()
        log.add(
            step + 1,
            steps,
            BATCH,
            loss=loss.item(),
            words=by_word.item(),
            colors=by_color.item(),
            axes=by_axis.item(),
            head=by_head.item(),
            identity=identity.item(),
            kind=right.item(),
        )
        if (step + 1) % 60 == 0 or step + 1 in (steps, text_steps):
            save_state(
                folder / "clip.pt",
                {
                    "model": model.state_dict(),
                    "head": head.state_dict(),
                    "reader": reader.state_dict(),
                    "average": average.state,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "taught": taught,
                },
            )
    model.load_state_dict(average.state)
    with torch.no_grad():
        # Rows of words that no caption held are noise; as zeros they say nothing, and pack to nothing.
        model.token_embedding.weight *= taught[:, None].to(device)
    return model.eval().requires_grad_(False)
