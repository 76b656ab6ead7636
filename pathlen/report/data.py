"""A report as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from pathlen.show.names import digits, entry, weighted_name

if TYPE_CHECKING:
    from pathlen.report.layers import LayerRow
    from pathlen.report.report import Report


SCHEMA_VERSION = 1
"""Version of the record: increased when an entry is removed, renamed or given another meaning."""


def report_record(report: Report) -> dict[str, Any]:
    """See `Report.to_dict`."""
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "path_count": digits(report.path_count),
        "log10_path_count": report.log10_path_count,
        **entry("average_path_length", report.average_path_length),
        **entry("normalized_average_path_length", report.normalized_average_path_length),
    }
    if report.magnitude_average_path_length is not None:
        record |= entry("magnitude_average_path_length", report.magnitude_average_path_length)
        record["log10_magnitude"] = report.log10_magnitude
    if report.dead_units:
        record["dead_units"] = [dataclasses.asdict(row) for row in report.dead_units]
    record |= {
        **entry("longest_path", report.longest_path),
        **entry("shortest_path", report.shortest_path),
        "num_units": report.num_units,
        "num_active": report.num_active,
        **entry("effective_width", report.effective_width),
        "width_profile": list(report.width_profile),
        "layers": [_row_record(row) for row in report.layers],
        "status": report.status,
        "causes": list(report.causes),
        "tracer": report.tracer,
        "backend": report.backend,
        "seconds": dict(report.seconds),
    }
    return record


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `Report.to_json` writes.

    The same is in the file `report.schema.json` of the package; docs/exports.md tells the versions.
    """
    text = (
        resources.files("pathlen.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    schema: dict[str, Any] = json.loads(text)
    return schema


def layer_columns(report: Report) -> dict[str, list[Any]]:
    """The table of layers as columns, under the names of `Report.to_dict`; Fractions as floats.

    A column "dead" tells how many units weights of 0 cut off, which "units" does not count.
    """
    dead = {row.layer: len(row.indices) for row in report.dead_units}
    rows = report.layers
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows]
        for name in ("name", "operation", "units", "active")
    }
    columns["dead"] = [dead.get(row.name, 0) for row in rows]
    for weighting in report.weightings:
        name = weighted_name(weighting, "contribution")
        columns[name] = [float(getattr(row, name)) for row in rows]
    columns["activation"] = [row.activation for row in rows]
    return columns


def _row_record(row: LayerRow) -> dict[str, Any]:
    """Give a layer's row as plain data."""
    record = {
        "name": row.name,
        "operation": row.operation,
        "units": row.units,
        "active": row.active,
        **entry("contribution", row.contribution),
        **entry("normalized_contribution", row.normalized_contribution),
    }
    if row.magnitude_contribution is not None:
        record |= entry("magnitude_contribution", row.magnitude_contribution)
    return {**record, "activation": row.activation}
