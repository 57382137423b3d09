"""`resizeflow dashboard`: the fleet in a browser of this machine."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import signal

from resizeflow.commands.base import Command
from resizeflow.errors import UsageError

THREADS = 4


class Dashboard(Command):
    """Show the fleet in a browser, as it is now, until stopped with Ctrl-C.

    Migrations in flight, what needs a person and the command for it, workers, hosts with their room, debts, and a
    search over all of the past. It only reads. It is for browsers on this machine; from another one:

      ssh -L 8780:127.0.0.1:8780 THIS-MACHINE      then open http://127.0.0.1:8780/ there
    """

    example = """
resizeflow dashboard
resizeflow dashboard --listen 127.0.0.1:9000
"""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--listen", default="127.0.0.1:8780", metavar="ADDRESS:PORT", help="where (default: %(default)s)"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        address, port = loopback(parsed_args.listen)
        database = self.backend.database
        import waitress  # noqa: PLC0415 - not needed for help

        from resizeflow.pages.dashboard import application  # noqa: PLC0415 - as above

        try:
            server = waitress.create_server(application(database, address), host=address, port=port, threads=THREADS)
        except OSError as error:
            raise UsageError(
                f"Nothing can be served at {parsed_args.listen}: {error.strerror or error}. "
                "Choose another port with --listen 127.0.0.1:PORT."
            ) from None
        for number in (signal.SIGINT, signal.SIGTERM):  # Also where the shell that started it lets it ignore Ctrl-C.
            signal.signal(number, signal.default_int_handler)
        shown = f"[{address}]" if ":" in address else address
        with contextlib.closing(server), contextlib.suppress(KeyboardInterrupt):
            self.app.stdout.write(f"The dashboard is at http://{shown}:{server.effective_port}/ until Ctrl-C.\n")
            self.app.stdout.flush()
            server.run()


def loopback(listen: str) -> tuple[str, int]:
    """The address and port of `ADDRESS:PORT`. Raises UsageError for one that others could reach."""
    name, _, digits = listen.rpartition(":")
    if not name or not digits.isdecimal() or int(digits) > 65535:
        raise UsageError(f"--listen {listen} is not of the form ADDRESS:PORT, such as 127.0.0.1:8780.")
    try:
        address = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name.strip("[]"))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise UsageError(
            f"--listen {listen}: the dashboard asks nobody who he is, so it is on 127.0.0.1 only; from another machine "
            f"reach it with `ssh -L {digits}:127.0.0.1:{digits} THIS-MACHINE`."
        )
    return str(address), int(digits)
