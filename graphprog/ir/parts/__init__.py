"""Parts of a graph: cuts between interfaces, and splits of about equal cost.

Code here selects operations; it computes nothing and inserts nothing.
"""

from __future__ import annotations
