"""Holds igq to timm, architecture by architecture: python tests/timm/sweep.py IGQ > tests/timm/results.csv

Every name of assets/timm-architectures.txt is built small with random weights (depth 2, 32 to 64 channels where the constructor takes it),
written as timm's hub push does, and verified by `igq verify`. A name passes within 1e-4, is refused by name, or is different, which
must not happen. Needs timm and torch; run by hand.
"""
import json
import logging
import os
import subprocess
import sys
import tempfile

import timm
import torch
from safetensors.torch import save_file

logging.disable(logging.WARNING)
torch.manual_seed(0)
igq = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
table = os.path.join(here, "../../assets/timm-architectures.txt")
golden = os.path.join(here, "../golden/timm_vit/model.safetensors")


def small(name, swin):
    """The model, and the arguments that config.json then says."""
    if swin:
        tries = [dict(img_size=64, patch_size=2, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4))]
    else:
        tries = [dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3), dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4)]
    for args in tries:
        try:
            return timm.create_model(name, pretrained=False, num_classes=7, **args).eval(), args
        except Exception as error:  # noqa: BLE001
            last = error
    raise last


def run(folder):
    done = subprocess.run([igq, "verify", folder, "--expected", os.path.join(folder, "expected.safetensors")], capture_output=True, text=True)
    text = (done.stderr + done.stdout).strip().splitlines()
    return done.returncode, [line for line in text if "note:" not in line][-1]


print("name,result,detail")
for line in open(table):
    if line.startswith("#"):
        continue
    name, _, _, _, flags = line.split()
    with tempfile.TemporaryDirectory() as folder:
        config = dict(architecture=name, num_classes=7, pretrained_cfg=dict(input_size=[3, 32, 32], mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic", crop_pct=0.9))
        weights = os.path.join(folder, "model.safetensors")
        try:
            if flags.startswith("refused"):
                os.symlink(golden, weights)
                torch_out = None
                save_file({"input": torch.zeros(1, 3, 32, 32), "logits": torch.zeros(1, 7)}, os.path.join(folder, "expected.safetensors"))
            else:
                model, args = small(name, name.startswith("swin"))
                for parameter in model.parameters():
                    if parameter.ndim < 2:
                        torch.nn.init.normal_(parameter, 0.5, 0.3)
                    else:
                        torch.nn.init.normal_(parameter, 0.0, 0.1)
                config["model_args"] = args
                if hasattr(model, "global_pool"):
                    config["global_pool"] = model.global_pool
                size = args["img_size"]
                config["pretrained_cfg"]["input_size"] = [3, size, size]
                x = torch.randn(2, 3, size, size)
                with torch.no_grad():
                    y = model(x)
                save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
                save_file({"input": x, "logits": y.contiguous()}, os.path.join(folder, "expected.safetensors"))
            json.dump(config, open(os.path.join(folder, "config.json"), "w"))
            code, said = run(folder)
            if code == 0:
                result = "passes"
            elif name in said or "which igq does not compute" in said or "act_layer" in said:
                result = "refused"
            else:
                result = "different" if "differ" in said else "error"
            detail = said.split("largest difference ")[-1].split(" ")[0] if code == 0 else said.replace(folder, "").replace(",", ";")[:160]
        except Exception as error:  # noqa: BLE001
            result, detail = "not built", str(error).replace(",", ";").replace("\n", " ")[:120]
    print(f"{name},{result},{detail}", flush=True)
