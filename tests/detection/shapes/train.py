#!/usr/bin/env python3
"""Trains the detector of this folder: a YOLOS of 0.2 M parameters on drawn circles, squares and triangles, and writes it with 24 pictures
and their annotations in COCO's format. python3 train.py FOLDER MINUTES (torch, numpy, safetensors, pillow)"""

import json
import math
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

SIDE, PATCH, D, L, H, HIDDEN, T, K = 64, 8, 72, 4, 3, 216, 9, 3
NAMES = ["circle", "square", "triangle"]
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
YY, XX = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5


def picture(rng):
    """One picture of 1 to 3 shapes that overlap little: pixels, boxes (cx, cy, w, h as shares), classes."""
    low, high = rng.uniform(0.1, 0.9, 3), rng.uniform(0.1, 0.9, 3)
    slope = (XX * rng.uniform(-1, 1) + YY * rng.uniform(-1, 1)) / SIDE
    image = low + (high - low) * np.clip(slope[..., None] * 0.5 + 0.5, 0, 1) + rng.normal(0, 0.03, (SIDE, SIDE, 3))
    boxes, classes = [], []
    for _ in range(rng.integers(1, 4)):
        for _ in range(20):
            w = rng.uniform(12, 34)
            h = w if rng.random() < 0.5 else np.clip(w * rng.uniform(0.7, 1.4), 10, 36)
            x, y = rng.uniform(w / 2, SIDE - w / 2), rng.uniform(h / 2, SIDE - h / 2)
            if all(abs(x - bx) > (w + bw) * 0.45 or abs(y - by) > (h + bh) * 0.45 for bx, by, bw, bh in boxes):
                break
        else:
            continue
        k = int(rng.integers(0, K))
        dx, dy = (XX - x) / (w / 2), (YY - y) / (h / 2)
        inside = [dx**2 + dy**2 <= 1, (np.abs(dx) <= 1) & (np.abs(dy) <= 1), (dy <= 1) & (np.abs(dx) <= (dy + 1) / 2)][k]
        image[inside] = rng.uniform(0, 1, 3) + rng.normal(0, 0.03, (int(inside.sum()), 3))
        boxes.append((x, y, w, h))
        classes.append(k)
    return np.clip(image, 0, 1), np.float32(boxes) / SIDE, np.int64(classes)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D, eps=1e-12), nn.LayerNorm(D, eps=1e-12)
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))
        self.f1, self.f2 = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, D)

    def forward(self, x):
        b, n, _ = x.shape
        y = self.n1(x)
        q, k, v = (f(y).view(b, n, H, D // H).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = (q @ k.transpose(2, 3) / (D // H) ** 0.5).softmax(-1) @ v
        x = x + self.o(a.transpose(1, 2).reshape(b, n, D))
        return x + self.f2(F.gelu(self.f1(self.n2(x))))


class Mlp(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, out)])

    def forward(self, x):
        return self.layers[2](F.relu(self.layers[1](F.relu(self.layers[0](x)))))


