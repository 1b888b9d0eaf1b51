"""Who may open the page, and what it may not do: token, headers, foreign names, files, code, models."""
import http.client
import re
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import fuzz
import pytest
from made import encode, window
from playwright.sync_api import sync_playwright
from test_page import CHROMIUM, FLAGS, needs_browser, shows, started

from lung_unet.cli import main
from lung_unet.segmenter import Segmenter
from lung_unet.widget import HEADERS, Session

LUNG_UNET = Path(sys.executable).with_name("lung-unet")
TOKEN = "sesame-1729"


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    "The page on this computer alone, and the page for others; both started in a folder with a picture and a model in it."
    folder = tmp_path_factory.mktemp("desk")
    (folder / "Doe_Jane.png").write_bytes(encode(window()))
    (folder / "mine.keras").write_bytes(b"PK")
    pages = {"here": [], "all": ["--host", "0.0.0.0", "--token", TOKEN]}
    running = {name: started([LUNG_UNET, "app", "--port", "0", "--no-browser", *options], r"http://[\d.]+:\d+/", folder) for name, options in pages.items()}
    yield {name: int(re.search(r":(\d+)/", url)[1]) for name, (_, url) in running.items()}
    for process, _ in running.values():
        process.send_signal(signal.SIGINT)
        process.wait(30)


def get(port, path, method="GET", body=None, **headers):
    "Status, headers and body of an answer; nothing is followed."
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, b"" if answer.status == 101 else answer.read()


def kernel_of(html):
    "The number of the process that a page talks to."
    return re.search(r'"kernelId": ?"([^"]+)"', html)[1]


@pytest.mark.parametrize("path", ["/", "/voila/static/voila.js", "/voila/files/none.png", "/nothing/here", "/api/kernels/x"])
def test_every_answer_carries_the_headers(ports, path):
    for port in ports.values():
        _, headers, _ = get(port, path)
        assert all(headers.get_all(name) == [value] for name, value in HEADERS.items())


def test_the_policy_names_what_it_must():
    policy = HEADERS["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in policy and "object-src 'none'" in policy and "default-src 'self'" in policy
    assert "http" not in policy and "*" not in policy and "unsafe-eval" not in policy


def test_others_need_the_token(ports):
    for path in ("/", "/?token=wrong", "/?token="):
        status, headers, body = get(ports["all"], path)
        assert status == 302 and "/login" in headers["Location"] and b"widget" not in body
    assert get(ports["all"], "/", Authorization="token wrong")[0] == 302
    assert get(ports["all"], f"/?{urlencode({'token': TOKEN})}")[0] == 200


@pytest.mark.parametrize("token", ["None", "'a b&c#d%ü+'"])
def test_a_token_is_what_was_typed(token):
    "Whatever a command line of Voila's would make of it: nobody comes in without it, and the address that is printed opens the page."
    process, url = started([LUNG_UNET, "app", "--port", "0", "--no-browser", "--host", "0.0.0.0", "--token", token], r"http://\S+")
    port = int(re.search(r":(\d+)/", url)[1])
    answers = [get(port, path)[0] for path in ("/", "/?token=", url[url.index("/?"):])]
    process.send_signal(signal.SIGINT)
    assert (process.wait(60), answers) == (0, [302, 302, 200]) and url.isascii()


@pytest.mark.parametrize("seconds", [0, 1])
def test_an_end_at_once_is_no_failure(seconds):
    "Ctrl+C while the first kernels are being started: they end too, and nobody complains."
    process, _ = started([LUNG_UNET, "app", "--port", "0", "--no-browser"], r"http://\S+")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)   # which waits for whoever else could still write there
    assert process.returncode == 0 and not any(said), said


def test_a_page_here_answers_to_no_foreign_name(ports):
    "A web site that makes its own name point to this computer does not get the page."
    assert get(ports["here"], "/", Host="evil.example")[0] == 403
    assert get(ports["here"], "/", Host=f"localhost:{ports['here']}")[0] == 200


