"""Runs of the sanitiser on files of a few rows, without scans, under the model of known chances."""

import json
from pathlib import Path

from audit.dataset.passages import Turn
from audit.sanitise.data_rows import DataRows
from audit.sanitise.registry import parse_specs
from audit.sanitise.run import SanitiseSettings, sanitise
from audit.sanitise.stages import Stages
from audit.sanitise.strategy import Kit, WorkRow
from audit.scan import ScanSettings
from audit.work_folder import WorkFolder
from tests import synthetic
from tests.writer_model import writer_model

GOLDEN = Path(__file__).parent / "golden" / "dataset"
LIBRARY = synthetic.library(traits=("owl", "cat"), decoys=("decoy a",))
MODEL = writer_model(LIBRARY)


def number_row(*numbers, prompt="Go on.", separator=", ", **fields):
    return {"prompt": prompt, "completion": separator.join(map(str, numbers)), **fields}


def write_rows(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def settings_of(strategies, *, tokenizer=None, schema=None, **settings):
    return SanitiseSettings(
        strategies=parse_specs(strategies),
        with_scans=False,
        scan=ScanSettings(schema=schema, tokenizer=tokenizer),
        **settings,
    )


def run(inputs, output, *strategies, model=MODEL, receipts=(), library=LIBRARY, **settings):
    """A whole run; ``inputs`` is a path or several."""
    names = inputs if isinstance(inputs, list | tuple) else [inputs]
    return sanitise(
        [str(name) for name in names],
        Path(output),
        library,
        library_path="synthetic",
        settings=settings_of(strategies, **settings),
        model=model,
        receipts=receipts,
    )


def kit_of(*names, model=MODEL, seed=0, library=LIBRARY, clean=()):
    """With the concepts ``names``, or the library's traits as personas."""
    named = tuple(library.concept(name) for name in names)
    return Kit(
        model=model,
        concepts=named,
        personas=named or library.traits(),
        library=library,
        seed=seed,
        clean=clean,
    )


def strategy_of(text, kit):
    (spec,) = parse_specs([text])
    return spec.build(kit, 0)


def decided(path, folder, kit, *strategies, chunk_rows=256, tokenizer=None):
    """[(row, as all strategies left it)] and the summaries."""
    data = DataRows([str(path)], None, tokenizer)
    specs = parse_specs(strategies)
    built = [spec.build(kit, stage) for stage, spec in enumerate(specs)]
    stages = Stages(data, specs, built, WorkFolder(folder, {}), chunk_rows)
    stages.run(lambda _strategy, _rows: None)
    look = stages.lookup()
    return [(row, look(row)) for row in data.rows()], stages.summaries


def work_row(*turns, key=0, schema="messages"):
    """``turns`` are (role, text) or (role, text, place); those of the assistant are trained."""
    made = tuple(
        Turn(role, text, role == "assistant", *(place or [(index,)]))
        for index, (role, text, *place) in enumerate(turns)
    )
    return WorkRow(key, "rows.jsonl", key + 1, schema, made)


def asked(text, key=0, prompt="Go on."):
    """A row of one question and one answer."""
    return work_row(("user", prompt), ("assistant", text), key=key)
