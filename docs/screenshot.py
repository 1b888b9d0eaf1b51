"""A picture of the page for README: starts the page, uploads a file, and saves what Chromium shows.

    python docs/screenshot.py FILE nbs/images/page.png
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


def main(file, out):
    command = [Path(sys.executable).with_name("lung-unet"), "app", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.goto(address)
            page.wait_for_selector(".lu .choose", timeout=60_000)
            page.set_input_files(".lu .files", file)
            page.wait_for_selector(".lu tbody tr", timeout=60_000)
            page.wait_for_timeout(500)
            page.screenshot(path=out)
            browser.close()
    finally:
        server.terminate()
    Image.open(out).convert("RGB").quantize(128).save(out, optimize=True)   # a third of the size, and nothing to see of it


if __name__ == "__main__":
    if len(sys.argv) != 3: sys.exit(__doc__)
    main(*sys.argv[1:])
