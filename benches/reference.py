"""ONNX Runtime's and PyTorch's side of `cargo bench --bench speed`: runs a model whenever a line comes, and prints the milliseconds it took.

    python benches/reference.py export NAME FILE.onnx    # a timm architecture with random weights; needs timm and torch
    python benches/reference.py FILE.onnx [THREADS]      # needs onnxruntime
    python benches/reference.py torch NAME [THREADS]     # the same architecture in PyTorch; needs timm and torch
"""
import sys
import time

if sys.argv[1] == "export":
    import timm
    import torch

    model = timm.create_model(sys.argv[2], pretrained=False).eval()
    x = torch.randn(1, *model.pretrained_cfg["input_size"])
    torch.onnx.export(model, (x,), sys.argv[3], input_names=["x"], output_names=["y"], dynamo=False)
elif sys.argv[1] == "torch":
    import timm
    import torch

    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    model = timm.create_model(sys.argv[2], pretrained=False).eval()
    x = torch.randn(1, *model.pretrained_cfg["input_size"])
    with torch.inference_mode():
        for _ in range(3):
            model(x)
        print("ready", flush=True)
        for _ in sys.stdin:
            started = time.perf_counter()
            model(x)
            print(1000 * (time.perf_counter() - started), flush=True)
else:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    x = np.random.default_rng(0).standard_normal(entry.shape, dtype=np.float32)
    for _ in range(3):
        session.run(None, {entry.name: x})
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        session.run(None, {entry.name: x})
        print(1000 * (time.perf_counter() - started), flush=True)
