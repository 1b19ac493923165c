"""Patching: runs with values of another run at interfaces, and what gradients say of them.

Here belong maps of effects, measured or estimated, and the graph that takes changed values as
inputs.
"""
