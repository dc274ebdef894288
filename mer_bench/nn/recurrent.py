"""Gated recurrences over the turns of many dialogues, in one or both directions at once, without padding.

Three things make them fast on a CPU, where a step of a small recurrence is bound by the number of its
operators: both directions advance together; only dialogues that still run are advanced; and a
hand-written backward pass writes the gradient of every gate to one buffer, so that the gradient of a
weight is one product after the loop and not one a step.

`TurnOrder` says where each turn of a padded batch lies in the packed, time-major layout
`(directions, N, width)`, N = real turns of the batch: step t of all running dialogues is one slice.

Gates. Three gates lie side by side in every product: those of the *input* as (new, reset, update), those
of the *state* as (reset, update, new). A gate buffer (new, reset, update, reset * new) then holds the
gradients of both as two overlapping slices. `gru_input_order` maps PyTorch's order to the former; the
latter is PyTorch's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mer_bench.nn.seeds import folded

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward
_softmax_backward = torch.ops.aten._softmax_backward_data


@dataclass(frozen=True)
class TurnOrder:
    """Where each real turn of a batch lies in the packed layout of a recurrence.

    Dialogues are sorted by length, the longest first. Direction 0 reads a dialogue from its first turn on,
    direction 1 from its last. Row `starts[t] + b` of a direction is step t of the b-th longest dialogue.

    Shapes (B dialogues, T turns of the longest, N real turns, R directions):
        cells: (R, N), long; the cell of the padded batch, flattened to B * T, that a row stands for.
        grid: (N,), long; cell of a row in a (B, steps) table, dialogues sorted, time as its direction reads it.
        counts, starts: for each step the dialogues that still run and the first row of the step.
    """

    cells: Tensor
    grid: Tensor
    counts: tuple[int, ...]
    starts: tuple[int, ...]
    shape: tuple[int, int]

    @property
    def directions(self) -> int:
        """1, or 2 where time is read backwards too."""
        return self.cells.shape[0]

    @property
    def turns(self) -> int:
        """N, the real turns."""
        return self.cells.shape[1]

    @property
    def steps(self) -> int:
        """Turns of the longest dialogue."""
        return len(self.counts)

    def repeated(self, times: int) -> TurnOrder:
        """The same for so many times its directions, one set after the other."""
        return self if times == 1 else replace(self, cells=self.cells.repeat(times, 1))

    def pack(self, padded: Tensor) -> Tensor:
        """Rows of every direction from (B, T, width): (R, N, width)."""
        flat = padded.flatten(0, 1)
        return flat.index_select(0, self.cells.flatten()).view(self.directions, self.turns, flat.shape[-1])

    def by_step(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Views of the rows of each step of (R, N, width): one call instead of one a step."""
        steps: tuple[Tensor, ...] = packed.split(self.counts, dim=1)
        return steps

    def unpack(self, packed: Tensor) -> Tensor:
        """Directions side by side in a padded table, zero on padding: (B, T, R * width)."""
        batch, longest = self.shape
        empty = packed.new_zeros(batch * longest, packed.shape[-1])
        sides = [empty.index_copy(0, self.cells[side], packed[side]) for side in range(self.directions)]
        return torch.cat(sides, dim=-1).view(batch, longest, -1)

    def table_rows(self) -> Tensor:
        """Where each packed turn lies in a table (B * R, steps) whose row b * R + r is direction r of dialogue b.

        Shapes:
            returns: (R, N), long, an index into B * R * steps.
        """
        sides = torch.arange(self.directions, device=self.grid.device).unsqueeze(1)
        dialogue, time = self.grid // self.steps, self.grid % self.steps
        return (dialogue * self.directions + sides) * self.steps + time

    def previous_turn_of(self, speakers: Tensor) -> Tensor:
        """Row of the same speaker's turn before each, as each direction reads; N where there is none.

        Shapes:
            speakers: (B, T), long. returns: (R, N), long.
        """
        batch = self.shape[0]
        who = torch.full((self.directions, batch * self.steps), -1, dtype=torch.long, device=speakers.device)
        said = speakers.flatten()[self.cells]  # (R, N)
        who = who.scatter(1, self.grid.expand(self.directions, -1), said).view(self.directions, batch, self.steps)
        time = torch.arange(self.steps, device=speakers.device)
        earlier = time.unsqueeze(1) > time
        same = (who.unsqueeze(-1) == who.unsqueeze(-2)) & earlier  # (R, B, T, T)
        last = torch.where(same, time, -1).amax(-1).flatten(1)[:, self.grid]  # (R, N)
        starts = torch.tensor(self.starts, device=speakers.device)
        row = starts[last.clamp_min(0)] + self.grid // self.steps
        return torch.where(last < 0, self.turns, row)


