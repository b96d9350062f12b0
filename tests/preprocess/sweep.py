"""Holds igq's input tensor to transformers and timm, configuration by configuration:

    python tests/preprocess/sweep.py IGQ [COUNT [SEED]] > tests/preprocess/results.csv

Draws configurations of preprocessing at random (every processor class that igq knows and some that it does not, with and without explicit
values, and timm's pretrained_cfg), gives each to `igq run` with a tiny model and a picture, and compares the input tensor with the one of
the real library (transformers' torchvision backend, timm's evaluation transform), in steps of 1/255 of the picture. A case is equal (at most
3 steps), refused by igq (exit code 1), or different, which must not happen; `no reference` is what the library itself refuses.
Needs transformers, timm and torch; run by hand.
"""
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import timm.data
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
igq, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600
draw = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
torch.manual_seed(0)
KNOWN = "ViT DeiT Bit ConvNext CLIP EfficientNet Siglip Beit ChineseCLIP Levit Pvt PoolFormer DINOv3ViT Blip MobileNetV1".split()
CROPS = "DeiT Bit CLIP ChineseCLIP Levit PoolFormer MobileNetV1".split()
OTHER = "Perceiver MobileViT VideoMAE Segformer LayoutLMv3 Flava Donut".split()
SHAPES = [(40, 30), (30, 40), (33, 47), (47, 33), (20, 27), (64, 64), (1, 25), (25, 1), (32, 32), (31, 90), (90, 31), (24, 24), (28, 36)]
SIDES = [16, 24, 28, 32, 33, 36, 40, 47]


def picture(height, width):
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(height * 1000 + width).integers(0, 60, (height, width, 3))
    base = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * y * 7) % 256], -1) * 195 // 255
    return Image.fromarray((base + noise).astype(np.uint8))


def size_of(target, square):
    near = draw.choice(SIDES)
    return draw.choice([
        {"height": target[0], "width": target[1]}, {"height": target[0], "width": target[1]}, {"height": near, "width": draw.choice(SIDES)},
        {"shortest_edge": near}, {"shortest_edge": target[0]}, {"shortest_edge": near, "longest_edge": draw.choice([32, 40, 50, 64])},
        {"longest_edge": near}, {"max_height": near, "max_width": draw.choice(SIDES)}, near, target[0], list(target),
    ])


def hf_case():
    target = draw.choice([(32, 32), (32, 32), (24, 24), (40, 40), (24, 40), (32, 24)])
    name = draw.choice(KNOWN) if draw.random() < 0.93 else draw.choice(OTHER)
    spelling = draw.choice(["ImageProcessor", "ImageProcessor", "ImageProcessorFast", "FeatureExtractor"])
    config = {draw.choice(["image_processor_type", "image_processor_type", "feature_extractor_type"]): name + spelling}
    if spelling == "FeatureExtractor":
        config = {"feature_extractor_type": name + spelling}
    maybe = lambda chance: draw.random() < chance
    if maybe(0.85):
        config["size"] = size_of(target, True)
    if maybe(0.5):
        config["do_center_crop"] = maybe(0.75)
    if maybe(0.7):
        config["crop_size"] = draw.choice([target[0] if target[0] == target[1] else {"height": target[0], "width": target[1]},
                                           {"height": target[0], "width": target[1]}, draw.choice(SIDES)])
    for key, chance, values in [
        ("do_resize", 0.3, [True, False]), ("resample", 0.6, [0, 1, 2, 3, 4, 5]), ("do_rescale", 0.2, [True, False]),
        ("rescale_factor", 0.2, [1 / 255, 1 / 127.5, 0.00392, 1 / 256]), ("do_normalize", 0.3, [True, False]),
        ("image_mean", 0.5, [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.5]]),
        ("image_std", 0.5, [[0.229, 0.224, 0.225], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]),
        ("do_convert_rgb", 0.3, [True, None]), ("crop_pct", 0.25, [0.875, 0.9, 0.95, 1.0, None]), ("include_top", 0.2, [True, False]),
        ("rescale_offset", 0.15, [True, False]), ("do_flip_channel_order", 0.05, [True, False]), ("do_pad", 0.05, [True, False]),
        ("default_to_square", 0.1, [True, False]), ("size_divisor", 0.03, [None, 32]), ("do_reduce_labels", 0.1, [False]),
    ]:
        if maybe(chance):
            config[key] = draw.choice(values)
    # Most draws fit the model, or nothing but refusals would be seen.
    if maybe(0.75) and name not in OTHER:
        if config.get("do_center_crop") or (name in CROPS and config.get("do_center_crop") is not False):
            config["crop_size"] = dict(height=target[0], width=target[1])
        elif name == "ConvNext":
            config["size"] = dict(shortest_edge=target[0])
        elif maybe(0.9):
            config["size"] = dict(height=target[0], width=target[1])
            config.pop("do_resize", None)
    if isinstance(config.get("image_mean"), list) and len(config["image_mean"]) == 1:
        config["image_mean"], config["image_std"] = 0.5, 0.25
    return target, config


