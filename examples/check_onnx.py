"""Runs what `igq export --to FOLDER` wrote with ONNX Runtime and compares its logits with igq's: needs onnxruntime, numpy and safetensors.

    igq export --to out && python examples/check_onnx.py out
"""
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

folder = Path(sys.argv[1])
reference = load_file(folder / "reference.safetensors")
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
largest, same, medians = 0.0, 0, []
for pixels, expected in zip(reference["pixels"], reference["logits"]):
    (logits,) = session.run(None, {"pixels": pixels[None]})
    largest = max(largest, float(np.abs(logits[0] - expected).max()))
    medians.append(float(np.median(np.abs(logits[0] - expected))))
    same += int(logits[0].argmax() == expected.argmax())
count, spread = len(reference["logits"]), float(reference["logits"].std())
# A value on the edge between two codes may fall to either side where sums are rounded in another order: at few bits single logits move.
print(f"{count} images: largest difference of a logit {largest:.2e}, median {np.median(medians):.2e} (their standard deviation is {spread:.2f}), same top-1 for {same}")
sys.exit(0 if same >= 0.75 * count and largest < spread else 1)
