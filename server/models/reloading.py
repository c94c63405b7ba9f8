"""Adds, replaces and removes models while the server serves, so that they follow the folder of bundles.

server/__main__.py makes a Reloader. It reloads on SIGHUP, for the RPC ReloadModels, and with --watch (`Watch`) whenever
the folder changed. A bundle is checked, opened and warmed up beside the one that it replaces, which serves until then
(server/models/models.py swaps them). A bundle that cannot be served is refused: the old one stays. To roll back, put the old
folder back.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import BundleError, Cancelled, GanforgeError
from server.logs import log
from server.models.bundle_folder import Identity, look, name_of
from server.models.entry import Entry
from server.models.models import Models

WATCH_EVERY_S = 1.0


@dataclass(frozen=True)
class Change:
    """What a reload did with one model.

    name: of the model; of its folder, if the bundle could not be read. version: the one that is served now, or that was
    served until now; empty if there is none. reason: why it was refused.
    """

    name: str
    version: str = ""
    reason: str = ""


@dataclass
class Reload:
    """What a reload did, a Change a model."""

    added: list[Change] = field(default_factory=list)
    replaced: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)
    refused: list[Change] = field(default_factory=list)
    unchanged: list[Change] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many of each, without those that are unchanged."""
        return {name: len(getattr(self, name)) for name in ("added", "replaced", "removed", "refused")}


@dataclass(frozen=True)
class Seen:
    """A folder as the latest reload left it. model: its name, "" if unreadable. refusal: why it is not served, or "".

    identity: () if it is to be looked at again whatever happens.
    """

    identity: Identity
    model: str
    refusal: str


class Reloader:
    """Makes the models follow a folder. Thread-safe: concurrent reloads run one after the other.

    on_change: called after each reload that changed something, on the reloading thread.
    """

    def __init__(self, models: Models, folder: Path, *, on_change: Callable[[], None] = lambda: None) -> None:
        self._models, self._folder, self._on_change = models, folder, on_change
        self._lock = threading.Lock()
        self._seen: dict[Path, Seen] = {}
        self._before: Mapping[Path, Identity] = {}
        self._counts = Counter[str]()
        self._closed = False

    def reload(self, names: Collection[str] = ()) -> Reload:
        """Follow the folder now. names: only these models; none: all. Takes as long as opening what is new; blocks.

        Raises BundleError if the folder cannot be read; then nothing changes.
        """
        with self._lock:
            return self._reload(look(self._folder), frozenset(names))

    def follow(self) -> Reload | None:
        """As `reload`, but only what changed and has not changed since the last call: a copy may still be under way.

        Returns None if there is nothing to do. Call it about once a second. Raises the errors of `reload`.
        """
        with self._lock:
            before, self._before = self._before, look(self._folder)
            now = {path: seen.identity for path, seen in self._seen.items()}
            if self._before != before or self._before == now:
                return None
            return self._reload(self._before, frozenset())

    def counts(self) -> Mapping[str, int]:
        """How many models were "added", "replaced", "removed" and "refused" since the start, for metrics."""
        return dict(self._counts)

    def close(self) -> None:
        """Begin no further reload, and stop the running one before its next bundle."""
        self._closed = True

    def _reload(self, found: Mapping[Path, Identity], names: frozenset[str]) -> Reload:
        done = Reload()
        previous, self._seen = self._seen, {}
        named = {
            path: seen.model if (seen := previous.get(path)) and seen.identity == identity else name_of(path)
            for path, identity in found.items()
        }
        for path, name in named.items():
            seen, entry = previous.get(path), self._models.catalog.entries.get(name)
            is_served = entry is not None and entry.bundle.path == path
            if names and (name or path.name) not in names:
                self._seen[path] = seen or Seen((), name, "")
            elif seen and seen.identity == found[path] and not seen.refusal and entry and is_served:
                self._seen[path] = seen
                done.unchanged.append(Change(name, entry.version))
            else:
                refusal = self._take(path, named, done)
                self._seen[path] = Seen(found[path], name, refusal)
                if refusal and (seen is None or seen.refusal != refusal):
                    log.warning("bundle refused", folder=str(path), reason=refusal)
        if not self._closed:
            self._remove_missing(names, done)
        known = {change.name for change in (*done.added, *done.replaced, *done.removed, *done.unchanged)}
        known |= {change.name for change in done.refused}
        done.refused += [
            Change(name, reason=f"no bundle in {self._folder} and no served model has this name")
            for name in sorted(names - known)
        ]
        self._counts.update(done.counts())
        if done.added or done.replaced or done.removed:
            self._on_change()
        return done

    def _take(self, path: Path, named: Mapping[Path, str], done: Reload) -> str:
        """Serve the bundle at `path` unless this very version is served. Returns why it is refused, or "".

        named: the name of the bundle in each folder.
        """
        name = named[path]
        old = self._models.catalog.entries.get(name)
        try:
            if self._closed:
                raise Cancelled("the server is shutting down")
            self._check_name(path, named, old)
            bundle = self._models.load(path)
            version, before = bundle.version, old.version if old else None
            if old is not None and (old.version, old.bundle.path) == (version, path):
                done.unchanged.append(Change(name, version))
                return ""
            self._models.add(bundle)
        except Exception as error:
            if not isinstance(error, GanforgeError):
                log.error("bundle refused", folder=str(path), exc_info=error)
            done.refused.append(Change(name or path.name, old.version if old else "", str(error)))
            return str(error) or type(error).__name__
        (done.replaced if old else done.added).append(Change(name, version))
        log.info("model replaced" if old else "model added", model=name, version=version, before=before)
        return ""

    def _check_name(self, path: Path, named: Mapping[Path, str], old: Entry | None) -> None:
        """Raises BundleError if another folder's bundle has the same name and is served, or comes first."""
        name = named[path]
        others = [other for other, its_name in named.items() if name and its_name == name]
        owner = old.bundle.path if old and old.bundle.path in others else next(iter(others), path)
        if owner != path:
            raise BundleError(f"{path}: {owner} is called {name} too; rename one (--name) or remove one")

    def _remove_missing(self, names: frozenset[str], done: Reload) -> None:
        """Remove the models whose folder is gone or holds a bundle of another name now. A refused bundle keeps the old one."""
        for name, entry in self._models.catalog.entries.items():
            seen = self._seen.get(entry.bundle.path)
            is_there = seen is not None and (seen.refusal or seen.model == name)
            if is_there or (names and name not in names):
                continue
            self._models.remove(name)
            done.removed.append(Change(name, entry.version))
            log.info("model removed", model=name, version=entry.version)


class Watch:
    """Calls `Reloader.follow` every second, on a thread of its own, from `start` to `close`."""

    def __init__(self, reloader: Reloader, *, every_s: float = WATCH_EVERY_S) -> None:
        self._reloader, self._every_s = reloader, every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop. Does not wait for a reload that is under way."""
        self._closing.set()

    def _run(self) -> None:
        said = ""
        while not self._closing.wait(self._every_s):
            try:
                self._reloader.follow()
                said = ""
            except Exception as error:  # one failure must not end the watch, nor fill the log
                if str(error) != said:
                    said = str(error)
                    expected = isinstance(error, BundleError)
                    log.error("not reloaded", reason=said, exc_info=None if expected else error)
