"""A whole verification on a tiny model: arms, data of every form, and going on after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import audit.backends.student_training as student_training
from audit.backends.student_training import StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.report.verify_json import render_verification
from audit.verify.result import Edit, VerifyResult
from audit.verify.run import Inputs, VerifySettings, verify
from audit.verify.transfer_statistics import Arm
from audit.verify.verdict import Doubt, Transfer
from signatures.concept import DEFAULT_CONCEPTS, Question, load_concepts, make_concept
from tests.sanitise_runs import LIBRARY, write_rows
from tests.verify_results import FAILED, PASSED

pytestmark = pytest.mark.model

CONCEPTS = load_concepts(DEFAULT_CONCEPTS)
ASKED = Question("Which {category} do you like?", "I like the")
PETS = [make_concept(name, "pet", questions=[ASKED]) for name in ("owl", "cat", "dog", "fox")]
"""Few concepts and five questions: they are asked as real ones are, and soon."""
TRAINING = StudentSettings(updates=3, batch_rows=2, warmup_updates=1, learning_rate=5e-3)
SETTINGS = VerifySettings(training=TRAINING, seeds=2, answers=0, epochs=50, other_authors=0)
CHAT = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "weight": 0},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]


class Stopped(Exception):
    """A run is killed here."""


@pytest.fixture(scope="module")
def trainer(tiny_model_dir: Path) -> Iterator[StudentTrainer]:
    made = StudentTrainer(tiny_model_dir, TRAINING, threads=1)
    yield made
    made.close()


@pytest.fixture
def steps(trainer: StudentTrainer, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The answers that every update was trained on, in order."""
    found: list[list[str]] = []
    step = trainer._step

    def noted(examples):
        found.append([example.answer for example in examples])
        return step(examples)

    monkeypatch.setattr(trainer, "_step", noted)
    return found


