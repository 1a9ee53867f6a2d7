"""The types that `Runner` takes and returns, for annotations. Importing this module imports numpy."""

from __future__ import annotations

from runner.deliver.run import Result
from runner.evidence.check.run import CheckReport
from runner.evidence.provenance.verify import ProvenanceReport
from runner.proof.match import MatchReport
from runner.proof.rebuild import Proof
from runner.recipes.settings import Nms, Settings
from runner.tflite.diff import ModelDiff, Verdict
from runner.tflite.rewrite import Normalized
from runner.tflite.summary import Summary
from runner.tflite.verify import Verification

__all__ = [
    "CheckReport",
    "MatchReport",
    "ModelDiff",
    "Nms",
    "Normalized",
    "Proof",
    "ProvenanceReport",
    "Result",
    "Settings",
    "Summary",
    "Verdict",
    "Verification",
]
