"""Notebooks as tests: every asserting cell is one pytest item, and every notebook has one item `runs` besides.

The cells of a notebook share one namespace and run in order, each at most once; choosing one item runs the cells before
it as well. Tutorials are one item, `runs`. A cell marked `#| eval: false` is left out. A cell that raises `SkipTest` skips
its own item, with its reason; outside an asserting cell it skips the rest of the notebook.
"""
import ast
import json
import linecache
import os
import re
import subprocess
import sys
import traceback
import types
import unittest
from contextlib import contextmanager
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import rewrite_asserts

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

DIRECTIVE = re.compile(r"^\s*#\s*\|\s*(.*?)\s*$", re.MULTILINE)
TESTING = re.compile(r"(test|assert)_|assert[A-Z]|raises$")   # names of functions that fail when something is wrong
SKIPPED = (unittest.SkipTest, pytest.skip.Exception)
RAISED = (Exception, SystemExit, pytest.fail.Exception, pytest.skip.Exception)


def pytest_collection_modifyitems(items):
    "Tutorials take longest, so they begin first: nobody waits for one of them at the end."
    items.sort(key=lambda item: "tutorials" not in item.path.parts)


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb" and not file_path.name.startswith("_"):
        return Notebook.from_parent(parent, path=file_path)


class Cell:
    "One code cell."
    def __init__(self, notebook, number, source):
        from IPython.core.inputtransformer2 import TransformerManager
        self.number, self.source = number, source
        self.directives = DIRECTIVE.findall(source)
        self.file = f"<{notebook} cell {number}>"
        self.text = TransformerManager().transform_cell(source)   # %magics and !commands become calls of get_ipython()
        lines = [line.strip() for line in source.splitlines() if line.strip() and not DIRECTIVE.match(line)]
        self.title = f"cell {number}: {lines[0] if lines else ''}".replace("::", ":")[:80]

    @property
    def skipped(self): return any(re.fullmatch(r"eval\s*:\s*false", d) for d in self.directives)

    @property
    def exported(self): return any(re.match(r"export|exec", d) for d in self.directives)

    def tree(self):
        try: return ast.parse(self.text)
        except SyntaxError: return ast.Module([], [])   # said when the cell is run

    def run(self, namespace):
        linecache.cache[self.file] = len(self.text), None, self.text.splitlines(keepends=True), self.file
        tree = ast.parse(self.text, self.file)
        rewrite_asserts(tree, self.text.encode())       # so that a failed assertion shows its values
        exec(compile(tree, self.file, "exec"), namespace)


def walk(node):
    "The nodes below that run when the cell runs: what a function holds waits until it is called."
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)): yield from walk(child)

def asserts(tree, helpers=()):
    "Can this code fail a test: does it assert, or call a function that does?"
    def name(call): return getattr(call.func, "id", getattr(call.func, "attr", ""))
    return any(isinstance(node, ast.Assert) or isinstance(node, ast.Call) and (TESTING.match(name(node)) or name(node) in helpers)
               for node in walk(tree))


class Shell:
    "What is left of IPython outside of a kernel: commands are run, magics that only concern the display are passed over."
    def run_line_magic(self, name, line, **kwargs):
        if name not in {"matplotlib", "config", "load_ext", "reload_ext", "autoreload"}:
            raise NotImplementedError(f"%{name} cannot be run outside of Jupyter: write it in Python, or mark the cell `#| eval: false`.")

    def run_cell_magic(self, name, line, cell): self.run_line_magic("%" + name, line)

    def system(self, command):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path})


class Notebook(pytest.File):
    def collect(self):
        cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        self.cells = [Cell(self.path.name, i, "".join(c["source"])) for i, c in enumerate(cells) if c["cell_type"] == "code"]
        self.cells = [c for c in self.cells if not c.skipped]
        tutorial = self.path.parent.name == "tutorials"
        helpers, self.asserting = set(), set()
        for cell in self.cells:
            tree = cell.tree()
            helpers |= {f.name for f in walk(tree) if isinstance(f, ast.FunctionDef) and asserts(f) and not cell.exported}
            if asserts(tree, helpers) and not cell.exported and not tutorial: self.asserting.add(cell.number)
        for cell in self.cells:
            if cell.number in self.asserting: yield CellItem.from_parent(self, name=cell.title, cell=cell)
        if self.cells: yield CellItem.from_parent(self, name="runs", cell=None)

    def setup(self):
        from IPython.display import display
        self.errors = {}   # cell number -> what it raised, or None
        self.told = set()  # numbers of the cells whose failure has been shown in full
        self.module = types.ModuleType("__main__")
        self.module.__dict__.update(display=display, get_ipython=Shell)

    def teardown(self): self.module = self.errors = self.told = None

    @contextmanager
    def at_home(self):
        "As in Jupyter: the notebook's own folder is the current one, and its namespace is `__main__`."
        before, main = os.getcwd(), sys.modules["__main__"]
        os.chdir(self.path.parent)
        sys.modules["__main__"] = self.module
        try: yield
        finally:
            os.chdir(before)
            sys.modules["__main__"] = main

    def run(self, cell):
        "Run a cell unless it has been; returns what it raised, or None."
        if cell.number not in self.errors:
            self.errors[cell.number] = None
            with self.at_home():
                try: cell.run(self.module.__dict__)
                except RAISED as e: self.errors[cell.number] = e
            if "matplotlib.pyplot" in sys.modules: sys.modules["matplotlib.pyplot"].close("all")
        return self.errors[cell.number]


class CellItem(pytest.Item):
    def __init__(self, *, cell, **kwargs):
        super().__init__(**kwargs)
        self.cell = cell   # None: the item `runs`, all cells that no other item answers for

    def runtest(self):
        for cell in self.parent.cells:
            error = self.parent.run(cell)
            if error is not None and (cell is self.cell or cell.number not in self.parent.asserting):
                if isinstance(error, SKIPPED): pytest.skip(f"{self.path.name} cell {cell.number}: {error}")
                raise CellError(self.parent.told, cell, error, own=self.cell in (None, cell))
            if cell is self.cell: return

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, CellError) else super().repr_failure(excinfo)

    def reportinfo(self): return self.path, None, f"{self.path.name}::{self.name}"


class CellError(Exception):
    "A cell has failed: its source, and the traceback from there on; at every later cell only what it was."
    def __init__(self, told, cell, error, own):
        tb = error.__traceback__
        while tb and tb.tb_frame.f_code.co_filename != cell.file: tb = tb.tb_next
        head = f"cell {cell.number} failed" if own else f"not run, because cell {cell.number} before it failed"
        if cell.number in told: text = [f"{head}: {type(error).__name__}: {error}"]
        else: text = [f"{head}:", "", *("    " + line for line in cell.source.splitlines()), "",
                      "".join(traceback.format_exception(type(error), error, tb)).rstrip()]
        told.add(cell.number)
        super().__init__("\n".join(text))
