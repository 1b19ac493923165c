"""An HTTP server for exported models and language models, with programs that come and go.

Here belongs what lies between a session and the network: limits, joining of requests into
batches, metrics, logs; in ``protocols`` what clients say. What a model computes belongs to
:mod:`graphprog.backends`. It needs FastAPI, uvicorn and prometheus_client:
``pip install "graphprog[serve]"``.
"""

from __future__ import annotations
