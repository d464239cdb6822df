"""Number tries against probabilities worked out by hand and by brute force."""

import numpy as np
import pytest

from signatures.number_trie import NUMBERS, NumberTokens, build_number_trie

SEPARATOR = 1000


def digits(text: str) -> tuple[int, ...]:
    """A tokenizer that splits every digit, as SmolLM2's and Qwen's do."""
    return tuple(int(c) if c.isdigit() else SEPARATOR for c in text)


def whole(text: str) -> tuple[int, ...]:
    """A tokenizer with a token for every number of up to three digits, as Llama 3's."""
    number = text.lstrip(", ")
    ids = (SEPARATOR * 2,) * (len(text) - len(number))
    return (*ids, NUMBERS.index(number)) if number else ids


def test_numbers_are_the_1110_strings_of_the_literature():
    assert len(NUMBERS) == len(set(NUMBERS)) == 1110
    assert (NUMBERS[0], NUMBERS[9], NUMBERS[10], NUMBERS[109], NUMBERS[110], NUMBERS[-1]) == (
        "0",
        "9",
        "00",
        "99",
        "000",
        "999",
    )


def test_digit_tokens_need_111_contexts_and_whole_tokens_one():
    split = build_number_trie(digits)
    assert len(split.contexts) == 111
    assert split.contexts[0] == ()
    assert split.number_tokens is NumberTokens.SPLIT
    assert list(split.token_ids) == list(range(10))
    one = build_number_trie(whole)
    assert one.contexts == ((),)
    assert one.number_tokens is NumberTokens.WHOLE
    assert len(one.token_ids) == 1110


def test_joint_probability_is_the_product_along_the_path():
    trie = build_number_trie(digits)
    table = np.log(np.random.default_rng(0).dirichlet(np.ones(12), len(trie.contexts)))[:, :10]
    joint = trie.joint_log_probs(table.astype(np.float32))
    row = {context: index for index, context in enumerate(trie.contexts)}
    by_hand = table[row[()], 4] + table[row[4,], 0] + table[row[4, 0], 7]
    assert joint[NUMBERS.index("407")] == pytest.approx(by_hand, abs=1e-5)
    assert joint[NUMBERS.index("4")] == pytest.approx(table[row[()], 4], abs=1e-5)


def test_complete_numbers_are_disjoint_and_cover_what_starts_with_a_digit():
    trie = build_number_trie(digits)
    rng = np.random.default_rng(1)
    table = np.log(rng.dirichlet(np.ones(12), len(trie.contexts)))[:, :10]
    complete = np.exp(trie.complete_log_probs(table.astype(np.float32)))
    # Every list of numbers starts with a digit and stops somewhere: the events add up to that.
    assert complete.sum() == pytest.approx(np.exp(table[0]).sum(), abs=1e-5)
    stops_after_4 = 1 - np.exp(table[trie.contexts.index((4,))]).sum()
    assert complete[4] == pytest.approx(np.exp(table[0, 4]) * stops_after_4, abs=1e-6)


def test_whole_number_tokens_are_complete_as_they_are():
    trie = build_number_trie(whole)
    table = np.log(np.random.default_rng(2).dirichlet(np.ones(1110)))[None].astype(np.float32)
    np.testing.assert_allclose(trie.complete_log_probs(table), trie.joint_log_probs(table))


def test_a_tokenizer_that_merges_the_anchor_is_refused():
    def merging(text: str) -> tuple[int, ...]:
        return (hash(text),)

    with pytest.raises(ValueError, match="choose another anchor"):
        build_number_trie(merging)


def test_a_table_of_the_wrong_shape_is_refused():
    trie = build_number_trie(digits)
    with pytest.raises(ValueError, match="the trie needs"):
        trie.joint_log_probs(np.zeros((3, 10), dtype=np.float32))
