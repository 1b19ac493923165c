"""The page that shows graphs in a browser: graphs as JSON values, and the file around them.

The page itself is built from ``web/graph_page``; ``page.html`` is the built file.
"""

from __future__ import annotations
