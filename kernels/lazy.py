"""Attributes that are computed once, at first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801  a decorator, like property
    """`functools.cached_property` without the lock that it has before Python 3.12.

    A process that forks while another thread holds that lock leaves its child waiting for it for ever. Two
    threads may compute the same value here; they get equal ones.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        value = self.function(instance)
        instance.__dict__[self.name] = value  # found there first from now on
        return value
