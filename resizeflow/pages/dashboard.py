"""The dashboard: the fleet's pages, rendered here, for a browser on this machine. It only reads.

Nobody logs in, so it is for loopback alone. A page of somebody else's that a browser on this machine opens cannot read
it either: such a page comes to us under another host's name (DNS rebinding), which is refused, and the content security
policy keeps what is shown from running or loading anything, whatever a machine is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException, SecurityError

from resizeflow.audit import search as log
from resizeflow.audit.history import Wanted, search
from resizeflow.audit.outcome import Standing
from resizeflow.audit.overview import overview
from resizeflow.errors import LogBroken, NotFound
from resizeflow.pages.rendering import FILTERS
from resizeflow.pages.report import report_of
from resizeflow.persistence.database import AWAY, Database, in_short

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict

HOSTS = ["127.0.0.1", "localhost", "[::1]"]
"""Under which names a browser on this machine, or at the other end of `ssh -L`, asks for us."""
LINES = 500
"""Of a log so many lines are on its page; the report has all."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Pages:
    """A method for each address."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def overview(self) -> str:
        with self._database.read() as tx:
            return render_template("overview.html", fleet=overview(tx))

    def history(self) -> str:
        wanted, lines = _wanted(request.args), None
        with self._database.read() as tx:
            page = search(tx, wanted, request.args.get("older"))
            if wanted.text and not wanted.outcome:
                before = request.args.get("before")
                lines = log.look(tx, _of_lines(wanted), before=log.Place.parse(before) if before else None)
        return render_template("history.html", page=page, lines=lines, asked=request.args, outcomes=list(Standing))

    def migration(self, migration_id: str) -> str:
        report = report_of(self._database, migration_id, last=LINES)
        return render_template("page_of_migration.html", report=report)

    def instance(self, instance_id: str) -> str:
        with self._database.read() as tx:
            page = search(tx, Wanted(instance_id=instance_id), request.args.get("older"))
            instance = tx.instances.find(instance_id)
        if not page.rows and instance is None:
            raise NotFound("There is no machine of that id, and never was a migration of it.")
        name = instance.name if instance else page.rows[0].instance
        return render_template("instance.html", name=name, instance_id=instance_id, instance=instance, page=page)


def application(database: Database, host: str = "127.0.0.1") -> Flask:
    """The pages as a WSGI application that listens at `host`, a loopback address."""
    app = Flask("resizeflow.pages")
    app.config["TRUSTED_HOSTS"] = [*HOSTS, host]
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined, "autoescape": True}
    app.jinja_env.filters.update(FILTERS)
    app.jinja_env.globals["standalone"] = False
    pages = Pages(database)
    for address, view in (
        ("/", pages.overview),
        ("/history", pages.history),
        ("/migrations/<migration_id>", pages.migration),
        ("/instances/<instance_id>", pages.instance),
    ):
        app.add_url_rule(address, view.__name__, view, methods=["GET"], provide_automatic_options=False)
    app.before_request(_understood)
    app.after_request(_guarded)
    for kind, explained in _EXPLAINED.items():
        app.register_error_handler(kind, explained)
    return app


def _guarded(answer: Response) -> Response:
    answer.headers.update(HEADERS)
    return answer


def _sentence(code: int, sentence: str) -> tuple[str, int]:
    return render_template("error.html", code=code, sentence=sentence), code


_EXPLAINED: Mapping[type[Exception], Callable[[Any], tuple[Any, ...]]] = {
    SecurityError: lambda error: (error.description, 400, {"Content-Type": "text/plain; charset=utf-8"}),
    HTTPException: lambda error: _sentence(error.code or 500, error.description or error.name),
    NotFound: lambda error: _sentence(404, str(error)),
    LogBroken: lambda error: _sentence(500, str(error)),
    **dict.fromkeys(
        (ValueError, OverflowError), lambda error: _sentence(400, f"That address is not understood: {error}.")
    ),
    **dict.fromkeys(AWAY, lambda error: _sentence(503, f"The database does not answer: {in_short(error)}.")),
}


def _understood() -> None:
    """Raises ValueError for what PostgreSQL has no room for in a text."""
    if "\0" in request.path or any("\0" in value for value in request.args.values()):
        raise ValueError("it has a character that no name has")


def _of_lines(wanted: Wanted) -> log.Filters:
    """The same filters for lines of the log, whose outcomes are others."""
    return log.Filters(
        instance=wanted.instance,
        host=wanted.host,
        project=wanted.project,
        user=wanted.user,
        since=wanted.since,
        until=wanted.until,
        text=wanted.text,
    )


def _wanted(asked: MultiDict[str, str] | Mapping[str, str]) -> Wanted:
    """The filters of an address. Raises ValueError."""

    def word(name: str) -> str | None:
        return asked.get(name, "").strip() or None

    def day(name: str) -> datetime | None:
        text = word(name)
        return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None

    until = day("until")
    outcome = word("outcome")
    return Wanted(
        instance=word("instance"),
        host=word("host"),
        project=word("project"),
        user=word("user"),
        since=day("since"),
        until=until + timedelta(days=1) if until else None,
        outcome=Standing(outcome) if outcome else None,
        text=word("text"),
    )