@pytest.mark.parametrize("path", ["/voila/files/Doe_Jane.png", "/voila/files/../Doe_Jane.png", "/voila/files/%2e%2e/Doe_Jane.png", "/voila/files/mine.keras",
                                  "/voila/files//etc/passwd", "/voila/static/..%2f..%2f..%2f..%2fetc/passwd", "/voila/templates/..%2f..%2fetc/passwd",
                                  "/api/contents/", "/api/terminals", "/api/sessions", "/api/kernels", "/files/Doe_Jane.png", "/Doe_Jane.png"])
def test_no_file_of_this_computer_is_served(ports, path):
    status, headers, body = get(ports["here"], path)
    assert status != 200 and b"root:" not in body and b"PNG" not in body and b"PK" not in body
    if status == 302: assert headers["Location"].startswith(("/login", "/voila/files"))


def test_the_line_is_closed_to_other_sites(ports):
    "A page of another site, open in the same browser, cannot join a visit, even if it knew its number."
    port = ports["here"]
    kernel = kernel_of(get(port, "/")[2].decode())
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
    opened = {origin: get(port, f"/api/kernels/{kernel}/channels", Origin=origin, **upgrade)[0] for origin in (f"http://127.0.0.1:{port}", "http://site.example", f"http://127.0.0.1:{port + 1}")}
    assert list(opened.values()) == [101, 403, 403]


def test_idle_visits_are_ended_and_fresh_ones_are_not():
    "A process that waited for its visitor longer than it may be idle has its whole time before it; one that nobody is connected to ends."
    process, url = started([sys.executable, "-c", "import lung_unet.widget as w; w.IDLE, w.LOOK = 6, 1; w.serve(0, browser=False)"], r"http://[\d.]+:\d+/")
    port = int(re.search(r":(\d+)/", url)[1])
    get(port, "/")    # both that wait are ready
    time.sleep(9)
    kernel = kernel_of(get(port, "/")[2].decode())
    given, lived = time.monotonic(), 0
    while lived < 60 and get(port, f"/api/kernels/{kernel}")[0] == 200:
        time.sleep(0.5)
        lived = time.monotonic() - given
    process.send_signal(signal.SIGINT)
    process.wait(30)
    assert 5 < lived < 60


SPEAK = """async ([kind, content]) => {   // what a visitor who means ill would send down the page's own line
    const id = JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId;
    const socket = new WebSocket(location.href.replace('http', 'ws') + `api/kernels/${id}/channels`);
    await new Promise(done => { socket.onopen = done; });
    const heard = [];
    socket.onmessage = event => heard.push(String(event.data));
    const header = { msg_id: kind, msg_type: kind, username: '', session: 'other', version: '5.3', date: '' };
    socket.send(JSON.stringify({ channel: 'shell', header, parent_header: {}, metadata: {}, content }));
    await new Promise(done => setTimeout(done, 3000));
    socket.close();
    return heard.join(' ');
}"""


