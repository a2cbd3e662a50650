"""Predict the classes of image files in a separate process; run by its path.

`python predict_worker.py ENGINE FOLDER IMAGE_SIZE BATCH_SIZE` loads FOLDER's model. For
each line of standard input it predicts all images in FOLDER/files and prints the
numbers of their five best classes as JSON. The interpreter of the engine
"torch_dataloader" needs not have this package.
"""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import sys
from collections.abc import Callable

Pass = Callable[[], list[list[int]]]


def predict(folder: pathlib.Path, image_size: int, batch_size: int) -> Pass:
    """Return a pass of this package's predictions."""
    import keras

    from vit_scaling.export import prediction
    from vit_scaling.run_record import RunRecord

    model = keras.models.load_model(folder / "model.keras")
    record = RunRecord(
        tuple(map(str, range(1000))),
        (image_size, image_size),
        preprocess="resize",
        interpolation="bilinear",  # With anti-aliasing, as Pillow.
    )
    predictor = prediction.make_model_predictor(model, record, top_k=5)
    files = prediction.list_image_files([str(folder / "files")])

    def run() -> list[list[int]]:
        images = prediction.read_image_files(files)
        rows = prediction.predict(images, predictor, batch_size=batch_size)
        return [[int(name) for name in row.classes] for row in rows]

    return run


def torch_dataloader(folder: pathlib.Path, image_size: int, batch_size: int) -> Pass:
    """Return a pass of a DataLoader and timm's compiled model."""
    import numpy as np
    import torch
    from inference_worker import load_timm_model  # In this folder.
    from PIL import Image

    compiled = torch.compile(load_timm_model(folder / "timm.safetensors"))
    files = sorted((folder / "files").iterdir())

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> torch.Tensor:
            image = Image.open(files[index]).convert("RGB")
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            return pixels.float() / 127.5 - 1.0

    loader = torch.utils.data.DataLoader(
        Files(),
        batch_size,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
    )

    def run() -> list[list[int]]:
        best: list[list[int]] = []
        with torch.inference_mode():
            for images in loader:
                best += compiled(images).topk(5).indices.tolist()
        return best

    return run


ENGINES = {"predict": predict, "torch_dataloader": torch_dataloader}


def main(engine: str, folder: str, image_size: str, batch_size: str) -> None:
    """Serve lines of standard input until it ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # The engine's own output is no result.
    run = ENGINES[engine](pathlib.Path(folder), int(image_size), int(batch_size))
    for _ in sys.stdin:
        print(json.dumps(run()), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
