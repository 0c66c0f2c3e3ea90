"""Low-rank models in torch's own ways to ship one, equal to the eager model."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from cuttlefish import compress, factorize
from tests.helpers.little_networks import IMAGES, network


@pytest.fixture
def model():
    return factorize(network(), {"3": 5, "6": 7, "11": 2}).eval()


def scripted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so
        return torch.jit.script(model)


def traced(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, IMAGES)


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "export": lambda model: torch.export.export(model, (IMAGES,)).module(),
    "script": scripted,
    "trace": traced,
    "compile": lambda model: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("way", WAYS)
def test_shipped_models_compute_the_same(model, way):
    torch.testing.assert_close(WAYS[way](model)(IMAGES), model(IMAGES), atol=1e-6, rtol=1e-5)


def test_export_takes_any_batch_size(model):
    dynamic = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: dynamic},)).module()
    torch.testing.assert_close(program(IMAGES[:3]), model(IMAGES[:3]), atol=1e-6, rtol=1e-5)


def test_onnxruntime_computes_the_same(model, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"ONNX needs {package}")
    import onnxruntime

    path = str(tmp_path / "small.onnx")
    dynamic = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(model, (IMAGES,), path, dynamo=True, dynamic_shapes=({0: dynamic},), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for images in (IMAGES, IMAGES[:3]):
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(images), atol=1e-5, rtol=1e-4)


def test_dynamic_int8_of_the_factors():
    torch.manual_seed(0)
    model = factorize(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)), {"0": 8, "2": 4}).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    x = torch.randn(16, 32)
    assert torch.dist(small(x), model(x)) < 0.03 * model(x).norm()
    assert "quantized" in type(small[0].first).__module__


def test_what_nuclear_norm_pruning_leaves_dense_is_made_small():
    """Soft-thresholded singular values, as such optimizers leave them: the rank is there, the size is not."""
    model = network().eval()
    with torch.no_grad():
        for name in ("3", "6"):
            weight = model.get_submodule(name).weight
            U, S, Vt = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            weight.copy_(((U * (S - S[4]).clamp_min(0)) @ Vt).view_as(weight))
    before = model(IMAGES)
    report = compress(model, energy=1 - 1e-9, dense=["0", "11"])
    assert report.ranks == {"3": 4, "6": 4} and report.parameters_after < report.parameters_before / 2
    torch.testing.assert_close(model(IMAGES), before, atol=1e-5, rtol=1e-4)
