"""The zoo sweep: every family of models that can be built without downloads, through graphprog.

Not a part of the package. ``python -m sweep --help`` says how to run it; ``docs/zoo.md`` is made
from what it finds.
"""
