"""Argo CD as far as its scripts can tell: Lua 5.1 with the few libraries that it opens for scripts of argocd-cm.

    base, package, table    whole
    os                      time and date only, also by require("os")
    string, math, io ...    not there

As `util/lua/lua.go` of Argo CD sets it up. The real one is gopher-lua, which is Lua 5.1 too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

from luthier_dev.chart_files import ARGOCD

Raw = dict[str, Any]
_SANDBOX = """
getmetatable("").__index = nil
local safe = {time = os.time, date = os.date}
os, string, math, io, debug, coroutine = safe, nil, nil, nil, nil, nil
for name in pairs(package.loaded) do
  package.loaded[name] = nil
end
package.loaded.os = safe
package.preload, package.loaders = {}, {}
"""


class Scripts:
    """The scripts of one kind."""

    def __init__(self, kind: str, *, now: int = 1_700_000_000) -> None:
        self.folder = ARGOCD / "luthier.dev" / kind
        self._now = now

    @property
    def actions(self) -> set[str]:
        """Names of the actions that have a script."""
        return {path.parent.name for path in self.folder.glob("actions/*/action.lua")}

    def health(self, resource: Raw) -> tuple[str, str]:
        """Return the status and the message that Argo CD shows."""
        found = self._run(self.folder / "health.lua", resource)
        return found["status"], found["message"]

    def discovered(self, resource: Raw) -> dict[str, Raw]:
        """Return how each action is shown."""
        found: dict[str, Raw] = self._run(self.folder / "actions" / "discovery.lua", resource)
        assert set(found) == self.actions
        return found

    def offered(self, resource: Raw) -> set[str]:
        """Return the actions that are not greyed out."""
        return {name for name, shown in self.discovered(resource).items() if not shown["disabled"]}

    def act(self, action: str, resource: Raw) -> Raw:
        """Return the resource as the action leaves it."""
        found = self._run(self.folder / "actions" / action / "action.lua", resource)
        return dict(_as_before(found, resource))

    def _run(self, script: Path, resource: Raw) -> Any:
        lua = LuaRuntime(register_eval=False, register_builtins=False)
        lua.execute(_SANDBOX)
        lua.globals().os.time = lambda: self._now
        lua.globals().obj = _to_lua(lua, resource)
        return _from_lua(lua.execute(script.read_text()))


def _to_lua(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to_lua(lua, each) for key, each in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, each) for each in value])
    return value


def _from_lua(value: Any) -> Any:
    if lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    items = dict(value.items())
    if items and set(items) == set(range(1, len(items) + 1)):
        return [_from_lua(items[index]) for index in sorted(items)]
    return {key: _from_lua(each) for key, each in items.items()} or []


def _as_before(new: Any, old: Any) -> Any:
    """Return what a script returned with empty tables as they were: Lua cannot tell an empty list from an empty map."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _as_before(value, old.get(key)) for key, value in new.items()}
    if isinstance(new, list) and isinstance(old, dict) and not new:
        return old
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [_as_before(one, other) for one, other in zip(new, old, strict=True)]
    return new
