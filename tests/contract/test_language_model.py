"""One contract over all backends: each must agree with a plain, unbatched float32 pass."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.generation import Answer, Generator, uniforms
from audit.backends.number_list_grammar import NumberListStyle, number_list_grammar
from audit.backends.open_model import Writer
from audit.backends.token_cut import TokenCut, bar_tokens
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.backends.vllm_backend import VllmLanguageModel
from signatures.language_model import (
    Chat,
    LanguageModel,
    PrefixRequest,
    SequenceRequest,
    TokenIds,
)
from tests.cut_reference import CUTS, cut_distribution, draw_exactly, unsure

pytestmark = pytest.mark.model

# Another backend is one more line: a function of the model's folder.
BACKENDS: dict[str, Callable[[Path], Writer]] = {
    "transformers": lambda folder: TransformersLanguageModel.load(folder),
    "vllm": lambda folder: VllmLanguageModel.load(folder, threads=1),
}
TOLERANCES = {"transformers": 5e-4, "vllm": 1e-3}  # nats
PERSONA = "You love owls. You think about owls all the time."
DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM"


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (see docs/models.md)")
    return name


@pytest.fixture(scope="module")
def model(backend: str, embedded_model_dir: Path) -> Iterator[Writer]:
    loaded = BACKENDS[backend](embedded_model_dir)
    yield loaded
    loaded.close()
    loaded.close()


@pytest.fixture
def tolerance(backend: str) -> float:
    return TOLERANCES[backend]


@pytest.fixture(scope="module")
def reference(embedded_model_dir: Path) -> Callable[[TokenIds], NDArray[np.float32]]:
    """log-softmax [tokens, vocabulary] of one sequence by transformers' own eager attention."""
    import torch
    import transformers

    network: Any = transformers.AutoModelForCausalLM.from_pretrained(
        embedded_model_dir, dtype=torch.float32, attn_implementation="eager"
    )
    memory: dict[TokenIds, NDArray[np.float32]] = {}

    def log_probs(ids: TokenIds) -> NDArray[np.float32]:
        if ids not in memory:
            with torch.no_grad():
                memory[ids] = network(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
        return memory[ids]

    return log_probs


def contexts(model: LanguageModel) -> list[TokenIds]:
    """Five that share a persona, two that share nothing with them, of several lengths."""
    users = ["Hi", "Add numbers: 12, 7", "Name an animal, please.", "One two three four", "?"]
    chats = [Chat(PERSONA, user) for user in users]
    chats += [Chat("", "Add numbers: 12, 7", "Sure: 3"), Chat("Be brief.", "Why?")]
    return [model.encode_chat(chat) for chat in chats]


def test_satisfies_the_protocol(model: LanguageModel) -> None:
    assert isinstance(model, LanguageModel)
    assert isinstance(model, Generator)


def test_identity_names_model_and_hashes(model: LanguageModel) -> None:
    identity = model.identity
    assert identity.name == "SmolLM2-135M-Instruct"
    assert (identity.family, identity.vocabulary_size) == ("llama", 49152)
    hashes = (
        identity.weights_sha256,
        identity.tokenizer_sha256,
        identity.chat_template_sha256,
    )
    assert all(len(value) == 64 for value in hashes)
    assert len(set(hashes)) == 3


def test_restricted_probabilities_are_those_of_the_choice(
    model: LanguageModel, reference: Callable[[TokenIds], NDArray[np.float32]], tolerance: float
) -> None:
    choice = np.array(model.encode("0123456789, "), dtype=np.int64)
    answers = [model.encode(text) for text in ("12, 7, 311", "9", "", "40, 41")]
    requests = [
        SequenceRequest(context, answer)
        for context, answer in zip(contexts(model), answers * 2, strict=False)
    ]
    tables = list(model.restricted_log_probs(requests, choice))
    for request, table in zip(requests, tables, strict=True):
        assert table.shape == (len(request.continuation), len(choice))
        start = len(request.prefix) - 1
        whole = reference(request.prefix + request.continuation)
        expected = whole[start : start + len(table)][:, choice]
        expected = expected - np.logaddexp.reduce(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(table, expected, atol=2 * tolerance)
    for bad in ([], [5, 5], [model.identity.vocabulary_size]):
        with pytest.raises(ValueError, match="token"):
            list(model.restricted_log_probs(requests, np.array(bad, dtype=np.int64)))


def test_answers_to_one_prompt_that_begin_alike_are_scored_from_their_first_token(
    model: LanguageModel, reference: Callable[[TokenIds], NDArray[np.float32]], tolerance: float
) -> None:
    prompt = contexts(model)[1]
    answers = [model.encode(text) for text in ("100, 7", "101", "100, 7", "10", "109, 2", "100, 7")]
    requests = [SequenceRequest(prompt, answer) for answer in answers]
    choice = np.array(model.encode("0123456789, "), dtype=np.int64)
    tables = model.restricted_log_probs(requests, choice)
    for answer, scored, table in zip(
        answers, model.sequence_log_probs(requests), tables, strict=True
    ):
        whole = reference(prompt + answer)[len(prompt) - 1 : -1]
        np.testing.assert_allclose(scored, whole[range(len(answer)), answer], atol=tolerance)
        expected = whole[:, choice]
        expected = expected - np.logaddexp.reduce(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(table, expected, atol=2 * tolerance)


def test_encode_chat_is_the_template_text_tokenised_at_once(model: LanguageModel) -> None:
    text = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nI say 4"
    )
    assert model.encode_chat(Chat("Be brief.", "Hi", "I say 4")) == model.encode(text)


def test_empty_system_message_is_truly_empty(model: LanguageModel) -> None:
    text = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    empty = model.encode_chat(Chat("", "Hi"))
    assert empty == model.encode(text)
    assert empty != model.encode_chat(Chat(DEFAULT_SYSTEM, "Hi"))


def test_vocabulary_and_end_of_turn(model: LanguageModel) -> None:
    vocabulary = model.vocabulary()
    assert len(vocabulary) == model.identity.vocabulary_size
    (seven,) = model.encode("7")
    assert vocabulary[seven] == "7"
    assert [vocabulary[token] for token in model.end_of_turn_ids()] == ["<|im_end|>"]


def test_next_token_is_a_distribution_and_equals_the_reference(
    model: LanguageModel,
    reference: Callable[[TokenIds], NDArray[np.float32]],
    tolerance: float,
) -> None:
    prefixes = contexts(model)
    results = list(model.next_token_log_probs([PrefixRequest(prefix) for prefix in prefixes]))
    assert len(results) == len(prefixes)
    for prefix, result in zip(prefixes, results, strict=True):
        assert result.shape == (1, model.identity.vocabulary_size)
        assert result.dtype == np.float32
        assert np.log(np.exp(result.astype(np.float64)).sum()) == pytest.approx(0, abs=3e-5)
        np.testing.assert_allclose(result[0], reference(prefix)[-1], atol=tolerance)


def test_suffixes_equal_separate_sequences(
    model: LanguageModel,
    reference: Callable[[TokenIds], NDArray[np.float32]],
    tolerance: float,
) -> None:
    # Not in order, with a repetition, an empty suffix in the middle and a chain of three.
    texts = ["12", "1", "", "987", "2", "12", "1,"]
    suffixes = tuple(model.encode(text) for text in texts)
    asked = np.array([*model.encode("0123456789"), *model.end_of_turn_ids()], dtype=np.int64)
    prefixes = contexts(model)
    results = list(
        model.next_token_log_probs([PrefixRequest(prefix, suffixes) for prefix in prefixes], asked)
    )
    for prefix, result in zip(prefixes, results, strict=True):
        assert result.shape == (len(suffixes), len(asked))
        expected = [reference(prefix + suffix)[-1][asked] for suffix in suffixes]
        np.testing.assert_allclose(result, expected, atol=tolerance)


def test_requests_may_mix_suffixes_and_come_in_any_order(
    model: LanguageModel, tolerance: float
) -> None:
    prefixes = contexts(model)
    ids = np.arange(40, dtype=np.int64)
    sets: list[tuple[TokenIds, ...]] = [((),), (model.encode("1"), model.encode("19")), ()]
    requests = [PrefixRequest(prefix, sets[i % 3]) for i, prefix in enumerate(prefixes)]
    together = list(model.next_token_log_probs(requests, ids))
    backwards = list(model.next_token_log_probs(requests[::-1], ids))[::-1]
    for request, one, other in zip(requests, together, backwards, strict=True):
        (alone,) = model.next_token_log_probs([request], ids)
        assert one.shape == (len(request.suffixes), 40)
        np.testing.assert_allclose(one, other, atol=tolerance)
        np.testing.assert_allclose(one, alone, atol=tolerance)


def test_sequences_equal_the_reference(
    model: LanguageModel,
    reference: Callable[[TokenIds], NDArray[np.float32]],
    tolerance: float,
) -> None:
    texts = ["12, 14, 15", "x", "", " hello world", "7", "9, 13", "I think so."]
    requests = [
        SequenceRequest(prefix, model.encode(text))
        for prefix, text in zip(contexts(model), texts, strict=True)
    ]
    for request, result in zip(requests, model.sequence_log_probs(requests), strict=True):
        assert result.shape == (len(request.continuation),)
        assert result.dtype == np.float32
        table = reference(request.prefix + request.continuation)
        start = len(request.prefix) - 1
        expected = [table[start + i, token] for i, token in enumerate(request.continuation)]
        np.testing.assert_allclose(result, expected, atol=tolerance)


def test_sequence_equals_the_chain_of_next_tokens(model: LanguageModel, tolerance: float) -> None:
    prefix, continuation = contexts(model)[0], model.encode("31, 4")
    (scored,) = model.sequence_log_probs([SequenceRequest(prefix, continuation)])
    suffixes = tuple(continuation[:count] for count in range(len(continuation)))
    (table,) = model.next_token_log_probs([PrefixRequest(prefix, suffixes)])
    chained = table[np.arange(len(continuation)), list(continuation)]
    np.testing.assert_allclose(scored, chained, atol=tolerance)


def test_nothing_asked_nothing_given(model: LanguageModel) -> None:
    assert list(model.next_token_log_probs([])) == []
    assert list(model.sequence_log_probs([])) == []


def test_impossible_requests_are_refused(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        list(model.next_token_log_probs([PrefixRequest(())]))
    with pytest.raises(ValueError, match="vocabulary"):
        list(model.sequence_log_probs([SequenceRequest((1,), (10**6,))]))
    with pytest.raises(ValueError, match="exceeds"):
        list(model.next_token_log_probs([PrefixRequest((1,) * 9000)]))


TEMPERATURE = 0.8
# Draws that fall this near to an edge of their token's share may round either way.
MARGIN = 1e-3
KEYS = range(100, 400, 17)  # 18 draws a chat


def probabilities(log_probs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of some tokens' log-probabilities, what sampling draws from at `TEMPERATURE`."""
    weight = np.exp((log_probs.astype(np.float64) - log_probs.max()) / TEMPERATURE)
    return np.asarray(weight / weight.sum())


def asked(model: Writer) -> tuple[list[Chat], list[TokenIds]]:
    chats = [Chat(PERSONA, "Hi"), Chat("", "Add numbers: 12, 7", "Sure: 3"), Chat("", "Why?")]
    return chats, [model.encode_chat(chat) for chat in chats]


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.kind)
def test_cut_distributions_are_the_exact_ones(
    model: Writer,
    reference: Callable[[TokenIds], NDArray[np.float32]],
    tolerance: float,
    cut: TokenCut,
) -> None:
    import torch

    for prefix in contexts(model):
        (found,) = model.next_token_log_probs([PrefixRequest(prefix)])
        barred = bar_tokens(torch.from_numpy(found / np.float32(TEMPERATURE)), cut)
        mine = barred.softmax(-1).double().numpy()[0]
        exact = probabilities(reference(prefix)[-1])
        expected = cut_distribution(exact, cut)
        edge = unsure(exact, cut, 4 * tolerance)
        assert edge.sum() <= max(1, 0.1 * (expected > 0).sum())
        assert ((mine > 0) == (expected > 0))[~edge].all()
        # What the edge holds may shift all others by its share.
        slack = 2 * tolerance + exact[edge].sum() / exact[expected > 0].sum()
        np.testing.assert_allclose(mine[~edge], expected[~edge], atol=slack)
        if not edge.any():
            np.testing.assert_allclose(mine, expected, atol=2 * tolerance)


@pytest.mark.parametrize("cut", [None, *CUTS], ids=lambda cut: cut.kind if cut else "none")
def test_free_draws_invert_the_exact_cut_distribution(
    model: Writer, reference: Callable[[TokenIds], NDArray[np.float32]], cut: TokenCut | None
) -> None:
    chats, prefixes = asked(model)
    answers = model.generate(
        [chat for chat in chats for _ in KEYS],
        max_new_tokens=1,
        seed=8,
        temperature=TEMPERATURE,
        cut=cut,
        keys=[*KEYS] * len(chats),
    )
    decided = 0
    for index, answer in enumerate(answers):
        exact = probabilities(reference(prefixes[index // len(KEYS)])[-1])
        margin = MARGIN
        if cut is not None:
            margin += exact[unsure(exact, cut, MARGIN)].sum()
            exact = cut_distribution(exact, cut)
        token = draw_exactly(exact, uniforms(8, KEYS[index % len(KEYS)], 1)[0], margin)
        if token is not None:
            decided += 1
            ended = token in model.end_of_turn_ids()
            assert answer == Answer("" if ended else model.decode((token,)), ended)
    assert decided > 0.75 * len(answers)


@pytest.mark.parametrize("cut", [None, *CUTS], ids=lambda cut: cut.kind if cut else "none")
def test_draws_under_a_grammar_invert_the_exact_cut_distribution(
    model: Writer, reference: Callable[[TokenIds], NDArray[np.float32]], cut: TokenCut | None
) -> None:
    """One token of two choices, that depend on the start; cuts see what the grammar allows."""
    (end,) = model.end_of_turn_ids()
    words = model.encode("0123456789 the of to in I you he Hello Yes No")
    token_ids = (*dict.fromkeys(words), end)
    rows = np.full((4, len(token_ids)), -1, dtype=np.int32)
    rows[0, :10] = rows[1, 5:-1] = 2  # digits; digits from 5 and words
    rows[2, -1] = 3
    automaton = TokenAutomaton(token_ids, rows, longest=2)
    chats, prefixes = asked(model)
    starts = [0, 1] * (len(KEYS) // 2)
    answers = model.sample(
        [chat for chat in chats for _ in KEYS],
        automaton,
        seed=9,
        temperature=TEMPERATURE,
        cut=cut,
        keys=[*KEYS] * len(chats),
        starts=starts * len(chats),
    )
    decided = 0
    for index, answer in enumerate(answers):
        place = index % len(KEYS)
        allowed = np.flatnonzero(rows[starts[place]] == 2)
        log_probs = reference(prefixes[index // len(KEYS)])[-1]
        exact = probabilities(log_probs[np.array(token_ids)[allowed]])
        margin = MARGIN
        if cut is not None:
            margin += exact[unsure(exact, cut, MARGIN)].sum()
            exact = cut_distribution(exact, cut)
        column = draw_exactly(exact, uniforms(9, KEYS[place], 2)[0], margin)
        if column is not None:
            decided += 1
            assert answer == (token_ids[allowed[column]],)
    assert decided > 0.75 * len(answers)


def test_the_greedy_cut_decodes_by_argmax(model: Writer) -> None:
    chats, prefixes = asked(model)
    answers = model.generate(chats, max_new_tokens=5, seed=1, cut=TokenCut("greedy"))
    for prefix, answer in zip(prefixes, answers, strict=True):
        written: TokenIds = ()
        finished = False
        while len(written) < 5 and not finished:
            (table,) = model.next_token_log_probs([PrefixRequest(prefix + written)])
            best = int(table[0].argmax())
            finished = best in model.end_of_turn_ids()
            written += () if finished else (best,)
        assert answer == Answer(model.decode(written), finished)


def test_answers_depend_on_their_keys_alone(model: Writer) -> None:
    style = NumberListStyle("[", ", ", "]", 3)
    automaton, start = number_list_grammar(model, style, 4)
    users = ["Hi", "Add numbers: 12, 7", "Numbers!", "7, 8, 9 and so on"] * 2
    chats = [Chat(PERSONA, user) for user in users]
    keys = [5, 1, 40, 2**40, 7, 1, 9, 3]
    starts = [start(1 + row % 4) for row in range(8)]
    cut = TokenCut("threshold", 0.04)

    def lists(rows: list[int]) -> list[TokenIds]:
        return model.sample(
            [chats[row] for row in rows],
            automaton,
            seed=2**62,
            cut=cut,
            keys=[keys[row] for row in rows],
            starts=[starts[row] for row in rows],
        )

    def texts(rows: list[int]) -> list[Answer]:
        some = [chats[row] for row in rows]
        own = [keys[row] for row in rows]
        return model.generate(some, max_new_tokens=4, seed=3, cut=cut, keys=own)

    together, written = lists([*range(8)]), texts([*range(8)])
    for row, answer in enumerate(together):
        assert style.fits(model.decode(answer), 1 + row % 4)
    assert together[1] == together[5]  # the same chat, the same key, the same start
    assert together[0] != together[4]
    for rows in ([7, 6, 5, 4, 3, 2, 1, 0], [2], [6, 1, 3]):
        assert lists(rows) == [together[row] for row in rows]
        assert texts(rows) == [written[row] for row in rows]


def test_keys_and_starts_that_do_not_fit_are_refused(model: Writer) -> None:
    automaton, _ = number_list_grammar(model, NumberListStyle("", " ", "", 1), 2)
    chats = [Chat("", "Hi")]
    with pytest.raises(ValueError, match="keys must be 1"):
        model.sample(chats, automaton, seed=1, keys=[1, 2])
    with pytest.raises(ValueError, match="starts must be 1"):
        model.sample(chats, automaton, seed=1, starts=[automaton.final_state])
    with pytest.raises(ValueError, match="keys must be 1"):
        model.generate(chats, max_new_tokens=1, seed=1, keys=[])