def waves(x, y):
    """A place as sines and cosines, so that near places are alike: where positions begin."""
    rates = 2 ** torch.arange(D // 4) ** 0.6
    parts = [f(math.pi * v * rates) for v in (x, y) for f in (torch.sin, torch.cos)]
    return torch.cat(parts)


class Yolos(nn.Module):
    def __init__(self):
        super().__init__()
        g = SIDE // PATCH
        self.patch = nn.Conv2d(3, D, PATCH, PATCH)
        self.cls, self.det = nn.Parameter(torch.zeros(1, 1, D)), nn.Parameter(torch.zeros(1, T, D))
        places = [(x + 0.5, y + 0.5) for y in range(g) for x in range(g)] + [((q % 3 + 0.5) * g / 3, (q // 3 + 0.5) * g / 3) for q in range(T)]
        self.pos = nn.Parameter(torch.cat([torch.zeros(1, D), torch.stack([waves(x / g, y / g) for x, y in places])])[None])
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(L)), nn.LayerNorm(D, eps=1e-12)
        self.c, self.b = Mlp(K + 1), Mlp(4)

    def forward(self, x):
        n = x.shape[0]
        x = torch.cat([self.cls.expand(n, -1, -1), self.patch(x).flatten(2).transpose(1, 2), self.det.expand(n, -1, -1)], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, -T:]
        return self.c(x), self.b(x).sigmoid()


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def giou(a, b):
    a, b = corners(a), corners(b)
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return inter / area - (hull - area) / hull


def loss_of(logits, boxes, target, wanted):
    """Each query answers for a cell of a 3x3 grid: a fixed assignment is learned much sooner than one by matching."""
    there = target < K
    weight = torch.tensor([1.0] * K + [0.3])
    ours, theirs = boxes[there], wanted[there]
    return F.cross_entropy(logits.transpose(1, 2), target, weight) + 4 * (ours - theirs).abs().sum(-1).mean() + (1 - giou(ours, theirs)).mean()


def batch(rng, n):
    made = [picture(rng) for _ in range(n)]
    pixels = torch.from_numpy(np.stack([((m[0] - MEAN) / STD).astype(np.float32).transpose(2, 0, 1) for m in made]))
    target, wanted = torch.full((n, T), K), torch.zeros(n, T, 4)
    for i, (_, boxes, classes) in enumerate(made):
        for box, k in zip(boxes, classes):
            near = sorted(range(T), key=lambda q: (box[0] * 3 - q % 3 - 0.5) ** 2 + (box[1] * 3 - q // 3 - 0.5) ** 2)
            free = next(q for q in near if target[i, q] == K)
            target[i, free], wanted[i, free] = int(k), torch.from_numpy(box)
    return pixels, target, wanted


def names(model):
    """The weights with the names of transformers."""
    out = {
        "vit.embeddings.cls_token": model.cls, "vit.embeddings.detection_tokens": model.det, "vit.embeddings.position_embeddings": model.pos,
        "vit.embeddings.patch_embeddings.projection.weight": model.patch.weight, "vit.embeddings.patch_embeddings.projection.bias": model.patch.bias,
        "vit.layernorm.weight": model.norm.weight, "vit.layernorm.bias": model.norm.bias,
    }
    for i, b in enumerate(model.blocks):
        parts = {"attention.attention.query": b.q, "attention.attention.key": b.k, "attention.attention.value": b.v, "attention.output.dense": b.o,
                 "intermediate.dense": b.f1, "output.dense": b.f2, "layernorm_before": b.n1, "layernorm_after": b.n2}
        for name, layer in parts.items():
            out[f"vit.encoder.layer.{i}.{name}.weight"], out[f"vit.encoder.layer.{i}.{name}.bias"] = layer.weight, layer.bias
    for name, mlp in [("class_labels_classifier", model.c), ("bbox_predictor", model.b)]:
        for i, layer in enumerate(mlp.layers):
            out[f"{name}.layers.{i}.weight"], out[f"{name}.layers.{i}.bias"] = layer.weight, layer.bias
    return {k: v.detach().half().contiguous() for k, v in out.items()}


def config():
    labels = {str(i): n for i, n in enumerate(NAMES)}
    return {"architectures": ["YolosForObjectDetection"], "model_type": "yolos", "hidden_size": D, "num_hidden_layers": L, "num_attention_heads": H,
            "intermediate_size": HIDDEN, "image_size": [SIDE, SIDE], "patch_size": PATCH, "num_channels": 3, "qkv_bias": True, "num_detection_tokens": T,
            "use_mid_position_embeddings": False, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "id2label": labels}


def main():
    folder, minutes = sys.argv[1], float(sys.argv[2])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng, model = np.random.default_rng(0), Yolos()
    best = torch.optim.AdamW(model.parameters(), lr=8e-4, weight_decay=1e-4)
    began, step = time.time(), 0
    while (spent := (time.time() - began) / 60) < minutes:
        for group in best.param_groups:
            group["lr"] = 8e-4 * min(1, step / 200) * max(0.02, np.cos(np.pi / 2 * spent / minutes))
        pixels, target, wanted = batch(rng, 48)
        loss = loss_of(*model(pixels), target, wanted)
        best.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        best.step()
        step += 1
        if step % 200 == 0:
            print(f"{spent:.1f} min, step {step}, loss {float(loss):.3f}", flush=True)
            save_file(names(model), f"{folder}/model.safetensors")
    save_file(names(model), f"{folder}/model.safetensors")
    json.dump(config(), open(f"{folder}/config.json", "w"), indent=1)
    json.dump({"image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": SIDE, "longest_edge": SIDE}, "resample": 2,
               "image_mean": MEAN.tolist(), "image_std": STD.tolist()}, open(f"{folder}/preprocessor_config.json", "w"), indent=1)
    held, images, annotations = np.random.default_rng(1), [], []
    for i in range(24):
        pixels, boxes, classes = picture(held)
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(f"{folder}/images/{i:02}.png")
        images.append({"id": i + 1, "file_name": f"{i:02}.png", "width": SIDE, "height": SIDE})
        for (x, y, w, h), k in zip(boxes * SIDE, classes):
            box = [round(float(v), 2) for v in (x - w / 2, y - h / 2, w, h)]
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": int(k) + 1, "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0})
    categories = [{"id": i + 1, "name": n} for i, n in enumerate(NAMES)]
    json.dump({"images": images, "annotations": annotations, "categories": categories}, open(f"{folder}/instances.json", "w"))


main()
