"""The four extraction methods by name, and the classes that seed notebooks use.

`METHODS["mean_diff"](pos, neg)` works on all layers at once;
`MeanDifferenceMethod().extract(pos, neg)["vector"]` on one layer or all, and gives tensors back.
"""

from __future__ import annotations

from collections.abc import Mapping

from traitlens.methods.fitting import Method
from traitlens.methods.gradient import GradientMethod as GradientMethod
from traitlens.methods.gradient import gradient
from traitlens.methods.ica import ICAMethod as ICAMethod
from traitlens.methods.ica import ica
from traitlens.methods.mean_diff import MeanDifferenceMethod as MeanDifferenceMethod
from traitlens.methods.mean_diff import mean_diff
from traitlens.methods.probe import ProbeMethod as ProbeMethod
from traitlens.methods.probe import probe

METHODS: Mapping[str, Method] = {
    "mean_diff": mean_diff,
    "probe": probe,
    "ica": ica,
    "gradient": gradient,
}
