"""The descriptions of the standard services that every gRPC server offers, of its health and of its methods.

They are in a pool of their own: in the common one they would clash with the stubs of a program that asks for the health
of others, and runs a node too. So they are made here, and not generated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HEALTH: Final = "grpc.health.v1"
REFLECTION: Final = "grpc.reflection.v1alpha"

_Field = descriptor_pb2.FieldDescriptorProto
_TEXT: Final = _Field.TYPE_STRING
_BYTES: Final = _Field.TYPE_BYTES
_INT32: Final = _Field.TYPE_INT32
_ENUM: Final = _Field.TYPE_ENUM


def _message(
    name: str, fields: Iterable[descriptor_pb2.FieldDescriptorProto], *, one_of: str = ""
) -> descriptor_pb2.DescriptorProto:
    made = descriptor_pb2.DescriptorProto(name=name, field=fields)
    if one_of:
        made.oneof_decl.add(name=one_of)
    return made


def _field(
    number: int, name: str, kind: Any, *, of: str = "", is_list: bool = False, in_one_of: bool = False
) -> descriptor_pb2.FieldDescriptorProto:
    """Return a field: `kind` is a type, or the name of a message; `of` is the name of an enumeration."""
    label = _Field.LABEL_REPEATED if is_list else _Field.LABEL_OPTIONAL
    made = _Field(name=name, number=number, label=label)
    if isinstance(kind, str):
        made.type, made.type_name = _Field.TYPE_MESSAGE, kind
    else:
        made.type = kind
        if of:
            made.type_name = of
    if in_one_of:
        made.oneof_index = 0
    return made


def _service(
    name: str, package: str, methods: Iterable[tuple[str, str, str, bool, bool]]
) -> descriptor_pb2.ServiceDescriptorProto:
    made = descriptor_pb2.ServiceDescriptorProto(name=name)
    for method, request, response, takes_stream, gives_stream in methods:
        made.method.add(
            name=method,
            input_type=f".{package}.{request}",
            output_type=f".{package}.{response}",
            client_streaming=takes_stream,
            server_streaming=gives_stream,
        )
    return made


def _health() -> descriptor_pb2.FileDescriptorProto:
    response = _message(
        "HealthCheckResponse", [_field(1, "status", _ENUM, of=f".{HEALTH}.HealthCheckResponse.ServingStatus")]
    )
    states = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        states.value.add(name=name, number=number)
    methods = [
        ("Check", "HealthCheckRequest", "HealthCheckResponse", False, False),
        ("Watch", "HealthCheckRequest", "HealthCheckResponse", False, True),
    ]
    return descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto",
        package=HEALTH,
        syntax="proto3",
        message_type=[_message("HealthCheckRequest", [_field(1, "service", _TEXT)]), response],
        service=[_service("Health", HEALTH, methods)],
    )


def _reflection() -> descriptor_pb2.FileDescriptorProto:
    def of(name: str) -> str:
        return f".{REFLECTION}.{name}"

    request = _message(
        "ServerReflectionRequest",
        [
            _field(1, "host", _TEXT),
            _field(3, "file_by_filename", _TEXT, in_one_of=True),
            _field(4, "file_containing_symbol", _TEXT, in_one_of=True),
            _field(5, "file_containing_extension", of("ExtensionRequest"), in_one_of=True),
            _field(6, "all_extension_numbers_of_type", _TEXT, in_one_of=True),
            _field(7, "list_services", _TEXT, in_one_of=True),
        ],
        one_of="message_request",
    )
    response = _message(
        "ServerReflectionResponse",
        [
            _field(1, "valid_host", _TEXT),
            _field(2, "original_request", of("ServerReflectionRequest")),
            _field(4, "file_descriptor_response", of("FileDescriptorResponse"), in_one_of=True),
            _field(5, "all_extension_numbers_response", of("ExtensionNumberResponse"), in_one_of=True),
            _field(6, "list_services_response", of("ListServiceResponse"), in_one_of=True),
            _field(7, "error_response", of("ErrorResponse"), in_one_of=True),
        ],
        one_of="message_response",
    )
    messages = [
        request,
        _message(
            "ExtensionRequest", [_field(1, "containing_type", _TEXT), _field(2, "extension_number", _INT32)]
        ),
        response,
        _message("FileDescriptorResponse", [_field(1, "file_descriptor_proto", _BYTES, is_list=True)]),
        _message(
            "ExtensionNumberResponse",
            [_field(1, "base_type_name", _TEXT), _field(2, "extension_number", _INT32, is_list=True)],
        ),
        _message("ListServiceResponse", [_field(1, "service", of("ServiceResponse"), is_list=True)]),
        _message("ServiceResponse", [_field(1, "name", _TEXT)]),
        _message("ErrorResponse", [_field(1, "error_code", _INT32), _field(2, "error_message", _TEXT)]),
    ]
    methods = [("ServerReflectionInfo", "ServerReflectionRequest", "ServerReflectionResponse", True, True)]
    return descriptor_pb2.FileDescriptorProto(
        name="grpc/reflection/v1alpha/reflection.proto",
        package=REFLECTION,
        syntax="proto3",
        message_type=messages,
        service=[_service("ServerReflection", REFLECTION, methods)],
    )


POOL: Final = descriptor_pool.DescriptorPool()
POOL.Add(_health())
POOL.Add(_reflection())


def message_class(name: str) -> Any:
    """Return the class of a message of the pool."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))