def turn_order(lengths: Tensor, longest: int, directions: int = 2) -> TurnOrder:
    """The packed order of a batch.

    Args:
        lengths: (B,), long; turns of each dialogue, at least 1.
        longest: T, the width of the padded batch; may exceed the longest dialogue.
        directions: 1 (forward) or 2 (forward and backward).
    """
    kept = lengths.cpu()
    sorted_lengths, order = kept.sort(descending=True, stable=True)
    steps = torch.arange(int(sorted_lengths[0]))
    runs = steps.unsqueeze(1) < sorted_lengths  # (steps, B)
    counts = runs.sum(1)
    first = order * longest
    forward = first + steps.unsqueeze(1)
    backward = first + sorted_lengths - 1 - steps.unsqueeze(1)
    cells = torch.stack([forward[runs], backward[runs]][:directions])
    grid = (torch.arange(len(kept)) * len(steps) + steps.unsqueeze(1))[runs]
    return TurnOrder(
        cells=cells.to(lengths.device),
        grid=grid.to(lengths.device),
        counts=tuple(counts.tolist()),
        starts=tuple((counts.cumsum(0) - counts).tolist()),
        shape=(len(kept), longest),
    )


def speaker_order(speakers: Tensor, lengths: Tensor, longest: int) -> TurnOrder:
    """The packed order of a batch in which every speaker's own turns of a dialogue are a chain by themselves.

    It packs and unpacks as `turn_order` does, in both directions; where that says a dialogue, this means the
    turns of one speaker of a dialogue.

    Args:
        speakers: (B, T), long. lengths: (B,), long; turns of each dialogue, at least 1.
        longest: T, the width of the padded batch.
    """
    mask = torch.arange(longest) < lengths.cpu().unsqueeze(1)  # (B, T)
    cells = mask.flatten().nonzero().squeeze(1)  # (N,)
    people = int(speakers.max()) + 1
    owner = (cells // longest) * people + speakers.cpu().flatten()[cells]
    # Stable, so that a speaker's turns stay in time; the chains lie one after the other.
    cells = cells[owner.argsort(stable=True)]
    _, chains = owner.unique(return_counts=True)
    starts = chains.cumsum(0) - chains
    chain_lengths, order = chains.sort(descending=True, stable=True)
    steps = torch.arange(int(chain_lengths[0]))
    runs = steps.unsqueeze(1) < chain_lengths  # (steps, chains)
    counts = runs.sum(1)
    first = starts[order]
    forward = (first + steps.unsqueeze(1))[runs]
    backward = (first + chain_lengths - 1 - steps.unsqueeze(1))[runs]
    grid = (torch.arange(len(chains)) * len(steps) + steps.unsqueeze(1))[runs]
    return TurnOrder(
        cells=torch.stack([cells[forward], cells[backward]]).to(lengths.device),
        grid=grid.to(lengths.device),
        counts=tuple(counts.tolist()),
        starts=tuple((counts.cumsum(0) - counts).tolist()),
        shape=(len(lengths), longest),
    )


def gru_input_order(value: Tensor, dim: int = 0) -> Tensor:
    """PyTorch's (reset, update, new) along a dimension as (new, reset, update)."""
    reset, update, new = value.chunk(3, dim)
    return torch.cat([new, reset, update], dim)


class GruWeights(nn.Module):
    """Weights of one GRU cell for each direction; the parts of its input keep a matrix of their own.

    Initialised as PyTorch's GRUCell: uniform within 1 / sqrt(width).

    Args:
        inputs: Width of each part of the input, in order.
        width: Width of the state.

    Shapes:
        inputs[i]: (directions, inputs[i], 3 width), gates new, reset, update.
        state: (directions, width, 3 width), gates reset, update, new.
        input_bias, state_bias: (directions, 1, 3 width), each in its own order of gates.
    """

    def __init__(self, inputs: Sequence[int], width: int, directions: int = 2) -> None:
        super().__init__()
        self.width = width
        self.inputs = nn.ParameterList([torch.empty(directions, part, 3 * width) for part in inputs])
        self.state = nn.Parameter(torch.empty(directions, width, 3 * width))
        self.input_bias = nn.Parameter(torch.empty(directions, 1, 3 * width))
        self.state_bias = nn.Parameter(torch.empty(directions, 1, 3 * width))
        bound = 1 / math.sqrt(width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @torch.no_grad()
    def load_cell(self, direction: int, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> None:
        """Take the weights of a `torch.nn.GRUCell` for one direction."""
        columns = gru_input_order(weight_ih).T
        for part, piece in zip(self.inputs, columns.split([part.shape[1] for part in self.inputs]), strict=True):
            part[direction] = piece
        self.state[direction] = weight_hh.T
        self.input_bias[direction, 0] = gru_input_order(bias_ih)
        self.state_bias[direction, 0] = bias_hh

    def advance(self, gates_in: Tensor, state: Tensor) -> Tensor:
        """One step in plain operators.

        Shapes:
            gates_in: (directions, n, 3 width), the input's share with its bias. state, returns: (directions, n, width).
        """
        gates_state = torch.baddbmm(self.state_bias, state, self.state)
        width = self.width
        reset, update = (gates_in[..., width:] + gates_state[..., : 2 * width]).sigmoid().chunk(2, -1)
        new = torch.tanh(gates_in[..., :width] + reset * gates_state[..., 2 * width :])
        result: Tensor = torch.lerp(new, state, update)
        return result


def _advance(gates_in: Tensor, gates_state: Tensor, state: Tensor, kept: Tensor) -> Tensor:
    """One GRU step; `kept` (directions, n, 4 width) receives (reset, update, new, the state's share of new)."""
    width = state.shape[-1]
    gates = kept[..., : 2 * width]
    torch.add(gates_in[..., width:], gates_state[..., : 2 * width], out=gates).sigmoid_()
    hidden = kept[..., 3 * width :].copy_(gates_state[..., 2 * width :])
    new = kept[..., 2 * width : 3 * width]
    torch.addcmul(gates_in[..., :width], kept[..., :width], hidden, out=new).tanh_()
    return torch.lerp(new, state, kept[..., width : 2 * width])


def _retreat(grad: Tensor, state: Tensor, kept: Tensor, gate_grads: Tensor) -> Tensor:
    """Gradient of `_advance`: fills the buffer (new, reset, update, reset * new), returns the state's direct share."""
    width = state.shape[-1]
    reset, update, new, hidden = kept.split(width, -1)
    through: Tensor = grad * update
    grad_new = gate_grads[..., :width].copy_(_tanh_backward(grad - through, new))
    grad_reset, grad_update = gate_grads[..., width : 2 * width], gate_grads[..., 2 * width : 3 * width]
    _sigmoid_backward.grad_input(grad_new * hidden, reset, grad_input=grad_reset)
    _sigmoid_backward.grad_input(grad * (state - new), update, grad_input=grad_update)
    torch.mul(grad_new, reset, out=gate_grads[..., 3 * width :])
    return through


def _sum_rows(grads: Tensor) -> Tensor:
    return grads.sum(1, keepdim=True)


class _GruChain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gates_in: Tensor, weight: Tensor, bias: Tensor, drop: Tensor | None, order: TurnOrder
    ) -> Tensor:
        directions, turns, _ = gates_in.shape
        width = weight.shape[1]
        states = gates_in.new_empty(directions, turns, width)
        gates = gates_in.new_empty(directions, turns, 3 * width)  # reset, update, the state's share of new
        news = torch.empty_like(states)
        state = gates_in.new_zeros(directions, order.counts[0], width)
        drops = [None] * order.steps if drop is None else order.by_step(drop)
        for into, doors, reset, update, hidden, opened, entered, new, after, dropped in zip(
            *(order.by_step(gates), order.by_step(gates[..., : 2 * width])),
            *(order.by_step(part) for part in gates.split(width, -1)),
            *(order.by_step(gates_in[..., width:]), order.by_step(gates_in[..., :width])),
            *(order.by_step(news), order.by_step(states), drops),
            strict=True,
        ):
            before = state.narrow(1, 0, into.shape[1])
            torch.baddbmm(bias, before, weight, out=into)
            doors.add_(opened).sigmoid_()
            torch.addcmul(entered, reset, hidden, out=new).tanh_()
            state = torch.lerp(new, before, update, out=after)
            if dropped is not None:
                state *= dropped
        ctx.order = order
        ctx.save_for_backward(weight, drop, states, gates, news)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order: TurnOrder = ctx.order
        weight, drop, states, gates, news = ctx.saved_tensors
        width = weight.shape[1]
        back = weight.transpose(1, 2)
        gate_grads = gates.new_empty(*gates.shape[:2], 4 * width)  # new, reset, update, reset * new
        # Receives what the state of a later step passes back, step by step.
        arriving = order.by_step(grad.clone())
        nothing = states.new_zeros(states.shape[0], order.counts[0], width)
        befores = [nothing, *order.by_step(states)[:-1]]
        drops = [None] * order.steps if drop is None else order.by_step(drop)
        steps = zip(
            *(arriving, [None, *arriving[:-1]], befores, order.by_step(news), drops),
            *(order.by_step(part) for part in gates.split(width, -1)),
            *(order.by_step(part) for part in gate_grads.split(width, -1)),
            order.by_step(gate_grads[..., width:]),
            strict=True,
        )
        for parts in reversed(list(steps)):
            (arrived, earlier, before, new, dropped, reset, update, hidden) = parts[:8]
            (grad_new, grad_reset, grad_update, grad_hidden, grad_state) = parts[8:]
            before = before.narrow(1, 0, arrived.shape[1])
            if dropped is not None:
                arrived = arrived * dropped
            through = arrived * update
            _tanh_backward.grad_input(arrived - through, new, grad_input=grad_new)
            _sigmoid_backward.grad_input(grad_new * hidden, reset, grad_input=grad_reset)
            _sigmoid_backward.grad_input(arrived * (before - new), update, grad_input=grad_update)
            torch.mul(grad_new, reset, out=grad_hidden)
            if earlier is not None:
                earlier.narrow(1, 0, arrived.shape[1]).add_(through).baddbmm_(grad_state, back)
        first = order.counts[0]
        grad_states = gate_grads[..., width:]
        grad_weight = torch.bmm(_state_before(states, order).transpose(1, 2), grad_states[:, first:])
        return gate_grads[..., : 3 * width], grad_weight, _sum_rows(grad_states), None, None


def gru_chain(gates_in: Tensor, weights: GruWeights, order: TurnOrder, drop: Tensor | None = None) -> Tensor:
    """A GRU over every dialogue in every direction, from a zero state.

    Args:
        drop: Factors (directions, N, width) on each new state, which is carried on as it is dropped.

    Shapes:
        gates_in: (directions, N, 3 width), the input's share of the gates with its bias.
        returns: (directions, N, width).
    """

    def run(*given: Tensor | None) -> Tensor:
        result: Tensor = _GruChain.apply(*given, order)  # type: ignore[no-untyped-call]
        return result

    return folded(run, gates_in, weights.state, weights.state_bias, drop)


class LstmWeights(nn.Module):
    """Weights of one LSTM layer for each direction, drawn as `torch.nn.LSTM` draws them.

    Shapes:
        input: (directions, inputs, 4 width). state: (directions, width, 4 width).
        input_bias, state_bias: (directions, 1, 4 width). Gates input, forget, output, cell.
    """

    def __init__(self, inputs: int, width: int, directions: int = 2) -> None:
        super().__init__()
        self.width = width
        self.input = nn.Parameter(torch.empty(directions, inputs, 4 * width))
        self.state = nn.Parameter(torch.empty(directions, width, 4 * width))
        self.input_bias = nn.Parameter(torch.empty(directions, 1, 4 * width))
        self.state_bias = nn.Parameter(torch.empty(directions, 1, 4 * width))
        bound = 1 / math.sqrt(width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @torch.no_grad()
    def load_layer(
        self, direction: int, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> None:
        """Take one direction of a layer of `torch.nn.LSTM`, whose gates are input, forget, cell, output."""

        def reordered(value: Tensor) -> Tensor:
            enter, forget, cell, leave = value.chunk(4)
            return torch.cat([enter, forget, leave, cell])

        self.input[direction] = reordered(weight_ih).T
        self.state[direction] = reordered(weight_hh).T
        self.input_bias[direction, 0] = reordered(bias_ih)
        self.state_bias[direction, 0] = reordered(bias_hh)

    def forward(self, packed: Tensor, order: TurnOrder) -> Tensor:
        """The layer over every dialogue in every direction: (directions, N, inputs) to (directions, N, width)."""
        gates_in = torch.baddbmm(self.input_bias + self.state_bias, packed, self.input)

        def run(*given: Tensor | None) -> Tensor:
            result: Tensor = _LstmChain.apply(*given, order)  # type: ignore[no-untyped-call]
            return result

        return folded(run, gates_in, self.state)


class _LstmChain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_in: Tensor, weight: Tensor, order: TurnOrder) -> Tensor:
        directions, turns, _ = gates_in.shape
        width = weight.shape[1]
        gates = gates_in.clone()  # input, forget, output, cell; a step adds the state's share to its rows
        states, cells, squashed = (gates_in.new_empty(directions, turns, width) for _ in range(3))
        state = gates_in.new_zeros(directions, order.counts[0], width)
        before = torch.zeros_like(state)
        for into, doors, enter, forget, leave, candidate, cell, flat, after in zip(
            *(order.by_step(gates), order.by_step(gates[..., : 3 * width])),
            *(order.by_step(part) for part in gates.split(width, -1)),
            *(order.by_step(cells), order.by_step(squashed), order.by_step(states)),
            strict=True,
        ):
            count = into.shape[1]
            into.baddbmm_(state.narrow(1, 0, count), weight)
            doors.sigmoid_()
            candidate.tanh_()
            before = torch.mul(enter, candidate, out=cell).addcmul_(forget, before.narrow(1, 0, count))
            state = torch.mul(leave, torch.tanh(cell, out=flat), out=after)
        ctx.order = order
        ctx.save_for_backward(weight, states, gates, cells, squashed)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order: TurnOrder = ctx.order
        weight, states, gates, cells, squashed = ctx.saved_tensors
        width = weight.shape[1]
        back = weight.transpose(1, 2)
        gate_grads = torch.empty_like(gates)
        # Receives what the state of a later step passes back, step by step.
        arriving = order.by_step(grad.clone())
        carried = grad.new_zeros(grad.shape[0], order.counts[0], width)  # of the cell
        nothing = torch.zeros_like(carried)
        steps = zip(
            *(arriving, [None, *arriving[:-1]], [nothing, *order.by_step(cells)[:-1]], order.by_step(squashed)),
            *(order.by_step(gates[..., : 3 * width]), order.by_step(gate_grads[..., : 3 * width])),
            *(order.by_step(part) for part in gates.split(width, -1)),
            *(order.by_step(part) for part in gate_grads.split(width, -1)),
            order.by_step(gate_grads),
            strict=True,
        )
        for parts in reversed(list(steps)):
            (arrived, earlier, before, flat, doors, grad_doors, enter, forget, leave, candidate) = parts[:10]
            (grad_enter, grad_forget, grad_leave, grad_candidate, grads) = parts[10:]
            count = arrived.shape[1]
            later = carried.narrow(1, 0, count)
            through = _tanh_backward(arrived * leave, flat).add_(later)
            torch.mul(through, candidate, out=grad_enter)
            torch.mul(through, before.narrow(1, 0, count), out=grad_forget)
            torch.mul(arrived, flat, out=grad_leave)
            _sigmoid_backward.grad_input(grad_doors, doors, grad_input=grad_doors)
            _tanh_backward.grad_input(through * enter, candidate, grad_input=grad_candidate)
            if earlier is not None:
                torch.mul(through, forget, out=later)
                earlier.narrow(1, 0, count).baddbmm_(grads, back)
        grad_weight = torch.bmm(_state_before(states, order).transpose(1, 2), gate_grads[:, order.counts[0] :])
        return gate_grads, grad_weight, None


def _state_before(states: Tensor, order: TurnOrder) -> Tensor:
    """The state before each row from the second step on: (R, N - B, width)."""
    pieces = [states[:, first : first + count] for first, count in zip(order.starts, order.counts[1:], strict=False)]
    return torch.cat(pieces or [states[:, :0]], dim=1)


class _PartyChain(torch.autograd.Function):
    """The recurrence of global state, attention over its past, and state of the speaking party."""

    @staticmethod
    def forward(
        ctx: Any,
        global_in: Tensor,
        party_in: Tensor,
        query: Tensor,
        global_party: Tensor,
        global_state: Tensor,
        global_bias: Tensor,
        party_context: Tensor,
        party_state: Tensor,
        party_bias: Tensor,
        global_drop: Tensor | None,
        party_drop: Tensor | None,
        previous: Tensor,
        order: TurnOrder,
    ) -> Tensor:
        sides, turns, _ = global_in.shape
        width, party = global_state.shape[1], party_state.shape[1]
        tables = order.counts[0] * sides
        table_rows = order.table_rows().flatten()
        longest = order.steps
        # Row b * sides + r of a table is direction r of dialogue b, so that running dialogues are a prefix.
        queries = query.new_zeros(tables * longest, width)
        queries.index_copy_(0, table_rows, query.reshape(-1, width))
        queries = queries.view(tables, longest, width)
        history = global_in.new_zeros(tables, longest, width)
        contexts = global_in.new_zeros(tables, longest, width)
        attended = global_in.new_zeros(tables, longest, longest)  # [past time, query time]
        parties = global_in.new_zeros(sides, turns + 1, party)  # the last row is the zero state
        flat_parties = parties.view(-1, party)
        offsets = torch.arange(sides, device=previous.device).unsqueeze(1) * (turns + 1)
        previous = previous + offsets  # (R, N), into flat_parties
        global_kept = global_in.new_empty(sides, turns, 4 * width)
        party_kept = global_in.new_empty(sides, turns, 4 * party)
        from_party = torch.cat([global_party, party_state], dim=2)
        party_both_bias = torch.cat([torch.zeros_like(global_bias), party_bias], dim=2)
        nothing = global_in.new_zeros(sides, order.counts[0], width)
        for step, (start, count) in enumerate(zip(order.starts, order.counts, strict=True)):
            rows = slice(start, start + count)
            running = count * sides
            spoke = flat_parties.index_select(0, previous[:, rows].flatten()).view(sides, count, party)
            share = torch.baddbmm(party_both_bias, spoke, from_party)
            before = _sides(history, step - 1, count, sides) if step else nothing
            state = _advance(
                global_in[:, rows] + share[..., : 3 * width],
                torch.baddbmm(global_bias, before, global_state),
                before,
                global_kept[:, rows],
            )
            if global_drop is not None:
                state *= global_drop[:, rows]
            _sides(history, step, count, sides).copy_(state)
            gates = party_in[:, rows]
            if step:
                past = history[:running, :step]
                scores = torch.bmm(queries[:running, step : step + 1], past.transpose(1, 2))  # (running, 1, step)
                alpha = torch.softmax(scores, -1)
                attended[:running, :step, step] = alpha.squeeze(1)
                contexts[:running, step] = torch.bmm(alpha, past).squeeze(1)
                gates = torch.baddbmm(gates, _sides(contexts, step, count, sides), party_context)
            spoken = _advance(gates, share[..., 3 * width :], spoke, party_kept[:, rows])
            if party_drop is not None:
                spoken *= party_drop[:, rows]
            parties[:, rows] = spoken
        ctx.order = order
        ctx.save_for_backward(
            *(global_party, global_state, party_context, party_state, global_drop, party_drop, previous, table_rows),
            *(queries, history, contexts, attended, parties, global_kept, party_kept),
        )
        return parties[:, :turns]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        order: TurnOrder = ctx.order
        (global_party, global_state, party_context, party_state, global_drop, party_drop, previous, table_rows) = (
            ctx.saved_tensors[:8]
        )
        queries, history, contexts, attended, parties, global_kept, party_kept = ctx.saved_tensors[8:]
        sides, turns, party = grad.shape
        width = global_state.shape[1]
        flat_parties = parties.view(-1, party)
        grad_parties = torch.zeros_like(parties)
        grad_parties[:, :turns] = grad
        flat_grad_parties = grad_parties.view(-1, party)
        grad_contexts = torch.zeros_like(contexts)
        grad_scores = torch.zeros_like(attended)
        global_grads = torch.empty_like(global_kept)
        party_grads = torch.empty_like(party_kept)
        to_party_from_global, to_party, to_global, to_context = (
            weight.transpose(1, 2) for weight in (global_party, party_state, global_state, party_context)
        )
        carried, nothing = grad.new_zeros(2, sides, order.counts[0], width)
        spoke_all = flat_parties.index_select(0, previous.flatten()).view(sides, turns, party)
        for step in range(order.steps - 1, -1, -1):
            count = order.counts[step]
            running = count * sides
            rows = slice(order.starts[step], order.starts[step] + count)
            arrived = grad_parties[:, rows]
            if party_drop is not None:
                arrived = arrived * party_drop[:, rows]
            grad_spoke = _retreat(arrived, spoke_all[:, rows], party_kept[:, rows], party_grads[:, rows])
            if step:
                _sides(grad_contexts, step, count, sides).copy_(
                    torch.bmm(party_grads[:, rows, : 3 * party], to_context)
                )
                alpha = attended[:running, :step, step].unsqueeze(1)
                arrived = torch.bmm(grad_contexts[:running, step : step + 1], history[:running, :step].transpose(1, 2))
                grad_scores[:running, :step, step] = _softmax_backward(arrived, alpha, -1, grad.dtype).squeeze(1)
            arrived = carried[:, :count]
            if step + 1 < order.steps:
                later = order.counts[step + 1] * sides
                pulled = torch.bmm(attended[:later, step : step + 1, step + 1 :], grad_contexts[:later, step + 1 :])
                pulled.baddbmm_(grad_scores[:later, step : step + 1, step + 1 :], queries[:later, step + 1 :])
                arrived[:, : order.counts[step + 1]] += pulled.view(-1, sides, width).transpose(0, 1)
            if global_drop is not None:
                arrived = arrived * global_drop[:, rows]
            before = _sides(history, step - 1, count, sides) if step else nothing
            through = _retreat(arrived, before, global_kept[:, rows], global_grads[:, rows])
            carried[:, :count] = torch.baddbmm(through, global_grads[:, rows, width:], to_global)
            grad_spoke = torch.baddbmm(grad_spoke, global_grads[:, rows, : 3 * width], to_party_from_global)
            grad_spoke = grad_spoke.baddbmm_(party_grads[:, rows, party:], to_party)
            # Each row is the previous turn of one row at most, so nothing is added twice to one place.
            flat_grad_parties.index_add_(0, previous[:, rows].flatten(), grad_spoke.view(-1, party))
        grad_query = torch.bmm(grad_scores.transpose(1, 2), history).view(-1, width)
        grad_query = grad_query.index_select(0, table_rows).view(sides, turns, width)
        # The global state before each row: zero at the first step, else one cell to the left in its table.
        context_all = contexts.view(-1, width).index_select(0, table_rows).view(sides, turns, width)
        before_all = history.view(-1, width).index_select(0, (table_rows - 1).clamp_min(0)).view(sides, turns, width)
        before_all[:, : order.counts[0]] = 0
        global_in_grad, global_state_grad = global_grads[..., : 3 * width], global_grads[..., width:]
        party_in_grad, party_state_grad = party_grads[..., : 3 * party], party_grads[..., party:]
        spoke_back = spoke_all.transpose(1, 2)
        return (
            global_in_grad,
            party_in_grad,
            grad_query,
            torch.bmm(spoke_back, global_in_grad),
            torch.bmm(before_all.transpose(1, 2), global_state_grad),
            _sum_rows(global_state_grad),
            torch.bmm(context_all.transpose(1, 2), party_in_grad),
            torch.bmm(spoke_back, party_state_grad),
            _sum_rows(party_state_grad),
            None,
            None,
            None,
            None,
        )


def _sides(table: Tensor, time: int, count: int, sides: int) -> Tensor:
    """Column `time` of the first `count` dialogues of a table (B * R, T, width): (R, count, width), a view."""
    return table.view(-1, sides, table.shape[1], table.shape[2])[:count, :, time].transpose(0, 1)


def party_chain(
    global_in: Tensor,
    party_in: Tensor,
    query: Tensor,
    global_cell: GruWeights,
    party_cell: GruWeights,
    previous: Tensor,
    order: TurnOrder,
    global_drop: Tensor | None = None,
    party_drop: Tensor | None = None,
) -> Tensor:
    """State of the speaking party after each turn, with a global state and attention over its past.

    At turn t of a dialogue: g_t = GRU([u_t, q of the speaker before t], g_{t-1}); c_t = the earlier g_s
    weighted by a softmax of query_t . g_s, zero at the first turn; q of the speaker = GRU([u_t, c_t], q).
    Only the speaker's state changes, so it is read from the row of the speaker's previous turn.

    Args:
        global_cell: Weights whose input parts are (utterance, party). party_cell: (utterance, context).
        previous: `order.previous_turn_of(speakers)`.
        global_drop, party_drop: Factors on each new state, (directions, N, width), or None.

    Shapes:
        global_in, party_in: (directions, N, 3 width), the utterance's share of the gates with the input's bias.
        query: (directions, N, global width). returns: (directions, N, party width).
    """

    def run(*given: Tensor | None) -> Tensor:
        assert given[0] is not None
        times = len(given[0]) // order.directions
        result: Tensor = _PartyChain.apply(  # type: ignore[no-untyped-call]
            *given, previous.repeat(times, 1), order.repeated(times)
        )
        return result

    return folded(
        run,
        *(global_in, party_in, query),
        *(global_cell.inputs[1], global_cell.state, global_cell.state_bias),
        *(party_cell.inputs[1], party_cell.state, party_cell.state_bias),
        *(global_drop, party_drop),
    )
