"""Writes the tiny checkpoints of the seeds: seeds/checkpoint/NAME is config.json, a zero byte, model.safetensors.

Random weights of a fixed seed, a few KB each; needs timm and transformers, by hand: `python fuzz/seeds.py`.
"""

import json
import pathlib

import timm
import torch
import transformers
from safetensors.torch import save

FOLDER = pathlib.Path(__file__).parent / "seeds" / "checkpoint"
FOLDER.mkdir(parents=True, exist_ok=True)


def write(name, config, model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    (FOLDER / name).write_bytes(json.dumps(config).encode() + b"\0" + save(state))
    print(name, (FOLDER / name).stat().st_size)


def of_timm(name, architecture, size, channels, **arguments):
    model = timm.create_model(architecture, num_classes=3, img_size=size, in_chans=channels, **arguments)
    cfg = {
        "input_size": [channels, size, size],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "num_classes": 3,
    }
    given = {"img_size": size, "in_chans": channels, **arguments}
    write(name, {"architecture": architecture, "num_classes": 3, "model_args": given, "pretrained_cfg": cfg}, model)


def of_transformers(name, config, model):
    config.architectures = [model.__name__]
    write(name, json.loads(config.to_json_string(use_diff=False)), model(config))


torch.manual_seed(0)
small = {"embed_dim": 8, "depth": 1, "num_heads": 2}
of_timm("timm_vit", "vit_tiny_patch16_224", 8, 1, patch_size=4, **small)
of_timm("timm_dinov2_reg4", "vit_small_patch14_reg4_dinov2", 8, 3, patch_size=4, **small)
of_timm("timm_distilled", "deit_tiny_distilled_patch16_224", 8, 3, patch_size=4, **small)
of_timm("timm_swin", "swin_tiny_patch4_window7_224", 16, 3, patch_size=4, window_size=2, embed_dim=4, depths=[2, 1], num_heads=[1, 2])
sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4, "num_labels": 3}
of_transformers("hf_vit", transformers.ViTConfig(intermediate_size=16, **sizes), transformers.ViTForImageClassification)
of_transformers("hf_dinov2", transformers.Dinov2Config(mlp_ratio=2, **sizes), transformers.Dinov2ForImageClassification)
swin = {"image_size": 16, "patch_size": 4, "window_size": 2, "embed_dim": 4, "depths": [2, 1], "num_heads": [1, 2], "num_labels": 3}
of_transformers("hf_swin", transformers.SwinConfig(**swin), transformers.SwinForImageClassification)
