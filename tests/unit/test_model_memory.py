"""An engine whose memory runs out: smaller passes with the same results, then a clear stop."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.backends.first_order_student import TransformersStudent
from audit.backends.lora_training import LoraSettings, train_lora
from audit.backends.memory import in_smaller_batches
from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.backends.vllm_engine import _one_line
from audit.errors import AuditError, ExitCode
from detectors.first_order import ReadingOrder
from signatures.language_model import Chat, SequenceRequest

pytestmark = pytest.mark.model

Failure = Callable[[], BaseException]


def on_a_gpu() -> BaseException:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


def on_a_cpu() -> BaseException:
    return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")


FAILURES = [on_a_gpu, on_a_cpu, MemoryError]


@contextmanager
def scarce(network: Any, most_rows: int, failure: Failure = on_a_gpu) -> Iterator[list[int]]:
    """Within it a pass over more than ``most_rows`` rows fails in the last layer, when the others
    hold what they computed. Gives the rows of all passes that were begun."""
    seen: list[int] = []

    def begun(_module: Any, _arguments: Any, options: Any) -> None:
        seen.append(len(options["input_ids"]))

    def fail(_module: Any, inputs: Any, _output: Any) -> None:
        if len(inputs[0]) > most_rows:
            raise failure()

    base = network.base_model
    while hasattr(base, "model"):  # peft wraps it
        base = base.model
    handles = [
        base.register_forward_pre_hook(begun, with_kwargs=True),
        base.layers[-1].mlp.register_forward_hook(fail),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def test_halves_come_in_order_and_other_errors_as_they_are() -> None:
    def run(part: list[int]) -> int:
        if len(part) > 2:
            raise MemoryError
        return sum(part)

    found = list(in_smaller_batches(run, range(7), str))
    assert found == [([0], 0), ([1, 2], 3), ([3, 4], 7), ([5, 6], 11)]

    def broken(_part: list[int]) -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(in_smaller_batches(broken, [1], str))


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Iterator[TransformersLanguageModel]:
    backend = TransformersLanguageModel.load(tiny_model_dir, threads=1)
    yield backend
    backend.close()


@pytest.mark.parametrize("failure", FAILURES)
def test_scores_in_smaller_passes_are_the_same(
    model: TransformersLanguageModel, failure: Failure
) -> None:
    requests = [
        SequenceRequest(model.encode(f"{number} {'a ' * number}"), model.encode(" 4, 5"))
        for number in range(1, 8)
    ]
    expected = list(model.sequence_log_probs(requests))
    with scarce(model.network, 2, failure) as seen:
        found = list(model.sequence_log_probs(requests))
    assert max(seen) > 2 >= min(seen)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    with scarce(model.network, 0, failure), pytest.raises(AuditError, match="single sequence"):
        list(model.sequence_log_probs(requests))


def test_answers_in_smaller_passes_are_the_same(model: TransformersLanguageModel) -> None:
    chats = [Chat("", f"Say {number}.") for number in range(6)]
    expected = model.generate(chats, max_new_tokens=5, seed=3)
    with scarce(model.network, 2) as seen:
        found = model.generate(chats, max_new_tokens=5, seed=3)
    assert max(seen) > 2 >= min(seen)
    assert found == expected
    with scarce(model.network, 0), pytest.raises(AuditError, match="memory ran out"):
        model.generate(chats, max_new_tokens=5, seed=3)


@pytest.fixture(scope="module")
def trainer(tiny_model_dir: Path) -> Iterator[StudentTrainer]:
    with closing(
        StudentTrainer(tiny_model_dir, StudentSettings(updates=3, batch_rows=5), threads=1)
    ) as made:
        yield made


def batch(update: int) -> list[Example]:
    return [
        Example(Chat("", f"Go on: {update}, {row}."), ", ".join("7" * (row + 1)))
        for row in range(5)
    ]


def trained(trainer: StudentTrainer) -> tuple[list[float], dict[str, np.ndarray[Any, Any]]]:
    losses = [update.loss_nats for update in trainer.train(batch, seed=1)]
    return losses, {name: w.detach().clone().numpy() for name, w in trainer._weights.items()}


def test_a_student_of_smaller_passes_is_the_same(trainer: StudentTrainer) -> None:
    losses, weights = trained(trainer)
    with scarce(trainer.model.network, 2) as seen:
        found, moved = trained(trainer)
    assert max(seen) > 2 >= min(seen)
    # Passes are in bfloat16, so other shapes round otherwise.
    np.testing.assert_allclose(found, losses, rtol=2e-3)
    for name, weight in weights.items():
        # A step of Adam is as long for a gradient of noise: so compared as a whole.
        step = np.linalg.norm(weight)
        assert np.linalg.norm(moved[name] - weight) < 0.1 * step, name
    with scarce(trainer.model.network, 0), pytest.raises(AuditError, match="single row"):
        trained(trainer)


def test_gradients_of_smaller_passes_are_added_up_once(trainer: StudentTrainer) -> None:
    def gradients() -> dict[str, Any]:
        trainer.reset(2)
        for weight in trainer._weights.values():
            weight.grad = None
        loss = trainer._step(batch(0))
        return {"loss": loss} | {
            name: weight.grad.numpy() for name, weight in trainer._weights.items()
        }

    expected = gradients()
    with scarce(trainer.model.network, 1):
        found = gradients()
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=2e-3)
    for name, gradient in expected.items():
        if "lora_B" in name:  # that of A is 0 while B is
            far = np.linalg.norm(found[name] - gradient)
            assert far < 0.05 * np.linalg.norm(gradient), name


def test_a_closed_trainer_holds_no_network(tiny_model_dir: Path) -> None:
    made = StudentTrainer(tiny_model_dir, StudentSettings(updates=1, batch_rows=5), threads=1)
    for _ in made.train(batch, seed=1):
        pass
    network = weakref.ref(made.model.network)
    made.close()
    assert network() is None


def test_a_teacher_of_smaller_passes_is_the_same(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audit.backends import lora_training

    examples = [(f"Say {number}.", f"{number}, {number}") for number in range(5)]
    settings = LoraSettings(steps=3)
    expected = train_lora(tiny_model_dir, examples, tmp_path / "a", settings, seed=1)
    whole = lora_training.answer_logits
    sizes = []

    def answer_logits(network: Any, tokens: Any, labels: Any) -> Any:
        sizes.append(len(tokens))
        if len(tokens) > 2:
            raise on_a_gpu()
        return whole(network, tokens, labels)

    monkeypatch.setattr(lora_training, "answer_logits", answer_logits)
    found = train_lora(tiny_model_dir, examples, tmp_path / "b", settings, seed=1)
    assert sizes == [5, 2, 3, 1, 2] * 3
    assert found == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("backwards", [False, True])
def test_first_order_gradients_are_added_up_once(
    model: TransformersLanguageModel, backwards: bool
) -> None:
    """Also where memory runs out on the way back, when some layers have reported already."""
    rows = [
        SequenceRequest(model.encode(f"{number}: {'b ' * number}"), model.encode(" 4, 5"))
        for number in range(1, 6)
    ]
    order = ReadingOrder(rows, [(rows[0],), (rows[1], rows[2])], np.array([0, 0, 1, 1, 1]))
    student = TransformersStudent(model)
    expected = student.read(order)
    layer = model.network.base_model.layers[0].self_attn.v_proj

    def fail_later(_module: Any, inputs: Any, output: Any) -> None:
        def fail(_gradient: Any) -> None:
            if len(inputs[0]) > 1:
                raise on_a_cpu()

        if output.requires_grad:
            output.register_hook(fail)

    if backwards:
        handle = layer.register_forward_hook(fail_later)
        found = student.read(order)
        handle.remove()
    else:
        with scarce(model.network, 1) as seen:
            found = student.read(order)
        assert max(seen) > 1
    # Passes are in bfloat16, so other shapes round otherwise.
    for one, other in ((found.pulls, expected.pulls), (found.own_gains, expected.own_gains)):
        np.testing.assert_allclose(one, other, rtol=0.05, atol=0.02 * np.abs(other).max())
    for one, other in zip(found._blocks, expected._blocks, strict=True):
        assert float((one - other).norm()) < 0.05 * float(other.norm())
    with scarce(model.network, 0), pytest.raises(AuditError, match="single row"):
        student.read(order)


@pytest.mark.parametrize(
    "message",
    [
        "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "To serve at least one request (3.5 GiB KV cache is needed, larger than available)",
        "Free memory on device cuda:0 (1/80 GiB) on startup is less than desired",
        "CUDA out of memory. Tried to allocate 9 GiB.",
    ],
)
def test_an_engine_that_finds_too_little_memory_says_what_to_do(message: str) -> None:
    with pytest.raises(AuditError, match="bfloat16, a smaller max_model_len") as caught:  # noqa: SIM117
        with _one_line("model: vLLM cannot start"):
            raise ValueError(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("failure", FAILURES)
def test_memory_that_runs_out_anywhere_else_is_one_line(
    failure: Failure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from audit.cli import main as command_line

    def run(*_arguments: Any, **_options: Any) -> None:
        raise failure()

    monkeypatch.setattr(command_line.cli, "main", run)
    with pytest.raises(SystemExit) as caught:
        command_line.main([])
    assert caught.value.code == ExitCode.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("audit: memory ran out: nothing was decided")
