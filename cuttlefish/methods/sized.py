"""Base of methods whose size a comparison can fix: by a number of parameters, or by a run to match."""

from typing import Any

from cuttlefish.errors import CuttlefishError
from cuttlefish.methods.base import Context, Method
from cuttlefish.methods.target import Target, find_target, target_from_state, target_state


class SizedMethod(Method):
    """Method whose size is set by its own knob, or instead by `target_params` or `match`."""

    target: Target | None = None

    def prepare(self, context: Context) -> None:
        self.target = resolve_target(self.settings, context)
        super().prepare(context)

    def check_reachable(self, least: int, most: int) -> None:
        """Raise CuttlefishError for a target outside the sizes `least` to `most`, possible for this model."""
        if self.target is None or least <= self.target.params <= most:
            return
        nearest = most if self.target.params > most else least
        raise CuttlefishError(
            f"{self.name} cannot reach {self.target.params:,} parameters ({self.target.source}) with this "
            f"model: the nearest it can is {nearest:,}"
        )

    def with_target(self, fields: dict[str, Any], achieved: int) -> dict[str, Any]:
        """Return the record's fields, with target and achieved size if there is a target."""
        return fields if self.target is None else fields | {"target": self.target.report(achieved)}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | target_state(self.target)

    def load_state_dict(self, context: Context, state: dict[str, Any]) -> None:
        super().load_state_dict(context, state)
        self.target = target_from_state(state) or self.target


def resolve_target(settings: Any, context: Context) -> Target | None:
    """Return the target in `settings`; a resumed run keeps its saved one, even if the matched run changed."""
    kept = None if settings.match is None else target_from_state(context.saved())
    return kept or find_target(settings.target_params, settings.match)