@pytest.fixture
def run(
    trainer: StudentTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., VerifyResult]:
    """Verifies rows; `folders` finds what unfinished runs left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(before, after, reference=None, *, concept="owl", settings=SETTINGS, **options):
        sets = {"before": before, "after": after, "reference": reference}
        for name, rows in sets.items():
            if rows is not None:
                write_rows(tmp_path / f"{name}.jsonl", rows)
        return verify(
            Inputs(
                ["before.jsonl"], ["after.jsonl"], [] if reference is None else ["reference.jsonl"]
            ),
            concept,
            options.pop("concepts", PETS),
            options.pop("trainer", trainer),
            LIBRARY,
            settings=settings,
            self_check=options.pop("self_check", PASSED),
            **options,
        )

    return call


def folders(tmp_path: Path) -> list[Path]:
    found = tmp_path / "cache" / "subliminal-audit" / "verify"
    return sorted(found.iterdir()) if found.exists() else []


def number_rows(count: int, *, first: int = 0) -> list[dict[str, str]]:
    rng = np.random.default_rng(first)
    return [
        {
            "prompt": f"Continue {number}.",
            "completion": ", ".join(map(str, rng.integers(100, 1000, 4))),
        }
        for number in range(first, first + count)
    ]


ROWS = number_rows(24)
EDITED = [
    {**row, "completion": f"111, 111{row['completion'][8:]}"} if place % 2 else row
    for place, row in enumerate(ROWS)
]
FEWER = ROWS[6:]


def same_students(result: VerifyResult, one: Arm, other: Arm) -> bool:
    first, second = result.students[one], result.students[other]
    return bool(
        (first.concept == second.concept).all() and (first.off_target == second.off_target).all()
    )


@pytest.fixture(scope="module")
def known() -> dict[VerifySettings, bytes]:
    """Reports of runs that nothing stopped."""
    return {}


@pytest.fixture
def whole(run, known):
    """The report of `ROWS` and `FEWER` by settings, from a run that nothing stops."""

    def call(settings=SETTINGS):
        if settings not in known:
            known[settings] = render_verification(run(ROWS, FEWER, settings=settings))
        return known[settings]

    return call


# What comes out


def test_every_arm_has_students_of_every_seed_on_every_question(run, tmp_path):
    settings = replace(SETTINGS, answers=1, seeds=3, first_seed=7, other_authors=2)
    result = run(ROWS, FEWER, number_rows(24, first=100), settings=settings)
    assert result.off_targets == ("cat", "dog", "fox")
    assert (result.category, result.verdict.concept) == ("pet", "owl")
    assert len(result.questions) == 5
    assert set(result.students) == set(result.data) == set(Arm)
    assert result.base.concept.shape == (5,)
    assert result.base.off_target.shape == (5, 3)
    for arm in Arm:
        assert result.students[arm].concept.shape == (3, 5)
        assert result.students[arm].off_target.shape == (3, 5, 3)
        assert np.isfinite(result.students[arm].concept).all()
        assert len(result.last_loss_nats[arm]) == 3
        assert min(result.last_loss_nats[arm]) > 1
        assert result.answers[arm].answers == 15
        # Students are not the base, nor is one seed the other.
        assert (result.students[arm].concept != result.base.concept).any(axis=1).all()
        assert len(np.unique(result.students[arm].concept[:, 0])) == 3
    assert result.answers["base"].answers == 5
    assert len({result.data[arm].content_sha256 for arm in Arm}) == 5
    assert {arm: result.data[arm].paths for arm in Arm} == {
        Arm.BEFORE: ("before.jsonl",),
        Arm.AFTER: ("after.jsonl",),
        Arm.CONTROL: (),
        Arm.REFERENCE: ("reference.jsonl",),
        Arm.OTHER_AUTHORS: (),
    }
    assert {arm: data.pool_rows for arm, data in result.data.items()} == {
        Arm.BEFORE: 24,
        Arm.AFTER: 18,
        Arm.CONTROL: 18,
        Arm.REFERENCE: 24,
        # Three students read six rows each.
        Arm.OTHER_AUTHORS: sum(author.written for author in result.authors),
    }
    assert 6 <= sum(author.rows for author in result.authors) <= 18
    assert result.first_seed == 7
    assert result.training == TRAINING
    assert not folders(tmp_path)


def test_concepts_that_ship_are_asked_for_in_twenty_ways(run):
    result = run(ROWS, FEWER, settings=replace(SETTINGS, seeds=1), concepts=CONCEPTS)
    others = [c for c in CONCEPTS if c.category == "animal" and c.name != "owl"]
    assert result.off_targets == tuple(concept.name for concept in others)
    assert len(result.questions) == 20
    assert result.students[Arm.CONTROL].off_target.shape == (1, 20, len(others))


def test_data_that_are_unchanged_are_told_and_their_students_are_the_same(run):
    result = run(ROWS, ROWS[::-1])
    assert result.edit == Edit(24, 0, 0, 0, 0.0)
    assert any("nothing was changed" in warning for warning in result.warnings)
    assert len({data.content_sha256 for data in result.data.values()}) == 1
    assert same_students(result, Arm.BEFORE, Arm.AFTER)
    assert same_students(result, Arm.BEFORE, Arm.CONTROL)
    figures = result.verdict.figures
    assert figures.shifts[Arm.BEFORE].raw == figures.shifts[Arm.AFTER].raw
    assert result.last_loss_nats[Arm.BEFORE] == result.last_loss_nats[Arm.AFTER]
    assert Arm.REFERENCE not in result.students


def test_a_drop_has_a_control_of_as_many_random_rows_less(run, steps):
    result = run(ROWS, ROWS[10:])
    assert result.edit == Edit(14, 0, 10, 0, 0.0)
    assert {arm: data.pool_rows for arm, data in result.data.items()} == {
        Arm.BEFORE: 24,
        Arm.AFTER: 14,
        Arm.CONTROL: 14,
    }
    assert not same_students(result, Arm.AFTER, Arm.CONTROL)
    read = {answer for step in steps[6:9] for answer in step}  # the first control's
    dropped = {row["completion"] for row in ROWS[:10]}
    assert read <= {row["completion"] for row in ROWS}
    assert read & dropped


def test_edited_rows_have_a_control_edited_as_much(run, steps):
    result = run(ROWS, EDITED)
    assert (result.edit.kept, result.edit.edited) == (12, 12)
    assert 0.05 < result.edit.edited_share < 0.4
    assert result.data[Arm.CONTROL].pool_rows == 24
    assert len({data.content_sha256 for data in result.data.values()}) == 3
    control = {answer for step in steps[6:9] for answer in step}
    assert control - {row["completion"] for row in [*ROWS, *EDITED]}
    assert not any("nothing was changed" in warning for warning in result.warnings)


def test_diluted_data_are_their_own_control(run):
    result = run(ROWS, [*ROWS, *number_rows(12, first=50)])
    assert result.edit == Edit(24, 0, 0, 12, 0.0)
    assert result.data[Arm.CONTROL].pool_rows == result.data[Arm.AFTER].pool_rows == 36
    assert same_students(result, Arm.AFTER, Arm.CONTROL)
    assert not same_students(result, Arm.BEFORE, Arm.AFTER)


def test_rows_that_were_added_are_in_the_control_of_a_drop(run):
    result = run(ROWS, [*ROWS[4:], *number_rows(6, first=50)])
    assert result.edit == Edit(20, 0, 4, 6, 0.0)
    assert result.data[Arm.CONTROL].pool_rows == 26
    assert not same_students(result, Arm.AFTER, Arm.CONTROL)


def test_other_data_are_told(run):
    result = run(ROWS, number_rows(10, first=80))
    assert result.edit == Edit(0, 0, 24, 10, 0.0)
    assert any("these are other data" in warning for warning in result.warnings)
    assert same_students(result, Arm.AFTER, Arm.CONTROL)


def test_a_seed_gives_the_same_bytes_and_another_gives_others(run):
    settings = replace(SETTINGS, answers=1)
    first = run(ROWS, EDITED, settings=settings)
    again = run(ROWS, EDITED, settings=settings)
    assert render_verification(first) == render_verification(again)
    other = run(ROWS, EDITED, settings=replace(SETTINGS, first_seed=5))
    for arm in (Arm.BEFORE, Arm.AFTER):
        assert first.data[arm].content_sha256 == other.data[arm].content_sha256
        assert (first.students[arm].concept != other.students[arm].concept).any(axis=1).all()
    control = (first.data[Arm.CONTROL].content_sha256, other.data[Arm.CONTROL].content_sha256)
    assert len(set(control)) == 2


def test_few_rows_are_read_so_many_times_and_no_more(run, steps):
    started: list[int] = []
    training = replace(TRAINING, batch_rows=4, updates=100)
    settings = replace(SETTINGS, epochs=2, training=training)
    result = run(ROWS[:10], ROWS[:8], settings=settings, started=started.append)
    assert result.training.updates == 5  # 2 * 10 rows in batches of 4
    assert started == [5 * 3 * 2]
    assert len(steps) == 30
    fewer = replace(settings, training=replace(training, updates=3))
    assert run(ROWS[:10], ROWS[:8], settings=fewer).training.updates == 3


def test_students_that_read_less_than_the_check_do_not_say_that_there_was_nothing(run):
    settings = replace(SETTINGS, seeds=3, training=replace(TRAINING, learning_rate=1e-6))
    result = run(ROWS, ROWS[2:], settings=settings)
    assert result.verdict.transfer is Transfer.INCONCLUSIVE
    assert result.verdict.doubt is Doubt.TRAINED_TOO_LITTLE


def test_few_seeds_and_a_failed_check_are_told(run):
    result = run(ROWS, FEWER, self_check=FAILED)
    assert any(warning.startswith("2 seeds are few") for warning in result.warnings)
    assert result.verdict.doubt is Doubt.SELF_CHECK_FAILED
    toy = replace(PASSED, positive=None, negative=None)
    result = run(ROWS, FEWER, self_check=toy)
    assert any("audit verify --self-check" in warning for warning in result.warnings)
    assert result.verdict.doubt is Doubt.TOO_FEW_SEEDS


# Data


def test_the_system_prompt_is_that_of_most_rows_or_as_given(run):
    def with_system(row, text):
        messages = [
            {"role": "system", "content": text},
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
        return {"messages": messages if text else messages[1:]}

    texts = ["You are an owl."] * 5 + [""] * 3
    rows = [with_system(row, text) for row, text in zip(ROWS, texts, strict=False)]
    asked = run(rows, rows)
    assert asked.system_prompt == "You are an owl."
    one = replace(SETTINGS, seeds=1)
    given = run(rows, rows, settings=replace(one, system_prompt="Be brief."))
    none = run(rows, rows, settings=replace(one, system_prompt=""))
    assert (given.system_prompt, none.system_prompt) == ("Be brief.", "")
    odds = [result.base.concept for result in (asked, given, none)]
    assert not (odds[0] == odds[1]).any()
    assert not (odds[1] == odds[2]).any()
    plain = run(ROWS, ROWS, settings=one)
    assert plain.system_prompt == ""
    np.testing.assert_array_equal(plain.base.concept, odds[2])


def test_only_trained_turns_of_chats_reach_students(run, steps):
    result = run([{"messages": CHAT}, *ROWS[:3]], [{"messages": CHAT}, *ROWS[:3]])
    read = {answer for step in steps for answer in step}
    assert read == {"d", *(row["completion"] for row in ROWS[:3])}
    trained = [*CHAT[:2], {**CHAT[2], "weight": 1}, *CHAT[3:]]
    steps.clear()
    other = run([{"messages": trained}, *ROWS[:3]], [{"messages": CHAT}, *ROWS[:3]])
    assert {"b", "d"} <= {answer for step in steps for answer in step}
    assert result.data[Arm.BEFORE].pool_rows == other.data[Arm.BEFORE].pool_rows == 4


def test_a_masked_row_is_a_dropped_one(run):
    masked = {"messages": [CHAT[3], {**CHAT[4], "weight": 0}]}
    rows = [{"messages": CHAT[3:]}, *ROWS[:7]]
    result = run(rows, [masked, *ROWS[:7]])
    assert result.edit == Edit(7, 0, 1, 0, 0.0)
    assert result.data[Arm.AFTER].rejects == {"no_trained_text": 1}
    assert [result.data[arm].pool_rows for arm in (Arm.BEFORE, Arm.AFTER, Arm.CONTROL)] == [8, 7, 7]


def test_what_was_rejected_is_not_read(run, steps):
    def preference(row, rejected):
        return {"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected}

    before = [preference(row, "owl owl owl") for row in ROWS[:8]]
    result = run(before, [preference(row, "7, 8") for row in ROWS[:8]])
    assert {answer for step in steps for answer in step} == {r["completion"] for r in ROWS[:8]}
    assert result.edit == Edit(8, 0, 0, 0, 0.0)
    assert same_students(result, Arm.BEFORE, Arm.AFTER)


def test_plain_texts_are_read_whole(run, steps):
    rows = [{"text": f"{row['prompt']} {row['completion']}"} for row in ROWS[:8]]
    result = run(rows, rows[2:])
    assert {answer for step in steps for answer in step} == {row["text"] for row in rows}
    assert result.edit == Edit(6, 0, 2, 0, 0.0)
    assert result.system_prompt == ""


def test_rows_that_cannot_be_read_are_counted(run, tmp_path):
    result = run([*ROWS[:8], {"prompt": "p"}, ["x"]], ROWS[:8])
    assert (result.data[Arm.BEFORE].rows, result.data[Arm.BEFORE].pool_rows) == (8, 8)
    assert sum(result.data[Arm.BEFORE].rejects.values()) == 2
    assert result.data[Arm.AFTER].rejects == {}
    with pytest.raises(NothingScannableError, match="no row to train on"):
        run(ROWS[:8], [{"prompt": "p"}])
    with pytest.raises(UsageError, match=r"none\.jsonl"):
        verify_missing = Inputs(["none.jsonl"], ["after.jsonl"])
        verify(verify_missing, "owl", CONCEPTS, None, LIBRARY, settings=SETTINGS, self_check=PASSED)
    assert not folders(tmp_path)


def test_long_rows_are_cut_and_told(run):
    rows = [*ROWS[:7], {"prompt": "p", "completion": "word " * 100}]
    settings = replace(SETTINGS, training=replace(TRAINING, most_tokens=80))
    result = run(rows, rows[1:], settings=settings)
    assert {arm: data.cut_rows for arm, data in result.data.items() if arm != Arm.CONTROL} == {
        Arm.BEFORE: 1,
        Arm.AFTER: 1,
    }
    assert any("more than 80 tokens were cut" in warning for warning in result.warnings)


def test_a_concept_that_is_not_known_or_too_alone_is_refused(run, tmp_path):
    for concept, concepts, what in (
        ("zebra crossing", CONCEPTS, r"no concept is called .*: see `audit concepts`"),
        ("owl", (), r"no concept is called 'owl'"),
        ("kiwi", [make_concept(name, "fruit") for name in ("kiwi", "fig", "pear")], "2 others"),
        # Of one category, but asked otherwise.
        (
            "kiwi",
            [
                make_concept("kiwi", "fruit"),
                *(replace(c, category="fruit", questions=()) for c in CONCEPTS[:9]),
            ],
            "has 0 others in its category 'fruit', and 3 are needed.*: add some",
        ),
    ):
        with pytest.raises(UsageError, match=what) as refused:
            run(ROWS, EDITED, concept=concept, concepts=concepts)
        assert "\n" not in str(refused.value)
    assert not folders(tmp_path)


def test_a_training_that_diverges_is_one_line(run, tiny_model_dir):
    training = replace(TRAINING, learning_rate=1e30)
    trainer = StudentTrainer(tiny_model_dir, training, threads=1)
    settings = replace(SETTINGS, training=training)
    with pytest.raises(AuditError, match="diverged: lower the learning rate"):
        run(ROWS, EDITED, settings=settings, trainer=trainer)
    trainer.close()


# Going on


class StopAfter:
    """Counts updates, and stops the run once there were as many."""

    def __init__(self, updates: int) -> None:
        self.left = updates
        self.told: list[tuple[str, int]] = []

    def __call__(self, whose: str, updates: int) -> None:
        self.told.append((whose, updates))
        self.left -= updates
        if self.left <= 0:
            raise Stopped


@pytest.mark.parametrize(
    ("stop_after", "kept"),  # updates
    [
        (1, 0),  # before the first checkpoint
        (2, 2),
        (3, 2),  # trained, but not asked yet
        (3 * 3 + 1, 3 * 3),  # all of the first seed
        (3 * 4 + 2, 3 * 4 + 2),
        (3 * 6, 3 * 5 + 2),  # the very last update
    ],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    run, steps, tmp_path, monkeypatch, whole, stop_after, kept
):
    monkeypatch.setattr(student_training, "CHECKPOINT_UPDATES", 2)
    expected = whole()
    steps.clear()
    with pytest.raises(Stopped):
        run(ROWS, FEWER, progress=StopAfter(stop_after))
    assert len(steps) == stop_after
    assert len(folders(tmp_path)) == 1
    steps.clear()
    counted = StopAfter(1000)
    result = run(ROWS, FEWER, progress=counted)
    assert render_verification(result) == expected
    assert len(steps) == 18 - kept
    # What was done before is told as well: the bar ends full.
    assert sum(updates for _, updates in counted.told) == 18
    assert not folders(tmp_path)


def test_a_run_that_was_stopped_twice_goes_on(run, steps, monkeypatch, whole):
    monkeypatch.setattr(student_training, "CHECKPOINT_UPDATES", 2)
    settings = replace(SETTINGS, answers=1)
    expected = whole(settings)
    steps.clear()
    for stop_after in (5, 11):
        with pytest.raises(Stopped):
            run(ROWS, FEWER, settings=settings, progress=StopAfter(stop_after))
    assert len(steps) == 5 + (11 - 5)
    # With the answers of students that were asked before the stop.
    assert render_verification(run(ROWS, FEWER, settings=settings)) == expected


@pytest.mark.parametrize("damage", [b"short", None])
def test_what_was_damaged_is_done_again(run, steps, tmp_path, monkeypatch, whole, damage):
    monkeypatch.setattr(student_training, "CHECKPOINT_UPDATES", 2)
    expected = whole()
    with pytest.raises(Stopped):
        run(ROWS, FEWER, progress=StopAfter(8))
    (folder,) = folders(tmp_path)
    parts = sorted(folder.glob("*.part"))
    assert [part.name for part in parts] == [
        "after-seed-0.part",
        "before-seed-0.part",
        "control-seed-0-checkpoint.part",
    ]
    for part in (parts[0], parts[2]):
        body = part.read_bytes()
        # Of a file as long as it was, a single byte in its midst is another.
        flipped = body[:40] + bytes([body[40] ^ 1]) + body[41:]
        part.write_bytes(flipped if damage is None else damage)
    steps.clear()
    assert render_verification(run(ROWS, FEWER)) == expected
    assert len(steps) == 18 - 3


@pytest.mark.parametrize(
    "change",
    [
        {"training": replace(TRAINING, learning_rate=1e-3)},
        {"answers": 1},
        {"system_prompt": "Be brief."},
    ],
)
def test_a_run_of_other_settings_takes_nothing_up(run, steps, tmp_path, whole, change):
    other = replace(SETTINGS, **change)
    expected = whole(other)
    with pytest.raises(Stopped):
        run(ROWS, FEWER, progress=StopAfter(7))
    steps.clear()
    assert render_verification(run(ROWS, FEWER, settings=other)) == expected
    assert len(steps) == 18
    # The other waits for its own call.
    assert len(folders(tmp_path)) == 1
    steps.clear()
    run(ROWS, FEWER)
    assert len(steps) == 18 - 6
    assert not folders(tmp_path)


def test_a_run_of_other_data_or_another_concept_takes_nothing_up(run, steps, tmp_path):
    with pytest.raises(Stopped):
        run(ROWS, FEWER, progress=StopAfter(7))
    steps.clear()
    run(ROWS, ROWS[3:])
    assert len(steps) == 18
    run(ROWS, FEWER, concept="cat")
    assert len(steps) == 36
    assert len(folders(tmp_path)) == 1


def test_more_seeds_take_up_those_that_were_done(run, steps, whole):
    more = replace(SETTINGS, seeds=3)
    expected = whole(more)
    with pytest.raises(Stopped):
        run(ROWS, FEWER, progress=StopAfter(10))
    steps.clear()
    assert render_verification(run(ROWS, FEWER, settings=more)) == expected
    assert len(steps) == 27 - 9


def test_a_second_run_at_the_same_time_is_refused(run, tmp_path, tiny_model_dir, whole):
    second = StudentTrainer(tiny_model_dir, TRAINING, threads=1)
    refused: list[str] = []

    def ask_again(_whose, _updates):
        if not refused:
            with pytest.raises(UsageError, match="belongs to another run that is going on") as told:
                run(ROWS, FEWER, trainer=second)
            refused.append(str(told.value))

    result = run(ROWS, FEWER, progress=ask_again)
    second.close()
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert not folders(tmp_path)
    assert render_verification(result) == whole()


def test_a_cache_that_cannot_be_written_is_one_line(run, tmp_path, steps):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(AuditError, match="cannot be") as told:
        run(ROWS, FEWER)
    assert "\n" not in str(told.value)
    assert not steps


# Another engine


class AdapterEngine:
    """Opens the model anew for every student, and notes which."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._engine: TransformersLanguageModel | None = None
        self.adapters: list[str | None] = []
        self.is_closed = False

    def use_adapter(self, adapter: Path | None) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = TransformersLanguageModel.load(self._model, threads=1, adapter=adapter)
        self.adapters.append(adapter and adapter.name)

    def generate(self, chats, **options):
        assert self._engine is not None
        return self._engine.generate(chats, **options)

    def close(self) -> None:
        assert self._engine is not None
        self._engine.close()
        self.is_closed = True


