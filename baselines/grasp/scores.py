"""Mathematics of GraSP: drawing samples, the Hessian-gradient product, the scores, and the masks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.masks import prunable

Chunk = tuple[Tensor, Tensor]
"""images (B, …) and labels (B,) whose mean loss is one term of the differentiated sum."""


def hessian_gradient(losses: Callable[[], Iterable[Tensor]], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return H·g of the sum of `losses()`: g its gradient by `weights` (held constant) and H its Hessian.

    Args:
        losses: Called twice, must return the same scalars; consumed one by one, so one graph is alive at a
            time.
    """
    weights = list(weights)
    gradient, product = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for loss in losses():
        torch._foreach_add_(gradient, torch.autograd.grad(loss, weights, materialize_grads=True))
    for loss in losses():
        slope = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        along = sum((fixed * free).sum() for fixed, free in zip(gradient, slope, strict=True))
        torch._foreach_add_(product, torch.autograd.grad(along, weights, materialize_grads=True))
    return product


def scores(
    model: nn.Module, parts: Callable[[], Iterable[Chunk]], *, temperature: float = 200.0
) -> dict[str, Tensor]:
    """Return -θ·(H·g) of every conv and linear weight: how much less the loss would fall without it.

    High scores are pruned. The loss of a part is its mean cross-entropy of logits / T; the parts are added.

    Args:
        model: A copy in train mode (batch statistics), because its buffers change.
        parts: Called twice, must return the same parts.
    """
    weights = prunable(model)

    def losses() -> Iterator[Tensor]:
        for number, (images, labels) in enumerate(parts()):
            torch.manual_seed(number)  # dropout must be the same in both passes
            yield F.cross_entropy(model(images) / temperature, labels)

    for weight in weights.values():
        weight.requires_grad_(True)
    with scoring_numerics(next(iter(weights.values())).device), torch.enable_grad():
        product = hessian_gradient(losses, list(weights.values()))
    return {
        name: -weight.detach() * along for (name, weight), along in zip(weights.items(), product, strict=True)
    }


@contextmanager
def scoring_numerics(device: torch.device) -> Iterator[None]:
    """Compute without TF32 and with attention that has second derivatives; restore the random state."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    earlier = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = earlier


def choose_masks(found: Mapping[str, Tensor], removed: int, mode: str = "exact_k") -> dict[str, Tensor]:
    """Return name → True where a score is among the lowest N - removed of all, chosen on the CPU.

    Args:
        mode: exact_k removes exactly `removed`, the later ones of ties. original keeps the threshold itself,
            the removed-th highest.
    """
    flat = torch.cat([score.detach().flatten().cpu() for score in found.values()])
    if not flat.isfinite().all():
        raise CuttlefishError(
            "grasp's scores are not all finite, so they give no order: the initial weights or data are broken"
        )
    gone = torch.zeros_like(flat, dtype=torch.bool)
    if removed > 0:
        threshold = flat.kthvalue(len(flat) - removed + 1).values
        gone = flat > threshold
        if mode == "exact_k":
            equal = (flat == threshold).nonzero().flatten()
            gone[equal[len(equal) - (removed - int(gone.sum())) :]] = True
    pieces = (~gone).split([score.numel() for score in found.values()])
    return {name: piece.view(score.shape) for (name, score), piece in zip(found.items(), pieces, strict=True)}


def removals(ratio: float, total: int, mode: str = "exact_k") -> int:
    """Return how many weights a ratio removes; `original` truncates its floats: a third of three may be 0."""
    return round(ratio * total) if mode == "exact_k" else int(total * (1 - (1 - ratio)))


class Samples:
    """A stream of batches that a draw can leave within a batch, so that the batch size does not matter."""

    def __init__(self, batches: Iterable[Chunk]):
        self.batches, self.rest = iter(batches), None

    def next(self) -> Chunk:
        batch, self.rest = self.rest or next(self.batches), None
        return batch

    def leave(self, batch: Chunk, used: int) -> None:
        """Return all but the first `used` samples of the last batch to the stream."""
        if used < len(batch[1]):
            self.rest = batch[0][used:], batch[1][used:]


def check_enough(images_of_class: Sequence[int], per_class: int) -> None:
    """Raise CuttlefishError if a draw would contain an image twice, since the stream repeats every epoch."""
    scarce = min(range(len(images_of_class)), key=images_of_class.__getitem__)
    if images_of_class[scarce] < per_class:
        raise CuttlefishError(
            f"grasp draws samples_per_class={per_class} images of every class, but the training set has only "
            f"{images_of_class[scarce]} of class {scarce}: lower samples_per_class, or set images_per_iter "
            "to draw without classes"
        )


def check_enough_of_any(images: int, per_draw: int, draws: int) -> None:
    """Raise CuttlefishError if successive draws would run into the stream's next epoch."""
    if images < per_draw * draws:
        raise CuttlefishError(
            f"grasp draws images_per_iter={per_draw} images num_iters={draws} times, but the training set "
            f"has only {images:,}: lower one of them"
        )


