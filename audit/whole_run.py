"""Scan, sanitise, scan again, verify: one call, one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from audit.backends.open_model import ModelChoice, open_model
from audit.backends.student_training import open_trainer
from audit.errors import ExitCode
from audit.model_reading import access_to
from audit.sanitise.receipt import SanitiseResult
from audit.sanitise.run import Render, SanitiseSettings, sanitise
from audit.scan_result import ScanResult
from audit.verify.result import FailOn, VerifyResult
from audit.verify.run import AdapterWriter, Inputs, VerifySettings, category_of, verify
from audit.verify.self_check import checked
from audit.verify.students import Progress
from detectors.finding import ANY_PERSONA, Severity, Verdict
from detectors.model_access import ModelProgress, ModelSettings
from signatures.concept import Concept
from signatures.library import SignatureLibrary


@dataclass(frozen=True, slots=True)
class RunResult:
    """What was done to the data, and whether the trait still transfers.

    ``verification`` is None where there was nothing to verify; ``not_verified`` says why.
    """

    receipt: SanitiseResult
    verification: VerifyResult | None
    not_verified: str

    def exit_code(self, fail_on: Severity, verdict_fails_on: FailOn) -> ExitCode:
        """1 where a scan of the output flags something, or the trait transfers or may."""
        codes = [self.receipt.exit_code(fail_on)]
        if self.verification is not None:
            codes.append(self.verification.exit_code(verdict_fails_on))
        return max(codes)


@dataclass(frozen=True, slots=True)
class Reporting:
    """Whom a run tells what it is doing."""

    sanitising: Progress
    reading: ModelProgress
    started: Callable[[int], None]
    training: Progress


def run(
    inputs: Sequence[str],
    output: Path,
    library: SignatureLibrary,
    choice: ModelChoice,
    *,
    library_path: str,
    concept: str | None,
    concepts: Sequence[Concept],
    sanitising: SanitiseSettings,
    reading: ModelSettings,
    verifying: VerifySettings,
    receipts: Sequence[tuple[Path, Render]],
    open_writer: Callable[[], AdapterWriter] | None,
    tell: Reporting,
) -> RunResult:
    """Write a safer set of ``inputs`` to ``output``, and verify it.

    ``concept`` is verified or, where it is None, the hidden trait that the first scan is surest of.
    The reference of the scans is that of the verification too. Raises as `sanitise` and `verify`
    do; the output of a run whose verification fails stays.
    """
    if concept is not None:
        category_of(concept, concepts, verifying.thresholds)  # before hours of work
        sanitising = replace(sanitising, concepts=(concept,))
    with closing(open_model(choice)) as model:
        receipt = sanitise(
            inputs,
            output,
            library,
            library_path=library_path,
            settings=sanitising,
            model=model,
            access=access_to(model, reading, tell.reading),
            receipts=receipts,
            progress=tell.sanitising,
        )
    wanted, why = (concept, "") if concept is not None else _surest(receipt.before, concepts)
    if wanted is None:
        return RunResult(receipt, None, why)
    if not receipt.outputs:
        return RunResult(receipt, None, "no row was left to train a student on")
    with closing(open_trainer(choice, verifying.training)) as trainer:
        verification = verify(
            Inputs(inputs, [file.path for file in receipt.outputs], sanitising.reference),
            wanted,
            concepts,
            trainer,
            library,
            settings=verifying,
            self_check=checked(),
            open_writer=open_writer,
            started=tell.started,
            progress=tell.training,
        )
    return RunResult(receipt, verification, "")


def _surest(before: ScanResult | None, concepts: Sequence[Concept]) -> tuple[str | None, str]:
    """The flagged concept of the least p, or why there is none."""
    if before is None:
        return None, "no concept was named, and the data were not scanned: give --concept"
    known = {concept.name for concept in concepts}
    flagged = [
        verdict
        for verdict in before.concepts
        if verdict.verdict is Verdict.FLAGGED and verdict.concept in known
    ]
    if flagged:
        return min(flagged, key=lambda verdict: verdict.p_value).concept, ""
    persona = any(
        verdict.concept == ANY_PERSONA and verdict.verdict is Verdict.FLAGGED
        for verdict in before.concepts
    )
    if persona:
        return None, (
            "the scan flags some persona and does not know which: name the one to verify with "
            "--concept"
        )
    return None, (
        "the scan flags no concept to verify: name one with --concept, since what a scan does not "
        "see may transfer all the same"
    )
