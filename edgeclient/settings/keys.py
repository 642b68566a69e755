"""What may be set: a key says its limits and one sentence beside its type, and is held to them.

The unit of a key is in its name.
"""

from typing import Annotated, Any, Final, NewType, get_args, get_origin

import attrs

from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import Rule

# A path to a file or folder, package.module:function, or file.py:function.
Source = NewType("Source", str)

PRESETS: Final = "presets"


def ruled(_: type, attributes: "list[attrs.Attribute[Any]]") -> "list[attrs.Attribute[Any]]":
    """For attrs.frozen(field_transformer=...): Annotated[type, rule, sentence] holds a field to its rule."""
    made = []
    for each in attributes:
        bare, rule, about = _said(each.type)
        check = None if rule is None else _validator(rule)
        both = attrs.validators.and_(*(one for one in (each.validator, check) if one is not None))
        said = {**each.metadata, "rule": rule, "about": about}
        made.append(each.evolve(type=bare, validator=both, metadata=said))
    return made


def auto_or(rule: Rule) -> Rule:
    """The word "auto", or what another rule allows."""

    def read(value: Any, path: str) -> Any:
        return value if value == "auto" else rule.read(value, path)

    return Rule(f'"auto" or {rule.kind}', read, rule.low, rule.high)


def _said(kind: Any) -> tuple[Any, Rule | None, str]:
    """The bare type of an annotation, its rule, its sentence."""
    if get_origin(kind) is not Annotated:
        return kind, None, ""
    bare, *said = get_args(kind)
    rule = next((each for each in said if isinstance(each, Rule)), None)
    return bare, rule, next((each for each in said if isinstance(each, str)), "")


def _validator(rule: Rule) -> Any:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        try:
            rule.read(value, attribute.name)
        except WireError as error:
            said = error.detail
            raise ValueError(said if said.startswith(attribute.name) else f"{attribute.name}: {said}") from None

    return check
