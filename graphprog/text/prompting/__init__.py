"""What text a program puts around a query, and which tokens that is.

Templates, instructions, demonstrations and their choice, calibration. No graph is read here.
"""

from __future__ import annotations
