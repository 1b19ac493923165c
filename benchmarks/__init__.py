"""Measurements beside other libraries and plain loops, as ratios of contestants in one process.

``python -m benchmarks`` measures the table of `docs/benchmarks.md`: one script a row in `rows`,
what several rows share in `works`, records, runner, page and plot in `table`. The other modules
are scripts by themselves: ``python -m benchmarks.serving``.
"""
