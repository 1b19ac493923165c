"""Backends: lower a reprogrammed model to something that runs elsewhere."""

from __future__ import annotations

if not __name__.startswith("graphprog."):
    raise ImportError(
        f"the folder {__name__}/ is imported as graphprog.{__name__}: under the bare name every "
        f"class in it would exist twice. Try: import graphprog.{__name__}"
    )

from graphprog.backends.distributions import warn_about_rival_onnxruntimes

warn_about_rival_onnxruntimes()
