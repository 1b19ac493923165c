"""Instruments: record, compare, probe, patch and steer the values at any interface.

Each works on a graph and on a compiled model, and needs nothing but the graph. Here belongs what
looks into a network, and the runs that change a value to see what it does; a change that is kept is
a manipulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.instruments.ablation import ablation as ablation
    from graphprog.instruments.compare import Comparison as Comparison
    from graphprog.instruments.divergence import first_divergence as first_divergence
    from graphprog.instruments.lens import Lens as Lens
    from graphprog.instruments.patching.attribute import grad_cam as grad_cam
    from graphprog.instruments.patching.effect_map import EffectMap as EffectMap
    from graphprog.instruments.probe import Probes as Probes
    from graphprog.instruments.recording import RecordedValue as RecordedValue
    from graphprog.instruments.steering.control_vectors import (
        read_control_vectors as read_control_vectors,
    )
    from graphprog.instruments.steering.control_vectors import (
        write_control_vectors as write_control_vectors,
    )
    from graphprog.instruments.steering.directions import Contrast as Contrast
    from graphprog.instruments.steering.strength import StrengthSearch as StrengthSearch
    from graphprog.utils.plots.attention_maps import plot_attention as plot_attention
    from graphprog.utils.plots.attention_maps import plot_places as plot_places

import_when_used(__name__)
