"""All rules by name, and `book.apply`, which applies a claim's rule."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

from cuttlefish.config.suggest import did_you_mean
from cuttlefish.config.validate import convert
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.interval import range_of
from cuttlefish.evidence.selection import Unlike
from cuttlefish.report.claims.rules import bench, composition, frontier, means, pairs, ranks
from cuttlefish.report.claims.rules.case import Case, Measure

RULES: dict[str, Callable[..., list[Measure]]] = {
    rule.__name__: rule
    for rule in (
        means.mean_over_seeds,
        means.largest_over_cells,
        means.variation_over_seeds,
        pairs.paired_difference,
        pairs.paired_quotient,
        frontier.frontier,
        ranks.ranks_settle,
        ranks.ranks_differ,
        ranks.ranks_agree,
        bench.step_saving,
        bench.profiled_k,
        bench.layer_speedup,
        composition.composed_speedup,
        composition.composed_share,
    )
}
OWN = ("name", "label", "accept", "needs", "paper", "reduced")
"""Keys of a rule that are not parameters of its function."""


def apply(spec: Mapping[str, Any] | Sequence[Mapping[str, Any]], case: Case) -> list[Measure]:
    """Return the measures of a claim's rule at the case's scale.

    Args:
        spec: One rule, or several that must all hold. A rule is {name, the function's parameters, and
            optionally label, accept and needs}; values under `paper` or `reduced` replace the rest at that
            scale.
    """
    rules = [spec] if isinstance(spec, Mapping) else list(spec)
    return [measure for rule in rules for measure in _apply(rule, case)]


def _apply(spec: Mapping[str, Any], case: Case) -> list[Measure]:
    given = {key: value for key, value in spec.items() if key not in ("paper", "reduced")}
    given |= dict(spec.get(case.scale) or {})
    rule = RULES.get(given.get("name", ""))
    if rule is None:
        name = given.get("name")
        raise CuttlefishError(f"{case.name}: there is no rule {name!r}{did_you_mean(name, RULES)}")
    own = replace(
        case,
        name=given.get("label", case.name),
        accept=range_of(given["accept"]) if "accept" in given else case.accept,
        needs=given.get("needs", case.needs),
    )
    parameters = {key: value for key, value in given.items() if key not in OWN}
    checked = _checked(rule, own, parameters)
    try:
        return rule(own, **checked)
    except Unlike as error:
        return [own.missing(str(error))]


def _checked(rule: Callable[..., list[Measure]], case: Case, given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the parameters to the types that the rule declares.

    Raises:
        CuttlefishError: A parameter is missing, unknown or of another type.
    """
    kinds = get_type_hints(rule)
    try:
        inspect.signature(rule).bind(case, **given)
        if "conditions" in kinds:  # passed on to `pairs`
            kinds = get_type_hints(pairs.pairs) | kinds
            more = {name: given[name] for name in given.keys() - inspect.signature(rule).parameters}
            inspect.signature(pairs.pairs).bind(case, [], [], **more)
    except TypeError as error:
        raise CuttlefishError(f"{case.name}: rule {rule.__name__} {error}") from None
    return {
        name: convert(value, kinds[name], f"{case.name}: {name} of {rule.__name__}")
        for name, value in given.items()
    }
