"""Whether a JSON value is what a vendor's package declares for it.

The vendors declare requests as TypedDicts, which nothing checks when a program runs. Here each object has
to have all members that are required and none that is not declared, and each value the declared type: a
number in a string is refused, and so is true for a number.
"""
import collections.abc
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import NotRequired, Required, is_typeddict


class Refused(Exception):
    def __init__(self, path, reason):
        super().__init__(f"{'.'.join(map(str, path)) or 'the body'}: {reason}")
        self.path = path


def check(value, declared, path=()):
    """Raises Refused, or returns where values stand of which the vendor says nothing, such as a schema."""
    origin, arguments = get_origin(declared), get_args(declared)
    if declared in (object, Any):
        return [path]
    if origin in (Annotated, Required, NotRequired):
        return check(value, arguments[0], path)
    if origin in (Union, types.UnionType):
        return check_union(value, arguments, path)
    if origin is Literal:
        # Python holds 1 and True for the same.
        if not any(value == one and type(value) is type(one) for one in arguments):
            raise Refused(path, f"{value!r} is none of {list(arguments)}")
        return []
    if is_typeddict(declared):
        return check_members(value, declared, path)
    if origin in (dict, collections.abc.Mapping):
        expect(value, dict, path)
        return [free for key, one in value.items() for free in check(one, arguments[1], (*path, key))]
    if origin in (list, collections.abc.Iterable, collections.abc.Sequence):
        expect(value, list, path)
        return [free for i, one in enumerate(value) for free in check(one, arguments[0], (*path, i))]
    if declared is float:
        expect(value, (float, int), path)
    elif declared in (str, int, bool, type(None)):
        expect(value, declared, path)
    else:
        # What a reply is parsed into, a file, a time: for others than us.
        raise Refused(path, f"JSON has no {declared!r}")
    return []


def expect(value, expected, path):
    is_bool_for_number = isinstance(value, bool) and expected is not bool
    if not isinstance(value, expected) or is_bool_for_number:
        raise Refused(path, f"is a {type(value).__name__}, not {expected}")


def check_members(value, declared, path):
    expect(value, dict, path)
    hints = get_type_hints(declared, include_extras=True)
    for name in value:
        if name not in hints:
            raise Refused((*path, name), f"{declared.__name__} has no such member")
    for name, hint in hints.items():
        # Annotations are strings to these modules, so that Python's own list lacks the members marked Required.
        is_required = get_origin(hint) is Required or (
            get_origin(hint) is not NotRequired and name in declared.__required_keys__)
        if is_required and name not in value:
            raise Refused((*path, name), f"{declared.__name__} requires it")
    return [free for name, one in value.items() for free in check(one, hints[name], (*path, name))]


def check_union(value, alternatives, path):
    reasons = []
    for alternative in alternatives:
        try:
            return check(value, alternative, path)
        except Refused as reason:
            reasons.append(reason)
    # The alternative that fits furthest is the one that was meant.
    raise max(reasons, key=lambda reason: len(reason.path))


def spoilt(body, free):
    """Pairs of what was done and the body with it: each member misspelt, each value another type, in turn."""
    for path in places(body, (), set(free)):
        yield f"{'.'.join(map(str, path))} is of another type", replaced(body, path, another_type)
        if isinstance(path[-1], str):
            yield f"{'.'.join(map(str, path))} is misspelt", renamed(body, path)


def another_type(value):
    return ["x"] if isinstance(value, dict) else {"x": 1}


def places(value, path, free):
    if path and path not in free:
        yield path
    if path in free:
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key), free)


def replaced(value, path, change):
    if not path:
        return change(value)
    if isinstance(value, dict):
        return {key: replaced(one, path[1:], change) if key == path[0] else one for key, one in value.items()}
    return [replaced(one, path[1:], change) if i == path[0] else one for i, one in enumerate(value)]


def renamed(body, path):
    def rename(value):
        return {key + "s" if key == path[-1] else key: one for key, one in value.items()}
    return replaced(body, path[:-1], rename)