def hf_reference(config, image):
    name = next(config[key] for key in ("image_processor_type", "feature_extractor_type") if key in config)
    name = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    # torchvision has no box and hamming for tensors: then Pillow's backend is the reference.
    cls = getattr(transformers, name + ("Pil" if config.get("resample") in (4, 5) and config.get("do_resize") is not False else ""))
    given = {k: v for k, v in config.items() if k not in ("image_processor_type", "feature_extractor_type")}
    processor = cls.from_dict(given)
    out = processor(image, return_tensors="pt")["pixel_values"].float()
    std = torch.tensor(processor.image_std if processor.do_normalize else 1.0, dtype=torch.float32).reshape(-1, 1, 1)
    if name.startswith("EfficientNet") and processor.include_top:
        std = std * torch.tensor(processor.image_std, dtype=torch.float32).reshape(-1, 1, 1)
    return out, std / (processor.rescale_factor if processor.do_rescale else 1.0)


def timm_case():
    target = draw.choice([(32, 32), (32, 32), (24, 24), (24, 40), (40, 24)])
    config = {"input_size": [3, *target]}
    for key, chance, values in [
        ("crop_mode", 0.7, ["center", "squash", "border"]), ("crop_pct", 0.8, [0.7, 0.875, 0.9, 0.95, 1.0, 1.1, 1.25, None]),
        ("interpolation", 0.8, ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]),
        ("mean", 0.7, [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], None]),
        ("std", 0.7, [[0.229, 0.224, 0.225], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0], None]),
        ("fixed_input_size", 0.5, [True, False]), ("test_input_size", 0.2, [[3, 48, 48]]), ("test_crop_pct", 0.2, [1.0]),
    ]:
        if draw.random() < chance:
            config[key] = draw.choice(values)
    return target, config


def timm_reference(config, image):
    data = timm.data.resolve_data_config({}, pretrained_cfg=config)
    out = timm.data.create_transform(**data, is_training=False)(image)[None]
    return out, torch.tensor(data["std"]).reshape(-1, 1, 1) * 255


def model(folder, target, timm_cfg):
    width, patches = 8, (target[0] // 8) * (target[1] // 8)
    common = dict(model_type="vit", hidden_size=width, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, patch_size=8,
                  image_size=list(target), hidden_act="gelu", layer_norm_eps=1e-12, qkv_bias=True, num_channels=3)
    if timm_cfg is not None:
        common = dict(architecture="vit_tiny_patch16_224", num_classes=2, pretrained_cfg=timm_cfg,
                      model_args=dict(img_size=list(target), patch_size=8, embed_dim=8, depth=1, num_heads=1, mlp_ratio=1))
    json.dump(common, open(os.path.join(folder, "config.json"), "w"))
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, patches + 1, width), "patch_embed.proj.weight": (width, 3, 8, 8), "norm.weight": (width,), "head.weight": (2, width)}
    b = "blocks.0."
    shapes |= {b + "norm1.weight": (width,), b + "norm2.weight": (width,), b + "attn.qkv.weight": (3 * width, width), b + "attn.proj.weight": (width, width), b + "mlp.fc1.weight": (8, width), b + "mlp.fc2.weight": (width, 8)}
    shapes |= {k.replace("weight", "bias"): (v[0],) for k, v in shapes.items() if k.endswith("weight")}
    save_file({k: torch.randn(v) * 0.1 for k, v in shapes.items()}, os.path.join(folder, "model.safetensors"))


def main():
    print("library,result,steps,picture,model,configuration,detail")
    seen = {}
    for number in range(count):
        timm_turn = number % 4 == 0
        target, config = timm_case() if timm_turn else hf_case()
        shape = draw.choice(SHAPES)
        image = picture(*shape)
        with tempfile.TemporaryDirectory() as folder:
            at = lambda name: os.path.join(folder, name)
            image.save(at("p.png"))
            model(folder, target, config if timm_turn else None)
            if not timm_turn:
                json.dump(config, open(at("preprocessor_config.json"), "w"))
            try:
                reference, unit = (timm_reference if timm_turn else hf_reference)(config, image)
                failed = None
            except Exception as error:  # noqa: BLE001
                failed = str(error).split("\n")[0]
            done = subprocess.run([igq, "run", "--no-cache", "--model", folder, "--image", at("p.png"), "--method", "float", "--dump",
                                   at("d.safetensors"), "--format", "json", "--output", at("r.json")], capture_output=True, text=True)
            steps, said = "", (done.stderr.strip().splitlines() or [""])[-1].replace(folder, "")
            if done.returncode not in (0, 1) or "panicked" in done.stderr:
                result = "broken"
            elif done.returncode == 1:
                usable = failed is None and list(reference.shape[2:]) == list(target)
                result = "refused" if usable else "both refuse"
            elif failed is not None:
                result, said = "no reference", failed
            else:
                mine = load_file(at("d.safetensors"))["input"]
                if mine.shape != reference.shape:
                    result, said = "other shape", f"{list(mine.shape)} for {list(reference.shape)}"
                else:
                    steps = f"{((mine - reference).abs() * unit).max().item():.2f}"
                    result, said = ("equal" if float(steps) <= 3 else "different"), ""
        seen[result] = seen.get(result, 0) + 1
        quote = lambda text: '"' + text.replace('"', "'").replace("\n", " ")[:200] + '"'
        text = json.dumps(config, separators=(",", ":"))
        print(f"{'timm' if timm_turn else 'transformers'},{result},{steps},{shape[1]}x{shape[0]},{target[1]}x{target[0]},\"{text.replace(chr(34), chr(39))}\",{quote(said)}", flush=True)
    print(seen, file=sys.stderr)


main()
