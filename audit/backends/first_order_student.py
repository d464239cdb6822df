"""A `Student` on torch: the gradients of every row by itself, from one pass over many rows.

With B = 0 the gradient with respect to B of a layer W + B A is sum over tokens of d (A a)^T, for a
the layer's input and d the loss's gradient at its output. So only activations are differentiated,
never weights, and every row's gradient meets those of the targets without being kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.backends.batching import batches_by_length
from audit.backends.memory import give_back, out_of_memory
from audit.backends.request_checks import check_sequence_requests
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.backends.transformers_network import head_logits, head_rows
from audit.errors import AuditError
from detectors.first_order import Matrix, ReadingOrder, RowProgress, silent
from signatures.language_model import SequenceRequest, TokenIds

_RANK = 8
"""Of B A. More directions, more of the whole gradient: at 8 the noise of drawing A is small."""

_BATCH_TOKENS = 1024
"""Tokens of one pass, which bounds the logits that are held: 4 bytes x vocabulary a token."""

_Layers = list[tuple[Any, Any]]
"""Every linear layer, with its A transposed: [inputs, rank], normal with variance 1 / rank."""

_Sink = Callable[[int, Any], None]
"""Takes a layer's index and the gradients [sequences, outputs x rank] of one pass. What it adds up
it has computed before, so that memory does not run out between two sums."""


class TransformersStudent:
    """First-order steps of a loaded model. Its weights are never changed."""

    def __init__(self, model: TransformersLanguageModel) -> None:
        """Takes the gradients of ``model``'s network; closing that one ends this one."""
        self._model = model

    def read(self, order: ReadingOrder, progress: RowProgress = silent) -> _TorchReading:
        """See `detectors.first_order.Student.read`.

        Raises ``AuditError`` for a network whose linear layers do not see every token of every row
        (mixtures of experts), or when memory runs out.
        """
        import torch

        answers = [answer for target in order.targets for answer in target]
        for requests in (answers, order.rows):
            check_sequence_requests(
                requests,
                vocabulary_size=self._model.identity.vocabulary_size,
                longest=self._model.longest,
            )
        network = self._model.network
        layers = _draw_layers(network, order.seed)
        widths = [layer.out_features * _RANK for layer, _ in layers]
        device = network.device
        goals = [torch.zeros(len(order.targets), width, device=device) for width in widths]
        owner = np.repeat(np.arange(len(order.targets)), [len(t) for t in order.targets])
        share = np.repeat([1.0 / len(t) for t in order.targets], [len(t) for t in order.targets])

        def goal_sink(members: list[int]) -> _Sink:
            whose = torch.from_numpy(owner[members]).to(device)
            weight = torch.from_numpy(share[members]).to(device, torch.float32)[:, None]

            def add_goal(layer: int, gradient: Any) -> None:
                goals[layer].index_add_(0, whose, gradient * weight)

            return add_goal

        for members in _batches(answers):
            _run_in_parts(network, layers, answers, members, goal_sink)
        sizes = np.bincount(order.blocks)
        blocks = [torch.zeros(len(sizes), width, device=device) for width in widths]
        pulls = torch.zeros(len(order.rows), len(order.targets), device=device)
        own = torch.zeros(len(order.rows), device=device)
        done = 0

        def row_sink(members: list[int]) -> _Sink:
            rows = torch.tensor(members, device=device)
            into = torch.from_numpy(order.blocks[members]).to(device)

            def add_row(layer: int, gradient: Any) -> None:
                pull, gain = gradient @ goals[layer].T, gradient.square().sum(dim=1)
                pulls.index_add_(0, rows, pull)
                own.index_add_(0, rows, gain)
                blocks[layer].index_add_(0, into, gradient)

            return add_row

        for members in _batches(order.rows):
            _run_in_parts(network, layers, order.rows, members, row_sink)
            done += len(members)
            progress(done, len(order.rows))
        count = torch.from_numpy(sizes).to(device, torch.float32)[:, None]
        return _TorchReading(
            network,
            layers,
            [total / count for total in blocks],
            np.asarray(pulls.double().cpu().numpy()),
            np.asarray(own.double().cpu().numpy()),
        )


class _TorchReading:
    """See `detectors.first_order.Reading`."""

    def __init__(
        self, network: Any, layers: _Layers, blocks: list[Any], pulls: Matrix, own_gains: Matrix
    ) -> None:
        self._network = network
        self._layers = layers
        self._blocks = blocks
        self.pulls = pulls
        self.own_gains = own_gains

    def word_rises(
        self, steps: Matrix, questions: Sequence[TokenIds], words: NDArray[np.int64]
    ) -> Matrix:
        """See `detectors.first_order.Reading.word_rises`."""
        import torch

        rises = np.zeros((len(steps), len(words)))
        for index, step in enumerate(steps):
            rates = torch.tensor(step, dtype=torch.float32, device=self._network.device)
            moved = [
                (rates @ block).reshape(layer.out_features, _RANK)
                for (layer, _), block in zip(self._layers, self._blocks, strict=True)
            ]
            with torch.inference_mode():
                forwards = self._log_probs(moved, questions, words)
                backwards = self._log_probs([-change for change in moved], questions, words)
            rises[index] = (forwards - backwards) / 2.0
        return rises

    def _log_probs(
        self, moved: list[Any], questions: Sequence[TokenIds], words: NDArray[np.int64]
    ) -> Matrix:
        """log P(word | question) with every layer's B at ``moved``: [words], mean of questions."""
        import torch

        device = self._network.device
        tokens = _padded(questions, device)
        ends = torch.tensor([len(question) - 1 for question in questions], device=device)
        with ExitStack() as hooks:
            for (layer, down), up in zip(self._layers, moved, strict=True):
                handle = layer.register_forward_hook(_adding(down, up))
                hooks.callback(handle.remove)
            states = self._network.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        hidden = states[torch.arange(len(questions), device=device), ends]
        logits = head_logits(hidden, head_rows(self._network, slice(None)))
        columns = torch.from_numpy(words).to(device)
        return np.asarray(
            logits.log_softmax(-1)[:, columns].double().mean(dim=0).cpu().numpy(), dtype=np.float64
        )


