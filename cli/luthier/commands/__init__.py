"""The command line: what is typed, what is asked, and the exit code. The work is done elsewhere.

    group     the application: errors become one sentence and an exit code
    options   the options that many commands share, and the cluster that they name
    look      status, watch, logs            versions   versions, diff, lineage, report, sign
    steer     promote, pause, abort, skip, retry, suspend, resume, rollback
    create    init, run, apply, pin          serve      predict, alias
    check     doctor, support

Each module has its own group of commands, and this one puts them together.
"""

from luthier.commands import check, create, look, serve, steer, versions
from luthier.commands.group import new_app

app = new_app()
for module in (create, look, versions, steer, serve, check):
    module.register(app)

__all__ = ["app"]
