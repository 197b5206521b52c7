"""Results that were never measured, for tests of what is made of them."""

from __future__ import annotations

from bench.results import Environment, Measurement, Results, Values


def measurement(
    workload: str = "single",
    variant: str = "one core",
    peer: str = "lockring",
    *,
    round_: int = 0,
    note: str = "",
    slices: list[Values] | None = None,
    figures: dict[str, float] | None = None,
    **more: float,
) -> Measurement:
    values = {**(figures or {}), **more}
    return Measurement(
        workload=workload,
        variant=variant,
        peer=peer,
        round=round_,
        values=values,
        slices=slices or [],
        note=note,
    )


def results(*measurements: Measurement, left_out: tuple[str, ...] = (), version: str = "1.0") -> Results:
    where = Environment(
        date="2026-01-02", machine="a machine", cores=2, python="3.11.7", versions={"lockring": version}
    )
    return Results(environment=where, measurements=list(measurements), left_out=list(left_out))
