"""The methods that are served, from the descriptions of their services."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor


class ServedMethod(NamedTuple):
    """A method.

    Attributes:
        request: the class of its requests.
        takes_stream: whether a call has any number of requests, and not one.
        gives_stream: whether it has any number of responses.
        serve: called with the request, or an async iterator of them, and the `GrpcCall`. It is a coroutine function
            that returns the response, or an async generator function of them.
    """

    request: type[Any]
    takes_stream: bool
    gives_stream: bool
    serve: Callable[..., Any]


def methods_of(services: Iterable[tuple[ServiceDescriptor, object]]) -> dict[str, ServedMethod]:
    """Return the methods by path, without the slash before it.

    Args:
        services: descriptions of services, each with an object that has its methods by their names.
    """
    return {
        f"{service.full_name}/{each.name}": ServedMethod(
            message_factory.GetMessageClass(each.input_type),
            each.client_streaming,
            each.server_streaming,
            getattr(servicer, each.name),
        )
        for service, servicer in services
        for each in service.methods
    }