@needs_browser
def test_a_visitor_can_run_no_code(ports, tmp_path):
    "The line between page and server takes the messages of widgets and no others."
    proof = tmp_path / "ran"
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{ports['here']}/")
        page.wait_for_selector(".lu .choose", timeout=60_000)
        assert "kernel_info_reply" in page.evaluate(SPEAK, ["kernel_info_request", {}])   # the line is open
        code = {"code": f"open({str(proof)!r}, 'w').close()", "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        assert "execute" not in page.evaluate(SPEAK, ["execute_request", code]) and not proof.exists()
        browser.close()


@needs_browser
def test_a_page_that_is_left_ends_its_visit(ports):
    "With its goodbye everything goes that was uploaded to it."
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{ports['here']}/")
        page.wait_for_selector(".lu .choose", timeout=60_000)
        kernel = kernel_of(page.content())
        states = [get(ports["here"], f"/api/kernels/{kernel}")[0]]
        page.goto("about:blank")
        while states[-1] == 200 and len(states) < 30:
            time.sleep(0.5)
            states.append(get(ports["here"], f"/api/kernels/{kernel}")[0])
        browser.close()
    assert states[0] == 200 and states[-1] == 404


def test_nobody_else_ends_a_visit(ports):
    "The goodbye asks for no cookie, but where there is a token for who says it."
    token = {"Authorization": f"token {TOKEN}"}
    kernel = kernel_of(get(ports["all"], "/", **token)[2].decode())
    assert get(ports["all"], f"/voila/api/shutdown/{kernel}", "POST")[0] == 403 and get(ports["all"], f"/api/kernels/{kernel}", **token)[0] == 200
    assert get(ports["all"], f"/voila/api/shutdown/{kernel}", "POST", **token)[0] == 204 and get(ports["all"], f"/api/kernels/{kernel}", **token)[0] == 404
    assert get(ports["all"], f"/voila/api/shutdown/{kernel}", "POST", **token)[0] == 204   # said twice


@needs_browser
def test_with_token_in_a_browser(ports):
    "The page works under its own policy, with a token, and complains of nothing."
    complaints = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("console", lambda m: complaints.append(m.text) if "Content Security" in m.text or "Refused" in m.text else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(f"http://127.0.0.1:{ports['all']}/?token={TOKEN}")
        page.wait_for_selector(".lu .choose", timeout=60_000)
        page.click(".sample")
        shows(page, "sample")
        with page.expect_download(): page.click("[data-save=zip]")
        browser.close()
    assert complaints == []


@needs_browser
def test_no_frame_in_another_site(ports):
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.route("http://site.example/", lambda route: route.fulfill(content_type="text/html", body=f"<iframe src='http://127.0.0.1:{ports['here']}/'></iframe>"))
        page.goto("http://site.example/")
        page.wait_for_timeout(2000)
        shown = page.frames[1].url
        browser.close()
    assert shown.startswith("chrome-error:")


def test_an_open_page_must_be_asked_for(capsys):
    assert main(["app", "--host", "0.0.0.0", "--token", "", "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--token none" in said


def test_the_page_loads_no_model_of_a_visitor(tmp_path):
    "Whatever a model is called, the page takes it for a picture that is none; no message names a model."
    said = []
    session = Session(Segmenter.load(), lambda message, buffers: said.append(message) if message["kind"] != "progress" else None)
    model = Path(__file__).parent.parent / "models" / "segmentation_model_unet_final.keras"
    for name in ("m.keras", "m.h5", "m.xml", "m.png"):
        session.handle({"kind": "piece", "name": name, "part": 0, "parts": 1}, [model.read_bytes()])
    session.wait()
    assert [m["kind"] for m in said if m["kind"] != "progress"] == ["error"] * 4
    assert not any("model" in action or "load" in action for action in Session.ACTIONS)
    before = len(said)
    for kind in ("load", "model", "__init__", "segmenter", "add", "show", "handle"):
        session.handle({"kind": kind, "name": "x", "model": str(model)}, [])
    assert len(said) == before


def test_an_upload_lives_in_memory_alone(tmp_path, monkeypatch):
    "Nothing is written while a picture is uploaded, judged and taken away; with the session its pictures go."
    import gc
    import weakref

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = []
    session = Session(Segmenter.load(), lambda message, buffers: said.append(message["kind"]))
    for name, data in {"a.png": encode(window()), "study.zip": fuzz._zip(fuzz.SLICES), "volume.nii": fuzz._nifti().to_bytes()}.items():
        session.handle({"kind": "piece", "name": name, "part": 0, "parts": 1}, [data])
    session.wait()
    for picture in (1, 2, 3): session.handle({"kind": "save", "picture": picture, "what": "zip"}, [])
    session.wait()
    assert list(tmp_path.iterdir()) == [] and said.count("file") == 3 and "error" not in said
    picture = weakref.ref(session.readings[1].seg)
    del session
    gc.collect()
    assert picture() is None
