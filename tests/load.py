"""Many visitors at once, each in a browser of its own: every picture gets its own right answer, nobody sees another's, and the server lives on.

    python tests/load.py --browsers 8 --uploads 50 --seed 0 --out docs/records/load.json

One upload in five is garbage, one visit in six is dropped midway, without a goodbye. Kernels that nobody is connected to are ended
after three minutes here (six hours otherwise), so that the run can see their memory come back.
"""
import argparse
import asyncio
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from made import encode
from PIL import Image
from playwright.async_api import async_playwright
from test_bad_input import BAD
from test_page import CHROMIUM, FLAGS

from lung_unet.phantom import Tumour, chest, to_png
from lung_unet.segmenter import Segmenter

SERVER = """import signal
import lung_unet.widget as w
signal.signal(signal.SIGINT, signal.default_int_handler)   # a run in the background hands on that it is to be ignored
w.IDLE = 180
w.serve(0, browser=False)"""
GARBAGE = {name: data for name, data in BAD.items() if len(data) < 10**6}
PATIENCE = 300_000   # ms, for an answer under load


# --- what the server holds

def family(pid):
    "A process and all below it."
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(p for child in children for p in family(int(child)))]

def memory(pid):
    "MiB that a process and all below it hold, shared pages divided among those who share them; and how many processes they are."
    total, alive = 0, 0
    for p in family(pid):
        try: total += int(re.search(r"Pss:\s*(\d+)", Path(f"/proc/{p}/smaps_rollup").read_text(encoding="utf-8"))[1])
        except (FileNotFoundError, ProcessLookupError): continue   # it has just ended
        alive += 1
    return total // 1024, alive

async def watch(pid, peaks):
    "The highest memory while the visitors are there."
    while True:
        peaks.append(memory(pid)[0])
        await asyncio.sleep(1)

async def back_to(pid, processes, seconds):
    "Wait until no more processes are left than there were; memory and processes then."
    end = time.monotonic() + seconds
    while time.monotonic() < end and memory(pid)[1] > processes: await asyncio.sleep(2)
    return memory(pid)


# --- a visitor

def pictures(count):
    "Chests with their right answers: (PNG bytes, mask)."
    segmenter, made = Segmenter.load(), []
    for n in range(count):
        data = encode(to_png(chest(tumours=(Tumour(diameter_mm=15 + 2 * n),), seed=n).scan.pixels))
        made.append((data, segmenter.segment(data).mask))
    return made

async def open_page(browser, url, count):
    start, page = time.perf_counter(), await browser.new_page()
    await page.goto(url, timeout=PATIENCE)
    await page.wait_for_selector(".lu .choose", timeout=PATIENCE)
    count["opening"].append(time.perf_counter() - start)
    return page

async def send(page, name, data):
    await page.set_input_files(".lu .files", [{"name": name, "mimeType": "image/png", "buffer": data}])

async def right_answer(page, name, mask):
    "Is the answer to this upload its own: name and mask, pixel by pixel, and is every name in the strip this visitor's?"
    await page.wait_for_selector(f".lu .name:has-text('{name}, ')", timeout=PATIENCE)
    await page.wait_for_selector(".lu .status", state="hidden", timeout=PATIENCE)
    async with page.expect_download(timeout=PATIENCE) as download: await page.click("[data-save=mask]")
    got = np.asarray(Image.open(io.BytesIO(Path(await (await download.value).path()).read_bytes()))) > 0
    names = await page.locator(".strip button span").all_inner_texts()
    return np.array_equal(got, mask) and all(n.startswith(name.split("_")[0] + "_") for n in names)

async def refused(page, name):
    "Is the answer to garbage one sentence about it?"
    await page.wait_for_selector(".lu .error:not([hidden])", timeout=PATIENCE)
    await page.wait_for_selector(".lu .status", state="hidden", timeout=PATIENCE)
    said = await page.locator(".lu .error div").all_inner_texts()
    return said[-1].startswith(f"{name}: ") and said[-1].endswith(".")

async def visitor(playwright, url, number, uploads, made, seed, count):
    "So many uploads, over as many visits as it takes; `count` gathers what came of them."
    rng, begin = random.Random(f"{seed} {number}"), lambda: playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    browser = await begin()
    page = await open_page(browser, url, count)
    for n in range(uploads):
        start, (data, mask) = time.perf_counter(), made[(number * 7 + n) % len(made)]
        if rng.random() < 1 / 6:   # in the middle of an upload the browser is gone
            await send(page, f"v{number}_{n}.png", data)
            await browser.close()
            count["dropped"] += 1
            browser = await begin()
            page = await open_page(browser, url, count)
        elif rng.random() < 1 / 5:
            name = rng.choice(list(GARBAGE))
            await send(page, name, GARBAGE[name])
            good = await refused(page, name)
            count["garbage"] += 1
            count["garbage_refused"] += good
        else:
            await send(page, f"v{number}_{n}.png", data)
            good = await right_answer(page, f"v{number}_{n}", mask)   # awaited first: others count in between
            count["valid"] += 1
            count["right"] += good
            count["seconds"].append(time.perf_counter() - start)
    await browser.close()


# --- the run

def started():
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, re.search(r"http://\S+/", process.stdout.readline())[0]

async def load(browsers, uploads, seed):
    "The figures of a run."
    made, (server, url) = pictures(12), started()
    count, peaks = {"valid": 0, "right": 0, "garbage": 0, "garbage_refused": 0, "dropped": 0, "seconds": [], "opening": []}, []
    try:
        async with async_playwright() as playwright:
            await visitor(playwright, url, 99, 1, made, "first", dict(count, seconds=[], opening=[]))   # everything is warm
            before, processes = await back_to(server.pid, 3, 420)   # the server and two kernels that wait
            watching = asyncio.create_task(watch(server.pid, peaks))
            began = time.perf_counter()
            await asyncio.gather(*(visitor(playwright, url, k, uploads, made, seed, count) for k in range(browsers)))
            took = time.perf_counter() - began
            watching.cancel()
            after, left = await back_to(server.pid, processes, 420)
            alive = dict(count, seconds=[], opening=[], valid=0, right=0)
            await visitor(playwright, url, 98, 1, made, "last", alive)
    finally:
        server.send_signal(signal.SIGINT)
        complaints = server.communicate(timeout=60)[1]
    return {"browsers": browsers, "uploads": browsers * uploads, **{k: v for k, v in count.items() if k not in ("seconds", "opening")},
            "median_s": round(float(np.median(count["seconds"])), 2), "slowest_s": round(max(count["seconds"]), 2),
            "opening_median_s": round(float(np.median(count["opening"])), 1), "opening_slowest_s": round(max(count["opening"]), 1), "minutes": round(took / 60, 1),
            "memory_before_MiB": before, "memory_peak_MiB": max(peaks), "memory_after_MiB": after, "processes_before": processes, "processes_after": left,
            "answers_afterwards": alive["right"] == 1, "lines_on_stderr": complaints.count("\n"), "cores": os.cpu_count(), "seed": seed}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", type=int, default=2)
    parser.add_argument("--uploads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    figures = asyncio.run(load(args.browsers, args.uploads, args.seed))
    text = json.dumps(figures, indent=1) + "\n"
    if args.out: args.out.write_text(text, encoding="utf-8")
    print(text)
    good = figures["right"] == figures["valid"] and figures["garbage_refused"] == figures["garbage"] and figures["answers_afterwards"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
