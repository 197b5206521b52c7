"""The standard service by which tools learn the methods and messages of a node: server reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from lockring.grpc_api.call import GrpcCall
from lockring.grpc_api.private_pool import POOL, REFLECTION, message_class
from lockring.grpc_api.status import Code

SERVICE: Final = POOL.FindServiceByName(f"{REFLECTION}.ServerReflection")

_Response: Final = message_class(f"{REFLECTION}.ServerReflectionResponse")
_NOT_FOUND: Final = {
    "error_response": {"error_code": int(Code.NOT_FOUND), "error_message": "there is no such thing"}
}


class ReflectionServicer:
    """The service. It answers about the services of the node, and about anything that their messages are made of.

    Args:
        services: the names of the services.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)
        self._pools = (POOL, descriptor_pool.Default())

    async def ServerReflectionInfo(  # noqa: N802
        self, requests: AsyncIterator[Any], call: GrpcCall
    ) -> AsyncIterator[Any]:
        """Answer each question."""
        async for request in requests:
            yield _Response(original_request=request, **self._answer(request))

    def _answer(self, request: Any) -> dict[str, Any]:
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            return {"list_services_response": {"service": [{"name": each} for each in self._services]}}
        for pool in self._pools:
            try:
                match asked:
                    case "file_by_filename":
                        return _files(pool.FindFileByName(request.file_by_filename))
                    case "file_containing_symbol":
                        return _files(pool.FindFileContainingSymbol(request.file_containing_symbol))
                    case "all_extension_numbers_of_type":
                        # No message of ours has extensions.
                        found = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                        return {"all_extension_numbers_response": {"base_type_name": found.full_name}}
            except KeyError:
                continue
        return _NOT_FOUND


def _files(wanted: FileDescriptor) -> dict[str, Any]:
    """Return a file, and those that it is made of."""
    found = {wanted.name: wanted}
    waiting = [wanted]
    while waiting:
        for each in waiting.pop().dependencies:
            if each.name not in found:
                found[each.name] = each
                waiting.append(each)
    return {
        "file_descriptor_response": {"file_descriptor_proto": [each.serialized_pb for each in found.values()]}
    }
