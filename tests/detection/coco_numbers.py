#!/usr/bin/env python3
"""Makes made_up.json: annotations, detections and the twelve numbers of pycocotools for them. python3 coco_numbers.py (needs pycocotools, numpy)"""

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

rng = np.random.default_rng(7)
images = [{"id": i + 1, "file_name": f"{i}.png", "width": 640, "height": 480} for i in range(12)]
annotations, found = [], []
for image in images:
    for _ in range(int(rng.integers(0, 7))):
        w, h = (float(v) for v in rng.uniform(8, 220, 2).round(2))
        x, y = round(rng.uniform(0, 640 - w), 2), round(rng.uniform(0, 480 - h), 2)
        k, crowd = int(rng.integers(1, 5)), int(rng.random() < 0.05)
        annotations.append({"id": len(annotations) + 1, "image_id": image["id"], "category_id": k, "bbox": [x, y, w, h], "area": round(w * h, 4), "iscrowd": crowd})
        for _ in range(int(rng.integers(0, 3))):
            dx, dy, dw, dh = rng.normal(0, 0.12, 4)
            box = [round(float(v), 2) for v in (x + dx * w, y + dy * h, max(4.0, w * (1 + dw)), max(4.0, h * (1 + dh)))]
            label = k if rng.random() < 0.85 else int(rng.integers(1, 5))
            found.append({"image_id": image["id"], "category_id": label, "bbox": box, "score": round(float(rng.uniform(0.05, 1)), 4)})
    for _ in range(int(rng.integers(0, 3))):
        box = [round(float(v), 2) for v in (*rng.uniform(0, 400, 2), *rng.uniform(8, 80, 2))]
        found.append({"image_id": image["id"], "category_id": int(rng.integers(1, 5)), "bbox": box, "score": round(float(rng.uniform(0.05, 0.8)), 4)})
truth = {"images": images, "annotations": annotations, "categories": [{"id": k, "name": f"kind {k}"} for k in range(1, 5)]}
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = json.loads(json.dumps(truth))
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
json.dump({"truth": truth, "found": found, "stats": evaluation.stats.tolist()}, open("made_up.json", "w"))
