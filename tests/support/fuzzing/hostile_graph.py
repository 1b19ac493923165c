"""A graph whose names are markup."""

from __future__ import annotations

import dataclasses

import graphprog as gp

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">'


def hostile(graph: gp.Graph) -> gp.Graph:
    """A graph whose name and first interface are markup; placeholders of the page are names too."""
    (_, first), *others = graph.sites.items()
    sites = {f"{HOSTILE}:out": first, **dict(others)}
    aliases = {"@graphs@": f"{HOSTILE}:out", "@title@": f"{HOSTILE}:out"}
    return dataclasses.replace(graph, name=HOSTILE, sites=sites, aliases=aliases)
