"""The fields of a plausible finished run, which tests lay their own over."""

from typing import Any

STARTED: dict[str, Any] = dict(
    run_key="0123456789ab", model="resnet18", data="cifar10", method="cuttlefish", recipe="reduced",
    preset="default", seed=0, epochs=30, scale="reduced", device="a CPU, 2 cores", precision="fp32", threads=2,
    world_size=1, packages={"torch": "2"}, data_digest="d", command="python run.py",
    started="2026-01-01T00:00:00+00:00",
)  # fmt: skip
"""What is known before the first epoch."""
FINISHED: dict[str, Any] = STARTED | dict(
    epochs_trained=30, phases=[{"name": "train", "epochs": 30}], accuracy_final=76.0, accuracy_best=80.0,
    loss_final=0.7, params_full=1000, params_total=400, params_trainable=400, params_nonzero=400,
    params_stored_bits=12800, macs_full=1000, macs_final=500, compute_seconds=100.0, wall_seconds=120.0,
    seconds={"train": 95.0, "ranks": 0.5, "profiling": 2.0},
)  # fmt: skip
DENSE = dict.fromkeys(("params_total", "params_trainable", "params_nonzero"), FINISHED["params_full"])
"""The sizes of a run at full rank."""
SWITCHED: dict[str, Any] = dict(
    switch_epoch=10, switch_reason="settled", k=5, ranks={"layer2.0.conv1": 16, "layer3.0.conv1": 16}
)
"""What a low-rank run has besides."""
