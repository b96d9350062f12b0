"""Reads from timm what config.json does not say of an architecture: python tests/timm/table.py > assets/timm-architectures.txt

Needs timm and torch; run by hand when timm has new architectures.
"""
import fnmatch
import logging
import sys

import timm
import torch

logging.disable(logging.WARNING)
FAMILIES = ["vit_*", "deit*", "flexivit*", "eva*", "beit*", "swin_*", "swinv2*", "samvit*", "vitamin*", "naflex*", "hiera*", "cait*",
            "xcit*", "volo*", "mvitv2*", "aimv2*", "tnt*", "twins*", "pit_*", "pvt*", "levit*", "crossvit*", "convit*", "visformer*",
            "davit*", "gcvit*", "maxvit*", "maxxvit*", "coat*", "nest*", "efficientvit*", "test_vit*", "dino*", "regnet_never*"]


def activation(module):
    name = type(module).__name__
    tanh = getattr(module, "approximate", "none") == "tanh"
    if name == "GELUTanh" or (name == "GELU" and tanh):
        return "gelu-tanh"
    return {"GELU": "gelu", "QuickGELU": "quick-gelu"}.get(name)


def row(name):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    kind = type(model).__name__
    if kind == "SwinTransformer":
        block = model.layers[0].blocks[0]
        act = activation(block.mlp.act)
        return (0, block.norm1.eps, act, "-") if act else (0, 0, "-", "refused:another_activation")
    own = {
        "Eva": "rotary or relative position embeddings (EVA)",
        "SwinTransformerV2": "the cosine attention of Swin V2",
        "SwinTransformerV2Cr": "the cosine attention of Swin V2",
        "Beit": "relative position biases (BEiT)",
        "VisionTransformerRelPos": "relative position biases",
    }
    if kind in own:
        return 0, 0, "-", "refused:" + own[kind].replace(" ", "_")
    if kind not in ("VisionTransformer", "VisionTransformerDistilled"):
        return 0, 0, "-", f"refused:blocks_of_its_own_({kind})"
    block = model.blocks[0]
    shape = type(block).__name__
    why = None
    flags = []
    if shape == "ResPostBlock":
        flags.append("residual-post-norm")
    elif shape != "Block":
        why = {"ParallelScalingBlock": "parallel blocks", "ParallelThingsBlock": "parallel blocks", "DiffParallelScalingBlock": "parallel blocks"}.get(shape, f"blocks of its own ({shape})")
    attn = block.attn if hasattr(block, "attn") else None
    if why is None and type(attn).__name__ != "Attention":
        why = f"an attention of its own ({type(attn).__name__})"
    if why is None and (not isinstance(attn.q_norm, torch.nn.Identity) or not isinstance(getattr(attn, "norm", torch.nn.Identity()), torch.nn.Identity)):
        why = "norms inside the attention"
    if why is None and getattr(model, "attn_pool", None) is not None:
        why = "attention pooling"
    if why is None and getattr(model, "rope", None) is not None:
        why = "rotary position embeddings"
    if why is None and (model.pos_embed is None or getattr(model, "shared_rel_pos_bias", None) is not None):
        why = "no absolute position embeddings"
    if why is None and type(model.patch_embed).__name__ != "PatchEmbed":
        why = f"a patch embedding of its own ({type(model.patch_embed).__name__})"
    if why is None and type(model.patch_embed.proj).__name__ != "Conv2d":
        why = "a hybrid patch embedding"
    if why is None and type(block.norm1).__name__ not in ("LayerNorm", "LayerNormFp32"):
        why = f"norms of its own ({type(block.norm1).__name__})"
    if why is None and model.global_pool not in ("token", "avg"):
        why = f"the pooling {model.global_pool}"
    if why is None and not getattr(model, "pool_include_prefix", False) is False:
        why = "pooling with prefix tokens"
    mlp = getattr(block, "mlp", None)
    act = None
    if why is None:
        kind = type(mlp).__name__
        if kind == "Mlp":
            act = activation(mlp.act)
        elif kind == "GluMlp" and type(mlp.act).__name__ == "SiLU" and not mlp.gate_last and isinstance(mlp.norm, torch.nn.Identity):
            act = "swiglu"
        elif kind == "SwiGLU" and isinstance(mlp.norm, torch.nn.Identity):
            act = "swiglu"
        if act is None:
            why = f"an MLP of its own ({kind}, {type(getattr(mlp, 'act', None)).__name__})"
        elif not isinstance(getattr(mlp, "norm", torch.nn.Identity()), torch.nn.Identity):
            why = "a norm inside the MLP"
    if why:
        return 0, 0, "-", "refused:" + why.replace(" ", "_")
    if "siglip" in name and act == "gelu":
        flags.append("activation-unsure")
    if isinstance(model.norm, torch.nn.Identity) and isinstance(model.fc_norm, torch.nn.Identity):
        flags.append("no-final-norm")
    if model.no_embed_class and model.num_prefix_tokens:
        flags.append("no-embed-class")
    if model.global_pool == "avg" and model.has_class_token:
        flags.append("avg")
    eps = {m.eps for m in model.modules() if type(m).__name__ in ("LayerNorm", "LayerNormFp32")}
    if len(eps) != 1:
        return 0, 0, "-", "refused:norms_with_several_epsilons"
    return attn.num_heads, eps.pop(), act, ",".join(flags) or "-"


print(f"# timm {timm.__version__}: name, heads, epsilon, activation, flags. Made by tests/timm/table.py.")
for name in timm.list_models():
    if not any(fnmatch.fnmatch(name, family) for family in FAMILIES):
        continue
    try:
        heads, eps, act, flags = row(name)
    except Exception as error:  # noqa: BLE001
        print(f"{name}: {error}", file=sys.stderr)
        continue
    print(name, heads, f"{eps:g}", act, flags)
