"""Files of ``torch.export``, read without running anything that they hold.

Every part of a file is compared with a list of what may be there: members of the archive, tensors,
operations, structures, sizes. PyTorch gets an archive written anew from what passed. What a graph
file of ours may hold is decided in :mod:`graphprog.ir.graph_file`, whose lists are used here too.
"""

from __future__ import annotations
