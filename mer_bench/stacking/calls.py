"""Functions of PyTorch that a stacked pass can't leave to `vmap`: those that draw, attention, PyTorch's recurrences.

A function that draws is called once for each seed, with that seed's own random numbers: every mask and every noise is
the one of the seed trained alone. What draws in place has no such form, and is refused by name. So is PyTorch's own
GRU or LSTM called once for each seed, which is right and saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from mer_bench.errors import NotStackableError
from mer_bench.nn.seeds import each_seed, folded

_DRAWING = frozenset(
    {
        *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like),
        *(torch.randint_like, torch.normal, torch.bernoulli, torch.multinomial, torch.poisson, torch.binomial),
        *(torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout, torch.rrelu),
        *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
        *(F.gumbel_softmax, F.rrelu, Tensor.bernoulli, Tensor.multinomial),
        # They may drop between layers, and PyTorch has no rule of `vmap` for them.
        *(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    }
)
_DRAWING_IN_PLACE = frozenset(
    {
        *(Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_, Tensor.log_normal_),
        *(Tensor.normal_, Tensor.random_, Tensor.uniform_, torch.dropout_, torch.alpha_dropout_),
        *(torch.feature_dropout_, torch.feature_alpha_dropout_, torch.rrelu_),
    }
)
_IDLE_OUTSIDE_TRAINING = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.rrelu})


class StackedCalls(TorchFunctionMode):
    """While it is entered, in a pass under `vmap`, functions that draw do so for each seed apart."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _WITHOUT_RULE:
            return _WITHOUT_RULE[func](*args, **given)
        if func in _DRAWING and not (func in _IDLE_OUTSIDE_TRAINING and _is_idle(args, given)):
            return _one_by_one(func, args, given)
        if func in _DRAWING_IN_PLACE:
            raise NotStackableError(f"it draws random numbers in place (Tensor.{func.__name__})")
        return func(*args, **given)


def _is_idle(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    """Whether a dropout drops nothing: outside training, or with rate 0."""
    training = given.get("training", args[2] if len(args) > 2 else True)
    rate = given.get("p", args[1] if len(args) > 1 else 0.5)
    return not training or rate == 0


def _one_by_one(function: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
    """A call for each seed; tensors among the arguments, lists of them included, are the seed's own.

    Args:
        function: Returns a tensor or a tuple of tensors.
    """
    leaves, form = tree_flatten((args, dict(given)))
    places = [place for place, value in enumerate(leaves) if isinstance(value, Tensor)]
    shapes: list[torch.Size] = []

    def call(*tensors: Tensor | None) -> Tensor:
        own = dict(zip(places, tensors, strict=True))
        positional, named = tree_unflatten([own.get(place, leaf) for place, leaf in enumerate(leaves)], form)
        result = function(*positional, **named)
        if isinstance(result, Tensor):
            return result
        shapes[:] = [each.shape for each in result]
        return torch.cat([each.flatten() for each in result])

    result = each_seed(call, *(leaves[place] for place in places))
    if not shapes:
        return result
    pieces = result.split([shape.numel() for shape in shapes])
    return tuple(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` with the seeds as further dialogues, or one seed at a time where it drops."""

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(
            *(query, key, value), mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    if attn_mask is not None:
        while attn_mask.ndim < query.ndim:
            attn_mask = attn_mask.unsqueeze(0)
    if dropout_p:
        return each_seed(run, query, key, value, attn_mask)
    if attn_mask is not None and attn_mask.shape[0] != query.shape[0]:
        attn_mask = attn_mask.expand(query.shape[0], *attn_mask.shape[1:])
    return folded(run, query, key, value, attn_mask)


def _lstm_cell(
    values: Tensor,
    state: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`torch.nn.LSTMCell` in plain operators: PyTorch has no rule of `vmap` for its own."""
    before, memory = state
    gates = F.linear(values, weight_ih, bias_ih) + F.linear(before, weight_hh, bias_hh)
    enter, forget, cell, leave = gates.chunk(4, -1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * cell.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def _gru_cell(
    values: Tensor,
    state: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> Tensor:
    """`torch.nn.GRUCell` likewise."""
    from_values = F.linear(values, weight_ih, bias_ih).chunk(3, -1)
    from_state = F.linear(state, weight_hh, bias_hh).chunk(3, -1)
    reset = (from_values[0] + from_state[0]).sigmoid()
    update = (from_values[1] + from_state[1]).sigmoid()
    new = (from_values[2] + reset * from_state[2]).tanh()
    return new + update * (state - new)


_WITHOUT_RULE: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: _attention,
    torch.lstm_cell: _lstm_cell,
    torch.gru_cell: _gru_cell,
}
