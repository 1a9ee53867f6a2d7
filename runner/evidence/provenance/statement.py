"""Validate an in-toto statement with the library of the attestation framework."""

from __future__ import annotations

from typing import Any

# Generated from protobuf, without types.
from google.protobuf import json_format  # type: ignore[import-untyped]
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]


def validate_statement(statement: dict[str, Any]) -> None:
    """Check the fields of a statement with a SLSA v1 provenance and their types; unknown ones are errors.

    Raises:
        ValueError: the statement is invalid.
    """
    try:
        message = json_format.ParseDict(statement, statement_pb2.Statement())
        json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())
    except (json_format.ParseError, KeyError) as problem:
        raise ValueError(f"this is not an in-toto statement with a SLSA provenance: {problem}") from problem
    Statement.copy_from_pb(message).validate()
