"""Name -> constructor. The constructor's signature is the schema: nothing is declared twice."""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

T = TypeVar("T")


def nearest(word: str, known: list[str]) -> str:
    """' Did you mean ...?' when one of the known words is close, else an empty string."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class UnknownName(ValueError):
    """A name nobody registered; the message lists the known ones and the nearest."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> "UnknownName":
        """The error for a name that is none of the known ones of its kind."""
        names = list(known)
        return cls(f"unknown {kind} {name!r}; known: {', '.join(names)}.{nearest(name, names)}")


class Registry(Generic[T]):
    """Constructors of one kind, by name.

    `register` is a decorator; `build` validates arguments against the constructor's own signature
    and offers it facts that only run time knows (`num_classes`): it receives those it names, and a
    config may not set them.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._constructors: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., Any]], Any]:
        """Decorator that files a class or function under `name`; a second, different owner is a
        ValueError."""

        def decorate(constructor: Callable[..., Any]) -> Callable[..., Any]:
            known = self._constructors.get(name)
            if known is not None and known.__qualname__ != constructor.__qualname__:
                raise ValueError(
                    f"{self.kind} {name!r} is already {known.__module__}.{known.__qualname__}"
                )
            self._constructors[name] = constructor
            return constructor

        return decorate

    def __contains__(self, name: object) -> bool:
        return name in self._constructors

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._constructors))

    def __len__(self) -> int:
        return len(self._constructors)

    def __getitem__(self, name: str) -> Callable[..., T]:
        if name not in self._constructors:
            raise UnknownName.among(self.kind, name, self)
        return self._constructors[name]

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The constructor's parameters with annotations resolved to real types."""
        constructor = self[name]
        target = constructor.__init__ if inspect.isclass(constructor) else constructor
        hints = typing.get_type_hints(target)
        signature = inspect.signature(constructor)
        return {
            key: parameter.replace(annotation=hints.get(key, Any))
            for key, parameter in signature.parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    def takes_any(self, name: str) -> bool:
        """Whether the constructor accepts keywords it does not name (a wrapper around another
        library)."""
        parameters = inspect.signature(self[name]).parameters.values()
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

    def schema(self, name: str, facts: typing.Collection[str] = ()) -> type[BaseModel]:
        """A pydantic model of what a config may set: the signature without the offered facts."""
        fields: dict[str, Any] = {}
        for key, parameter in self.parameters(name).items():
            if key not in facts:
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[key] = (parameter.annotation, default)
        extra: typing.Literal["allow", "forbid"] = "allow" if self.takes_any(name) else "forbid"
        return create_model(
            f"{self.kind}_{name}",
            __config__=ConfigDict(
                extra=extra, arbitrary_types_allowed=True, protected_namespaces=()
            ),
            **fields,
        )

    def faults(
        self, name: str, args: Mapping[str, Any], facts: typing.Collection[str] = ()
    ) -> list[str]:
        """Everything wrong with these arguments, a sentence each; empty when `build` would accept
        them."""
        try:
            self[name]
        except UnknownName as error:
            return [str(error)]
        try:
            self.schema(name, facts)(**args)
        except ValidationError as error:
            return [self._sentence(name, fault, facts) for fault in error.errors()]
        return []

    def _sentence(self, name: str, fault: Any, facts: typing.Collection[str]) -> str:
        where = ".".join(str(part) for part in fault["loc"])
        key = str(fault["loc"][0]) if fault["loc"] else ""
        known = [k for k in self.parameters(name) if k not in facts]
        if fault["type"] == "extra_forbidden":
            if key in facts:
                return f"{self.kind} {name!r}: {where} is set by reidkit at run time; remove it"
            options = (", ".join(known) or "none") + "." + nearest(key, known)
            return f"{self.kind} {name!r}: unknown key {where!r}; it takes: {options}"
        if fault["type"] == "missing":
            return f"{self.kind} {name!r}: needs {where!r}"
        why = fault["msg"][:1].lower() + fault["msg"][1:]
        return f"{self.kind} {name!r}: {where} = {fault['input']!r}: {why}"

    def build(self, name: str, args: Mapping[str, Any] | None = None, **facts: Any) -> T:
        """The component, from arguments validated and coerced by its own signature.

        Raises UnknownName, and ValueError with every fault when the arguments do not fit; `args`
        is never changed.
        """
        constructor = self[name]
        args = dict(args or {})
        faults = self.faults(name, args, facts)
        if faults:
            raise ValueError("; ".join(faults))
        model = self.schema(name, facts)(**args)
        coerced = {key: getattr(model, key) for key in type(model).model_fields}
        coerced.update(model.model_extra or {})
        wanted = self.parameters(name)
        offered = {key: value for key, value in facts.items() if key in wanted}
        return constructor(**coerced, **offered)
