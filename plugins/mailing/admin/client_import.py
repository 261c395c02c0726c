"""The import of a client file: a form, then what became of its rows."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from mailing import client_import, gate, pool, problems
from mailing.admin.common import Page, operator
from mailing.client_file import Reject
from mailing.client_import import ImportFigures
from mailing.errors import Busy, InvalidInput

PATH = "/clients/import-file"

SHOWN = 100
"""Rejected rows in the page's table."""

MAX_FILE = 4 << 20
"""Characters of the reject file that come with the page, for its download: some 50,000 rows."""

MAX_VALUE = 200


@dataclass
class Imported:
    """What became of a file. `first`: of the rejected rows; `rejects`: the reject file, or its beginning."""

    figures: ImportFigures
    first: list[Reject] = field(default_factory=list)
    rejects: str = ""
    is_whole: bool = True

    @property
    def rejected(self) -> int:
        """How many rows were left out."""
        return sum(self.figures.rejected.values())


class ClientImport(Page):
    """A file of clients is uploaded here. Nothing of it is kept but what was imported."""

    menu_label = "Import clients"
    path = PATH
    route_name = "import-clients"
    add_to_menu = False

    @route("", methods=["GET", "POST"])
    async def index(self, request: Request) -> Response:
        """The form; once it is sent, what became of it."""
        actor = operator(request).name
        if request.method == "GET":
            return self._page(request)
        async with request.form(max_files=1) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile) or not upload.filename:
                return self._page(request, 422, error="Choose a file.")
            try:
                imported = await run_in_threadpool(_bring_in, upload, actor)
            except InvalidInput as error:
                return self._page(request, 422, error=f"Nothing was imported: {error}.")
            except Busy:
                page = self._page(request, 503, error="Nothing was imported: others are importing. Try again later.")
                page.headers["Retry-After"] = str(problems.RETRY_AFTER_S)
                return page
            return self._page(request, imported=imported, name=upload.filename)

    def _page(self, request: Request, status: int = 200, **context: object) -> Response:
        limits = {"max_bytes": gate.MAX_IMPORT, "shown": SHOWN, "max_value": MAX_VALUE}
        return self.render(request, "client_import.html", status, **limits, **context)


def _bring_in(upload: UploadFile, actor: str) -> Imported:
    """Import the file. All of it or nothing is written. Raises InvalidInput."""
    first: list[Reject] = []
    with tempfile.TemporaryDirectory(prefix="mailing-import-") as folder:
        file, reject_file = Path(folder, "clients.csv"), Path(folder, "rejects.csv")
        with file.open("wb") as copy:
            shutil.copyfileobj(upload.file, copy, 1 << 20)
        try:
            with pool.at_length("import") as connection:
                figures = client_import.import_clients(
                    connection, file, reject_file, actor=actor,
                    on_rejects=lambda more: first.extend(more[: SHOWN - len(first)]),
                )  # fmt: skip
        except InvalidInput as error:  # which names the file as it is called here
            raise InvalidInput(str(error).replace(str(file), "the file"), ["file"]) from error
        if figures.reject_file is None:
            return Imported(figures)
        with reject_file.open(encoding="utf-8", newline="") as rejects:
            text = rejects.read(MAX_FILE)
            is_whole = not rejects.read(1)
        return Imported(figures, first, text if is_whole else text[: text.rfind("\r\n") + 2], is_whole)