def draw_per_class(samples: Samples, classes: int, per_class: int) -> Chunk:
    """Return the first `per_class` samples of each class in the stream, sorted by class.

    Raises:
        CuttlefishError: A class has too few samples within some 20 times the number needed.
    """
    images, labels = [], []
    counts = torch.zeros(classes, dtype=torch.int64)
    seen, limit = 0, 20 * classes * per_class + 2000
    while counts.min() < per_class:
        if seen >= limit:
            scarce = int(counts.argmin())
            raise CuttlefishError(
                f"grasp needs samples_per_class={per_class} of each of the {classes} classes, but {seen:,} "
                f"training images held only {int(counts[scarce])} of class {scarce}: lower "
                "samples_per_class, or set images_per_iter to draw without classes"
            )
        batch, given = samples.next()
        hits = F.one_hot(given, classes)
        # The index of each sample within its class, over all batches so far.
        position = (hits.cumsum(0) - 1 + counts.to(hits.device)).gather(1, given[:, None])[:, 0]
        wanted = (position < per_class).nonzero()[:, 0]
        images.append(batch[wanted])
        labels.append(given[wanted])
        counts += hits.sum(0).cpu()
        seen += len(given)
        if counts.min() >= per_class:
            samples.leave((batch, given), int(wanted[-1]) + 1)
    order = torch.cat(labels).argsort(stable=True)
    return torch.cat(images)[order], torch.cat(labels)[order]


def draw_any(samples: Samples, number: int) -> Chunk:
    """Return the next `number` samples of the stream, of any class."""
    images, labels, have = [], [], 0
    while have < number:
        batch, given = samples.next()
        used = min(number - have, len(given))
        images.append(batch[:used])
        labels.append(given[:used])
        samples.leave((batch, given), used)
        have += used
    return torch.cat(images), torch.cat(labels)


def split_parts(drawn: Chunk, chunk_size: int | None = None, shuffle: int | None = None) -> list[Chunk]:
    """Return two halves, or chunks of `chunk_size`; the last may be smaller but has the same weight.

    Args:
        shuffle: Seed of a preceding permutation.
    """
    images, labels = drawn
    if shuffle is not None:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(shuffle)).to(
            labels.device
        )
        images, labels = images[order], labels[order]
    if chunk_size is None:
        pieces = zip(images.tensor_split(2), labels.tensor_split(2), strict=True)
    else:
        pieces = zip(images.split(chunk_size), labels.split(chunk_size), strict=True)
    return [(part, given) for part, given in pieces if len(given)]


@torch.no_grad()
def lets_signal_through(model: nn.Module, images: Tensor) -> bool:
    """Return whether the logits of a copy in train mode depend on the input: empty layers can cut it."""
    with scoring_numerics(images.device):
        logits = model(images)
    spread = (logits - logits[:1]).abs().max()
    return bool(spread > 1e-6 * logits.abs().max())
