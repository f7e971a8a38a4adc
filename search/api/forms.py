"""Multipart forms in which a file is a file by the name of its part, also without a file name.

Starlette takes a part without ``filename`` for a line of text; here nothing of what a client says about
a file may be a reason to refuse it, so the parts that are files are told by their field. A form that ends
before its last border is refused: what is missing may be a file.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from search.api.uploads import room

FILE_FIELDS = frozenset({b"file", b"probe", b"candidate"})


class FileParser(MultiPartParser):
    """Starlette's parser, told which fields are files, and that a form has an end."""

    _ended = False

    def on_end(self) -> None:
        """Called when the last border is met."""
        self._ended = True

    async def parse(self) -> FormData:
        """The form. Raises MultiPartException where it is none or ends too early, NoRoom where it cannot be kept."""
        with room():
            form = await super().parse()
        if not self._ended:
            for file in self._files_to_close_on_error:  # those of parts without an end are in no form
                file.close()
            raise MultiPartException("The form ends before its last border: send all of it.")
        return form

    def on_headers_finished(self) -> None:
        """Called when the headers of a part are complete: gives a file without a name an empty one."""
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        if options.get(b"name") in FILE_FIELDS and b"filename" not in options:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()


class FormRequest(Request):
    """A request whose multipart form is read by :class:`FileParser`."""

    async def _get_form(
        self,
        *,
        max_files: int | float = 1000,
        max_fields: int | float = 1000,
        max_part_size: int = 2**20,
    ) -> FormData:
        kind, _ = parse_options_header(self.headers.get("content-type", ""))
        if self._form is None and kind == b"multipart/form-data":
            limits = {"max_files": max_files, "max_fields": max_fields}
            try:
                async with aclosing(self.stream()) as stream:
                    parser = FileParser(self.headers, stream, max_part_size=max_part_size, **limits)
                    self._form = await parser.parse()
            except MultiPartException as error:
                raise HTTPException(400, error.message) from error
            except ClientDisconnect as error:  # nobody hears this
                raise HTTPException(400, "The request ended before its form did.") from error
        return await super()._get_form(max_files=max_files, max_fields=max_fields, max_part_size=max_part_size)


class FormRoute(APIRoute):
    """A route that reads its forms so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with the request replaced."""
        handle = super().get_route_handler()

        async def with_form(request: Request) -> Response:
            return await handle(FormRequest(request.scope, request.receive))

        return with_form
