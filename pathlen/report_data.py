"""A report as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlen.report import Report
    from pathlen.report_layers import LayerRow, Number


def report_record(report: Report) -> dict[str, Any]:
    """See `Report.to_dict`."""
    record: dict[str, Any] = {
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


def entry(name: str, value: int | Number) -> dict[str, Any]:
    """Give a number as the entries of a record that stand for it: a Fraction has two."""
    if isinstance(value, Fraction):
        exact = f"{digits(value.numerator)}/{digits(value.denominator)}"
        return {name: float(value), f"{name}_exact": exact}
    return {name: value}


def digits(value: int) -> str:
    """Write an integer of any size in decimal.

    ``str`` refuses integers of more than 4300 digits by default; path counts have more.
    """
    return format(Decimal(value), "f")


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
