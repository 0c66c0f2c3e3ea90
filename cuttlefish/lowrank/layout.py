"""channels_last everywhere, but for the convolutions that oneDNN breaks in it.

On a CPU with AVX2 and no AVX-512, one thread, oneDNN's backward pass of a strided 1×1 convolution of fewer
than eight channels writes behind its buffer when input or weight lies in channels_last (torch 2.14: the
process dies with a corrupted heap, now or later). Such a layer computes in the plain layout, on every CPU,
lest results depend on the machine.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VECTOR = 8
"""float32 numbers in an AVX2 register: with so many input channels, nothing is written behind the buffer."""
EXPORT_IS_TOLD = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)
"""Whether is_exporting() is False under torch.compile: before, torch.export(strict=True) is refused."""


class PlainConv2d(nn.Conv2d):
    """An nn.Conv2d that on a CPU computes in the plain layout, whatever that of its input and weight.

    torch.compile leaves it out of its graphs (with fullgraph=True it refuses); torch.export takes it in.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type == "cpu":
            if not torch.jit.is_scripting():  # of two nested conditions, torch.jit.script skips the second
                if torch.compiler.is_compiling() and not (EXPORT_IS_TOLD and torch.compiler.is_exporting()):
                    return self._convolve_outside(input, weight, bias)
            input, weight = _plain(input), _plain(weight)
        # From here on what super() does, in words that torch.jit.script understands.
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            return F.conv2d(input, weight, bias, self.stride, 0, self.dilation, self.groups)
        return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    @torch._disable_dynamo  # torch.compiler.disable would import dynamo, for 1.7 s
    def _convolve_outside(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(_plain(input), _plain(weight), bias)


def to_channels_last(module: nn.Module) -> nn.Module:
    """Lay out all 4-D parameters in channels_last, in place; layers that must not compute in it do not."""
    return keep_plain(module.to(memory_format=torch.channels_last))


def keep_plain(module: nn.Module) -> nn.Module:
    """Make every convolution that oneDNN breaks a `PlainConv2d`, in place, with the same state-dict keys."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and is_broken(layer):
            layer.__class__ = PlainConv2d
    return module


def is_broken(conv: nn.Conv2d) -> bool:
    """Return whether oneDNN's backward pass of this convolution damages memory in channels_last."""
    return conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.in_channels // conv.groups < VECTOR


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor itself if torch can take it for nothing but the plain layout, else a copy.

    One channel or one pixel is contiguous in both layouts.
    """
    certain = tensor.is_contiguous() and not tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor if certain else tensor.clone(memory_format=torch.contiguous_format)
