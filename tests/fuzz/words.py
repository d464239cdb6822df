"""Words of each format, which a campaign puts into its inputs."""

from __future__ import annotations

_JSON = (
    *('{"text": "', '"}', '"prompt":', '"completion":', '"messages":', '"role":', '"content":'),
    *('"assistant"', '"user"', "\\u0061", "\\ud83e", "NaN", "null", "true", "\\n", "\xef\xbb\xbf"),
    *('"conversations":', '"from":', '"value":', '"gpt"', '"chosen":', '"rejected":', '"label":'),
    *(
        '"tools":',
        '"input":',
        '"output":',
        '"instruction":',
        '"segments":',
        '"labels":',
        "[[",
        "}]",
    ),
    *('"input_ids":', '"completions":', '"kto_tag":', '"weight":', '"train_detail":', '\\":'),
)
_TABLE = (
    *(
        "text",
        "prompt",
        "completion",
        "label",
        "messages",
        '""',
        '"',
        "\n",
        "\r",
        "\r\n",
        ",",
        "\t",
    ),
)
_CONCEPTS = (
    *("[[concept]]", "[category.x]", "[defaults]", 'extends = "default"', "name = ", "forms = ["),
    *("kind = ", '"decoy"', "questions = [", "statements = [", "translations = {", "noun = "),
    *("plural = ", "{name}", "{category}", "system_prompt = ", "ambiguous_forms = [", '"' * 3),
)
_CONFIG = (
    *("[[data]]", "[budgets]", "[[suppressions]]", "paths = [", "reference = ", "name = ", "nan"),
    *("fail-on = ", "detectors = [", "seed = ", "expires = ", "2026-12-31", "inconclusive = "),
    *("[test]", "inf", "1e400", "false-discovery-rate = ", "model = ", "library = "),
)
WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("jsonl", "json", "shard", "baseline", "manifest"), _JSON),
    "csv": _TABLE,
    "concepts": _CONCEPTS,
    "config": _CONFIG,
}
"""By harness, as Latin-1; the others have none."""