def _adding(down: Any, up: Any) -> Callable[[Any, Any, Any], Any]:
    """A forward hook that adds B A x, with A^T ``down`` and B ``up``, to a layer's output."""

    def hook(_layer: Any, inputs: Any, output: Any) -> Any:
        return output + ((inputs[0].float() @ down) @ up.T).to(output.dtype)

    return hook


def _draw_layers(network: Any, seed: int) -> _Layers:
    import torch

    generator = torch.Generator().manual_seed(seed)
    head = network.get_output_embeddings()
    layers = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            drawn = torch.randn(layer.in_features, _RANK, generator=generator) / _RANK**0.5
            layers.append((layer, drawn.to(network.device)))
    if not layers:
        raise AuditError("the network has no linear layers: no step can be taken")
    return layers


def _batches(requests: Sequence[SequenceRequest]) -> Iterator[list[int]]:
    lengths = [len(request.prefix) + len(request.continuation) for request in requests]
    return batches_by_length(lengths, _BATCH_TOKENS)


def _run_in_parts(
    network: Any,
    layers: _Layers,
    requests: Sequence[SequenceRequest],
    members: list[int],
    sink_of: Callable[[list[int]], _Sink],
) -> None:
    """A pass over the requests at ``members``, or over halves of them wherever memory runs out.

    Layers report while a pass goes back: those that had before it failed are not heard again.
    """
    pending: list[tuple[list[int], frozenset[int]]] = [(members, frozenset())]
    while pending:
        part, heard = pending.pop()
        sink = sink_of(part)
        new: set[int] = set()

        def hear(
            layer: int,
            gradient: Any,
            sink: _Sink = sink,
            heard: frozenset[int] = heard,
            new: set[int] = new,
        ) -> None:
            if layer not in heard:
                sink(layer, gradient)
                new.add(layer)

        try:
            _run(network, layers, [requests[index] for index in part], hear)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                row = requests[part[0]]
                raise AuditError(
                    f"memory ran out on the gradients of a single row of "
                    f"{len(row.prefix) + len(row.continuation)} tokens: read fewer tokens a row, "
                    "use bfloat16, or free memory"
                ) from None
        else:
            continue
        # Out here the error's frames are gone, and what they held.
        give_back()
        half = len(part) // 2
        known = heard | new
        pending += [(part[half:], known), (part[:half], known)]


def _run(network: Any, layers: _Layers, batch: Sequence[SequenceRequest], sink: _Sink) -> None:
    """One pass forward and back; ``sink`` gets every layer's gradients, one a sequence."""
    import torch

    device = network.device
    tokens = _padded([r.prefix + r.continuation for r in batch], device)
    rows = [row for row, request in enumerate(batch) for _ in request.continuation]
    places = [len(r.prefix) + step - 1 for r in batch for step in range(len(r.continuation))]
    # Float32 weights are read as bfloat16: twice as fast, and far below the noise of a row.
    faster = (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if network.dtype == torch.float32
        else nullcontext()
    )
    with torch.enable_grad(), _differentiable(network, layers, len(batch), sink):
        with faster:
            # Rows are padded at their ends, where causal attention needs no mask.
            states = network.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            # The head runs only where there is a loss.
            logits = network.get_output_embeddings()(states[rows, places])
        following = tokens[rows, [place + 1 for place in places]]
        loss = torch.nn.functional.cross_entropy(logits.float(), following, reduction="sum")
        (-loss).backward()


@contextmanager
def _differentiable(network: Any, layers: _Layers, rows: int, sink: _Sink) -> Iterator[None]:
    """Within it, embeddings are differentiated and every layer reports its rows' gradients."""
    import torch

    def watch(index: int, down: Any) -> Callable[[Any, Any, Any], None]:
        def forward(_layer: Any, inputs: Any, output: Any) -> None:
            if inputs[0].dim() != 3 or inputs[0].shape[0] != rows:
                raise AuditError(
                    "the network routes tokens to experts: the gradients of its single rows "
                    "cannot be had"
                )
            with torch.autocast(down.device.type, enabled=False):
                seen = inputs[0].detach().float() @ down  # [rows, tokens, rank]

            def backward(gradient: Any) -> None:
                with torch.no_grad():
                    # [rows, outputs, tokens] @ [rows, tokens, rank]
                    sink(index, (gradient.float().transpose(1, 2) @ seen).flatten(1))

            output.register_hook(backward)

        return forward

    def begin(_layer: Any, _inputs: Any, output: Any) -> Any:
        return output.detach().requires_grad_(True)

    with ExitStack() as hooks:
        handle = network.get_input_embeddings().register_forward_hook(begin)
        hooks.callback(handle.remove)
        for index, (layer, down) in enumerate(layers):
            hooks.callback(layer.register_forward_hook(watch(index, down)).remove)
        yield


def _padded(sequences: Sequence[TokenIds], device: Any) -> Any:
    """Token ids [sequences, longest], padded at their ends."""
    import torch

    longest = max(map(len, sequences))
    return torch.tensor([ids + (0,) * (longest - len(ids)) for ids in sequences], device=device)
