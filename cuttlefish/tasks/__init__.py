"""Tasks: what a model is trained on. The engine sees them through `base.Task` only.

`registry`, `files`, `image_set` and the modules of `sets` need no torch.
"""
