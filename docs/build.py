"""Pages from notebooks; nothing is executed, the outputs are those that the notebooks hold.

    python docs/build.py readme    README.md, from nbs/index.ipynb
    python docs/build.py site      the documentation, from all of nbs/, into _docs/: open _docs/index.html,
                                   or, to search in it as well, python3 -m http.server -d _docs
"""
import ast
import logging
import posixpath
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
LINK = re.compile(r"""(\]\(|\b(?:src|href)=")(?![a-z]+:|[#/])([^)"#\s]+)""")   # to a picture or page of the project
DIRECTIVE = re.compile(r"^#\|.*\n?", re.MULTILINE)
ROOMS = {0: "Scans", 10: "Findings", 14: "Cases", 20: "Learning", 30: "Using", 50: "Doors"}   # from this number on


def load(path, relink):
    "A notebook without hidden cells and directives; `relink` is applied to every relative link in its prose."
    nb = nbformat.read(path, as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    nb.cells = [c for c in nb.cells if not re.match(r"#\|\s*hide\b", c.source)]
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = LINK.sub(lambda m: m[1] + relink(m[2]), cell.source)
        else: cell.exported, cell.source = cell.source.startswith("#| export"), DIRECTIVE.sub("", cell.source).strip()
    nb.cells = [c for c in nb.cells if c.source]
    return nb


def to_markdown(nb, name, outputs=True):
    "Markdown, and its pictures as {file name: bytes}."
    config = Config({"TemplateExporter": {"exclude_output": not outputs}})
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, resources = MarkdownExporter(config=config).from_notebook_node(nb, resources)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", resources["outputs"]


def readme():
    "README.md; its links start at the root of the repository."
    nb = load(NBS / "index.ipynb", lambda link: posixpath.normpath(posixpath.join(NBS.name, link)))
    (ROOT / "README.md").write_text(to_markdown(nb, "index", outputs=False)[0], encoding="utf-8")


def add_headings(nb):
    "Above each exported public function or class its name, so that contents and search find it."
    cells, nb.cells = nb.cells, []
    for cell in cells:
        if cell.get("exported"):
            names = [node.name for node in ast.parse(cell.source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
            names = [name for name in names if not name.startswith("_")]
            if names: nb.cells.append(nbformat.v4.new_markdown_cell("### " + ", ".join(f"`{n}`" for n in names)))
        nb.cells.append(cell)


def as_page(link):
    "Where a link to a notebook leads in the documentation."
    return re.sub(r"\.ipynb$", ".md", link)


def write_pages(out):
    "Every notebook and every other page or picture of nbs/, as markdown under `out`."
    shutil.rmtree(out, ignore_errors=True)
    for path in sorted(NBS.rglob("*")):
        to = out / path.relative_to(NBS)
        if path.is_dir() or any(part[0] in "._" for part in path.relative_to(NBS).parts): continue
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            nb = load(path, as_page)
            add_headings(nb)
            text, pictures = to_markdown(nb, path.stem)
            to.with_suffix(".md").write_text(text, encoding="utf-8")
            for name, data in pictures.items():
                (to.parent / name).parent.mkdir(exist_ok=True)
                (to.parent / name).write_bytes(data)
        elif path.suffix == ".md":
            text = LINK.sub(lambda m: m[1] + as_page(m[2]), path.read_text(encoding="utf-8"))
            to.write_text(text, encoding="utf-8")
        elif path.suffix in {".png", ".jpg", ".svg"}: shutil.copy(path, to)
    shutil.copy(ROOT / "docs" / "style.css", out)


def contents(pages):
    "The table of contents: the front door, tutorials, then the rooms by their numbers."
    rooms = {title: [] for title in ROOMS.values()}
    for page in sorted(pages.glob("[0-9]*.md")):
        rooms[ROOMS[max(n for n in ROOMS if n <= int(page.name.split("_")[0]))]].append(page.name)
    plain = sorted(p.name for p in pages.glob("[!0-9]*.md") if p.name != "index.md")
    tutorials = sorted(p.relative_to(pages).as_posix() for p in pages.glob("tutorials/*.md"))
    sections = {"Tutorials": tutorials, **rooms}
    return [{"The front door": "index.md"}, *plain, *({title: files} for title, files in sections.items() if files)]


def check_offline(site):
    "Refuse pages that fetch anything from elsewhere."
    fetched = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="?(?:https?:)?//[^\s>"]+|<link\b[^>]*rel="?(?:stylesheet|preconnect|icon)[^>]*\bhref="?(?:https?:)?//[^\s>"]+""")
    found = {f"{page.relative_to(site)}: {m[0]}" for page in site.rglob("*.html") for m in fetched.finditer(page.read_text(encoding="utf-8"))}
    if found: sys.exit("Pages that need the network:\n" + "\n".join(sorted(found)))


def site():
    "The documentation, in _docs/."
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    pages, out = ROOT / "_proc", ROOT / "_docs"
    logging.basicConfig(level=logging.WARNING, format="%(message)s")   # every warning is an error: mkdocs.yml is strict
    write_pages(pages)
    build(load_config(str(ROOT / "docs" / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(out), nav=contents(pages)))
    check_offline(out)
    print(f"{out.name}/index.html and {sum(1 for _ in out.rglob('*.html')) - 1} more pages")


if __name__ == "__main__":
    jobs = {"readme": readme, "site": site}
    if len(sys.argv) != 2 or sys.argv[1] not in jobs: sys.exit(__doc__)
    jobs[sys.argv[1]]()
