"""Names that live elsewhere: those that are loaded when they are first used, and earlier ones of modules, of names in them and of
arguments, which go on working for one release and tell the present ones."""

import functools
import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Earlier name -> the present one, both below `rw_keras`.
MOVED = {
    "contact_sheet": "views.contact_sheet",
    "datasets.oxford100k": "datasets.builders",
    "datasets.oxford105k": "datasets.builders",
    "datasets.oxford5k": "datasets.builders",
    "datasets.paris106k": "datasets.builders",
    "datasets.paris6k": "datasets.builders",
    "datasets.roxford5k": "datasets.builders",
    "datasets.rparis6k": "datasets.builders",
    "descriptor": "model.build",
    "engines": "runtimes",
    "explain": "views.explain",
    "extraction": "description.extract",
    "images": "photos.reading",
    "plot": "views.plot",
    "sources": "photos.sources",
    "whitening": "model.whitening",
}


def moved(name: str) -> ModuleType:
    """The module that had the name `name` below `rw_keras`."""
    earlier, present = f"rw_keras.{name}", f"rw_keras.{MOVED[name]}"
    # At the line that asks: this function, the caller's `__getattr__` or `exec_module`, and Python's own frames are passed over.
    warnings.warn(f"{earlier} is called {present} now; the earlier name goes with the next release.", FutureWarning, stacklevel=3)
    return importlib.import_module(present)


class _Finder:  # `importlib.abc` would take longer to load than all of this package's face
    """Finds the modules of `MOVED` for import statements, and loads them."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        if package != "rw_keras" or name not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # What is imported is what stands in `sys.modules` after this.
        sys.modules[module.__name__] = moved(module.__name__.partition(".")[2])


def install() -> None:
    """Lets import statements find the modules of `MOVED`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def lazy(module: str, **homes: str) -> Callable[[str], Any]:
    """A package's `__getattr__` that loads what it offers when that is first used: `lazy(__name__, extract="running")`.

    Args:
        module: the full name of the package.
        homes: name -> the module below the package that has it.
    """

    def find(name):
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{module}.{homes[name]}"), name)
        setattr(sys.modules[module], name, value)
        return value

    return find


def names(module: str, **homes: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that finds names which live elsewhere now: `names(__name__, list_photos="photos.sources")`.

    Args:
        module: the full name of the module that had them.
        homes: name -> the module below `rw_keras` that has it now.
    """

    def find(name):
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = f"rw_keras.{homes[name]}"
        warnings.warn(f"{module}.{name} is {home}.{name} now; the earlier name goes with the next release.", FutureWarning, 2)
        return getattr(importlib.import_module(home), name)

    return find


def renamed(**present: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets a function take keyword arguments under earlier names: `@renamed(engine="runtime")`.

    Raises:
        TypeError: by the function, when an argument is given under both names.
    """

    def decorated(function):
        @functools.wraps(function)
        def taking_earlier_names(*arguments, **keywords):
            for earlier in present.keys() & keywords.keys():
                name = present[earlier]
                if name in keywords:
                    raise TypeError(f"{earlier}= is the earlier name of {name}=; give {name}= alone.")
                warnings.warn(f"{earlier}= is called {name}= now; the earlier name goes with the next release.", FutureWarning, 2)
                keywords[name] = keywords.pop(earlier)
            return function(*arguments, **keywords)

        return taking_earlier_names

    return decorated


class RenamedAttribute:
    """An attribute under its earlier name, which warns: `engine = RenamedAttribute("runtime")` in a class that has `runtime`."""

    def __init__(self, present: str) -> None:
        self._present = present

    def __set_name__(self, owner: type, name: str) -> None:
        self._earlier = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        kind = owner.__name__  # the class that is asked, which may be derived from the one that has the attribute
        words = f"{kind}.{self._earlier} is called {kind}.{self._present} now; the earlier name goes with the next release."
        warnings.warn(words, FutureWarning, 2)
        return getattr(instance, self._present)
