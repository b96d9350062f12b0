"""Writes processors.json and processors.safetensors: what transformers and timm make of colour.png for a configuration of every form.

    python tests/preprocess/golden.py      (needs transformers, timm and torch; run by hand)
"""
import json
import os
import warnings

import timm.data
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
here = os.path.dirname(os.path.abspath(__file__))
image = Image.open(os.path.join(here, "colour.png")).convert("RGB")
square, edge = {"height": 24, "width": 24}, {"shortest_edge": 27}
plain = [dict(image_processor_type=name + "ImageProcessor", size=square) for name in ("ViT", "Siglip", "Beit", "Pvt", "Blip", "DINOv3ViT", "EfficientNet")]
cutting = [dict(feature_extractor_type=name + "FeatureExtractor", size=edge, crop_size=24) for name in ("DeiT", "Bit", "CLIP", "ChineseCLIP", "Levit", "PoolFormer", "MobileNetV1")]
vit, clip = dict(image_processor_type="ViTImageProcessorFast", size=24), dict(image_processor_type="CLIPImageProcessor", crop_size=24)
cases = plain + cutting + [
    dict(image_processor_type="ConvNextImageProcessor", size={"shortest_edge": 24}), dict(image_processor_type="ConvNextImageProcessor", size=24, crop_pct=0.8),
    dict(vit, do_normalize=False), dict(vit, do_rescale=False), dict(vit, do_normalize=False, rescale_factor=1 / 127.5), dict(vit, image_mean=0.4, image_std=0.2),
    dict(clip, size={"shortest_edge": 20}), dict(clip, size={"shortest_edge": 30, "longest_edge": 36}), dict(clip, size={"max_height": 30, "max_width": 40}),
    dict(clip, size=27, resample=0), dict(clip, size=27, resample=1), dict(clip, size=27, resample=2), dict(clip, do_resize=False),
    dict(image_processor_type="EfficientNetImageProcessor", size=24, include_top=False), dict(image_processor_type="EfficientNetImageProcessor", size=24, rescale_offset=True, rescale_factor=1 / 127.5),
    dict(image_processor_type="EfficientNetImageProcessor", size=24, do_normalize=False),
]
timms = [dict(crop_mode=mode, crop_pct=pct) for mode in ("center", "squash", "border") for pct in (0.875, 1.0, 1.1)]
timms += [dict(interpolation=name, mean=[0.5] * 3, std=[0.5] * 3) for name in ("nearest", "bilinear", "box", "hamming", "lanczos")] + [dict(test_crop_pct=1.0), dict(input_size=[3, 16, 24])]
listed, tensors = [], {}
for number, config in enumerate(cases + timms):
    if number < len(cases):
        key = "image_processor_type" if "image_processor_type" in config else "feature_extractor_type"
        name = config[key].replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
        out = getattr(transformers, name).from_dict({k: v for k, v in config.items() if k != key})(image, return_tensors="pt")["pixel_values"][0]
    else:
        config = dict(input_size=[3, 24, 24]) | config
        out = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config), is_training=False)(image)
    listed.append(dict(timm=number >= len(cases), size=list(out.shape[1:]), config=config))
    tensors[str(number)] = out.float().contiguous()
json.dump(listed, open(os.path.join(here, "processors.json"), "w"), indent=0)
save_file(tensors, os.path.join(here, "processors.safetensors"))
print(len(listed), "cases", image.size)
