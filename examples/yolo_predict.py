"""Boxes of an Ultralytics YOLO as COCO results, for `command:...` (docs/robustness.md); run with what it names.

`python examples/yolo_predict.py WEIGHTS IMAGES ANNOTATIONS RESULTS`. Ultralytics is not installed with CytoSynth, nor
tested here; its licence is AGPL-3.0.
"""

import json
import sys
from pathlib import Path


def main(weights: str, images: str, annotations: str, results: str) -> None:
    """Write what the YOLO of `weights` finds on the images that the COCO file `annotations` lists to `results`."""
    from ultralytics import YOLO

    content = json.loads(Path(annotations).read_text())
    category = {entry["name"]: entry["id"] for entry in content["categories"]}
    model, found = YOLO(weights), []
    for image in content["images"]:
        for box in model.predict(f"{images}/{image['file_name']}", conf=0.05, verbose=False)[0].boxes:
            name = model.names[int(box.cls)]
            if name not in category:
                continue
            x0, y0, x1, y1 = box.xyxy[0].tolist()
            found.append(
                {
                    "image_id": image["id"], "category_id": category[name], "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(box.conf),
                }
            )  # fmt: skip
    Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
