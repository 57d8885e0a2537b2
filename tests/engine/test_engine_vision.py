import numpy as np
import torch


def test_build(vision_folder):
    from transformers import AutoModel

    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.description import describe
    from embrief.engine.vision import VisionTower
    from embrief.files.json_files import read_object
    from embrief.images.patches import patches

    model = describe(read_object(vision_folder / "config.json"))
    rng = np.random.default_rng(0)
    pics = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((64, 64), (32, 96), (224, 160), (64, 64), (800, 640), (96, 32))]
    theirs = AutoModel.from_pretrained(vision_folder, dtype=torch.float32).eval().visual
    with torch.inference_mode():
        rows = torch.from_numpy(np.concatenate([patches(p, patch=16, merge=2, mean=[0.5] * 3, std=[0.5] * 3) for p in pics]))
        grid = torch.tensor([[1, p.shape[0] // 16, p.shape[1] // 16] for p in pics])
        out = theirs(rows, grid_thw=grid)
        for dtype in (torch.float32, torch.bfloat16):
            tower = VisionTower(model.vision, Checkpoint(vision_folder, "x"), "cpu", dtype, mean=(0.5,) * 3, std=(0.5,) * 3)
            found = tower.run(pics)
            mine = torch.cat([f.tokens for f in found]).float()
            print(mine.shape, out.pooler_output.shape, (mine - out.pooler_output).abs().max(), out.pooler_output.abs().max())
            for i in range(2):
                mine = torch.cat([f.added[i] for f in found]).float()
                print((mine - out.deepstack_features[i]).abs().max(), out.deepstack_features[i].abs().max())