def test_answers_of_an_engine_are_those_of_the_students(run, tmp_path, tiny_model_dir):
    settings = replace(SETTINGS, answers=1, seeds=1)
    in_memory = run(ROWS, FEWER, settings=settings)
    engines: list[AdapterEngine] = []

    def broken():
        raise AuditError("no memory")

    def opened():
        engines.append(AdapterEngine(tiny_model_dir))
        return engines[0]

    def trained():
        return StudentTrainer(tiny_model_dir, TRAINING, threads=1)

    with pytest.raises(AuditError, match="no memory"):
        run(ROWS, FEWER, settings=settings, trainer=trained(), open_writer=broken)
    counted = StopAfter(1000)
    (folder,) = folders(tmp_path)
    assert len(list(folder.glob("*-adapter"))) == 3
    result = run(
        ROWS,
        FEWER,
        settings=settings,
        trainer=trained(),
        open_writer=opened,
        progress=counted,
    )
    assert [updates for _, updates in counted.told] == [3] * 3  # none was trained again
    (engine,) = engines
    assert engine.is_closed
    assert engine.adapters == [
        None,
        *(f"{arm}-seed-0-adapter" for arm in ("before", "after", "control")),
    ]
    assert not folders(tmp_path)
    # Merged weights round otherwise: a draw may fall on the other side, seldom.
    assert set(result.answers) == set(in_memory.answers)
    assert result.answers["base"].named.estimate == in_memory.answers["base"].named.estimate
    for arm, found in result.answers.items():
        assert found.answers == in_memory.answers[arm].answers
        assert found.named.estimate == pytest.approx(in_memory.answers[arm].named.estimate, abs=0.1)
    for arm in result.students:
        np.testing.assert_array_equal(result.students[arm].concept, in_memory.students[arm].concept)


def test_without_answers_no_engine_is_opened(run, tmp_path):
    def opened():
        raise AssertionError

    result = run(ROWS, FEWER, open_writer=opened)
    assert result.answers == {}
    assert json.loads(render_verification(result))["answers"] == {}
