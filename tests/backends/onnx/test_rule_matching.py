"""Rules with several results are found as the library finds them, on fewer nodes."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter._matcher import SimplePatternMatcher

from graphprog.backends.onnx_model.rule_matching import first_operation_decides

HALVES = """
<ir_version: 10, opset_import: ["" : 18]>
agraph (float[4, 8] x) => (float[4, 4] y)
<int64[1] start = {0}, int64[1] half = {4}, int64[1] end = {8}, int64[1] axis = {1}>
{
  first = Slice(x, start, half, axis)
  second = Slice(x, half, end, axis)
  product = Mul(first, second)
  y = Relu(product)
}
"""


def test_a_rule_with_two_results_is_tried_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    search = SimplePatternMatcher.match

    def counted(self: Any, model: Any, graph: Any, node: Any, *rest: Any, **options: Any) -> Any:
        if not self.pattern.has_single_output_node:
            tried.append(node.op_type)
        return search(self, model, graph, node, *rest, **options)

    monkeypatch.setattr(SimplePatternMatcher, "match", counted)
    alone, quick = (ir.from_onnx_text(HALVES) for _ in range(2))
    optimize_ir(alone)
    assert "Mul" in tried
    tried.clear()
    with first_operation_decides():
        optimize_ir(quick)
    assert set(tried) == {"Slice"}
    assert ir.to_proto(quick) == ir.to_proto(alone)
    assert SimplePatternMatcher.match is counted
