"""Compile lockring's hot modules into a directory: `python -m compiled DIRECTORY`.

mypyc turns the modules of `compiled.modules` into C, and the compiler of this Python turns that into one shared library
and a small extension per module. Nothing is written into the sources: an extension beside a module that changes later
would win over it unnoticed.

With gcc the C is compiled twice. The first build counts how often each branch is taken while `compiled.train` runs, and
the second one is laid out by these counts. Other compilers build it once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import setuptools
from mypyc.build import mypycify
from setuptools.command.build_ext import build_ext

from compiled import compiler
from compiled.modules import PACKAGE, compiled_modules, path_of

ROOT: Final = Path(__file__).resolve().parents[1]
GROUP: Final = "lockring.compiled"
"""Names the shared library, `lockring/compiled__mypyc`."""

_ALWAYS: Final = ("-Wno-error",)  # a newer compiler may warn of what this one does not
_COUNTING: Final = ("-fprofile-generate",)
_COUNTED: Final = (
    *("-fprofile-use", "-fprofile-correction", "-Wno-missing-profile"),
    # Code that the training does not reach is compiled as usual, and not for the smallest size.
    "-fprofile-partial-training",
)


class _BuildExtensions(build_ext):
    """Compiles many files at once: the library has a file of C for each module."""

    def build_extensions(self) -> None:
        compiler_here: Any = self.compiler
        compile_one = compiler_here.compile

        def compile_at_once(sources: Sequence[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda source: compile_one([source], **options), sources)
                return [each for objects in found for each in objects]

        compiler_here.compile = compile_at_once
        super().build_extensions()


def make_c(work: Path) -> list[Any]:
    """Turn the modules into C, and return the extensions to build of it: the library, and one for each module.

    Raises:
        SystemExit: a module cannot be compiled; the reasons are printed.
    """
    sources = [str(path_of(module)) for module in compiled_modules()]
    options = ["--config-file=compiled/mypy.ini"]
    extensions = mypycify(
        [*options, *sources],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        target_dir=str(work),
        group_name=GROUP,
    )
    for extension in extensions:
        extension.include_dirs.append(
            str(work / GROUP.partition(".")[0])
        )  # the headers of a group in a package
    return list(extensions)


def build(target: Path, work: Path, *, is_trained: bool, flags: Sequence[str] = ()) -> None:
    """Compile the modules into `target`, as `lockring/…/*.so`. Both directories are emptied first.

    Args:
        target: where the results go.
        work: for C files, objects and the modules that are trained.
        is_trained: whether to lay them out by a training run, where the compiler can.
        flags: for the compiler, beside those that mypyc wants; without effect on what is trained.
    """
    for directory in (target, work):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    library, *shims = make_c(work / "c")
    objects = work / "objects"
    _compile(shims, target, objects, flags)
    if is_trained and compiler.is_gcc():
        place = work / "trained"
        shutil.copytree(PACKAGE, place / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(target, place, dirs_exist_ok=True)
        _compile([library], place, objects, _COUNTING)
        _train(place)
        # The counts lie beside the objects, and are found by their paths: the second build has the same.
        _compile([library], target, objects, _COUNTED)
    else:
        _compile([library], target, objects, flags)


def _compile(extensions: list[Any], target: Path, objects: Path, flags: Sequence[str] = ()) -> None:
    for extension in extensions:
        given = [flag for flag in extension.extra_compile_args if flag not in (*_ALWAYS, *_COUNTING)]
        extension.extra_compile_args = [*given, *_ALWAYS, *flags]
        extension.extra_link_args = list(flags)
    command = _BuildExtensions(setuptools.Distribution({"name": "lockring", "ext_modules": extensions}))
    command.build_lib, command.build_temp, command.force = str(target), str(objects), True
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()


def _train(place: Path) -> None:
    """Run the training on the modules that count. They write their counts beside their objects when it ends."""
    subprocess.run(
        [sys.executable, "-m", "compiled.train"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
    )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m compiled")
    parser.add_argument("target", type=Path, help="the directory for the compiled modules")
    parser.add_argument("--plain", action="store_true", help="without a training run, in half the time")
    parser.add_argument("--quick", action="store_true", help="without optimizations either, for tests")
    parser.add_argument("--only-c", action="store_true", help="only see whether the modules can be compiled")
    arguments = parser.parse_args()
    target = arguments.target.resolve()
    work = target.with_name(target.name + "-work")
    os.chdir(ROOT)  # mypyc names modules by their paths from here
    if arguments.only_c:
        make_c(work / "c")
        return
    reason = compiler.lack()
    if reason:
        sys.exit(f"lockring cannot be compiled: {reason}")
    is_trained = not (arguments.plain or arguments.quick)
    build(target, work, is_trained=is_trained, flags=("-O0",) if arguments.quick else ())


if __name__ == "__main__":
    main()
