"""A headless browser on a Jupyter server, for the tests and the benchmark of the live demo.

Chromium's microphone plays a sound file.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat
import numpy as np
import soundfile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
APPS = ("lab", "notebook", "voila")
PATIENCE = float(os.environ.get("OMNI_PATIENCE", 1))  # factor of all timeouts, for a slow machine
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET_FLAGS = (
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-gpu",
    "--disable-sync", "--no-first-run", "--no-pings", "--disable-features=OptimizationHints,MediaRouter,Translate",
)
# Writes the demo's state to a file every 0.1 s, because a Voila page cannot run a cell that prints it.
REPORTER = """
import json, os, threading, time
from pathlib import Path
import psutil
from omni_lite.course.widgets import LiveDemo
from omni_lite.load import load_assistant

demo = LiveDemo(load_assistant(), folder="turns")
demo.recorder.keep_open_s = 0                # the fake microphone plays its file each time it is opened

def report():
    path = Path(os.environ["OMNI_REPORT"])
    process = psutil.Process()
    while True:
        turns = [dict(heard=t.heard, text=t.text, samples=len(t.wav_24k), source=t.question.source, reason=t.reason,
                      question_s=len(t.question.wav_16k) / 16000, stages_ms=t.stages_ms, page=t.page)
                 for t in demo.history]
        state = dict(turns=turns, error=demo.recorder.error, rss_mb=process.memory_info().rss / 1e6)
        path.with_suffix(".new").write_text(json.dumps(state))
        os.replace(path.with_suffix(".new"), path)
        time.sleep(0.1)

threading.Thread(target=report, daemon=True).start()
"""


def why_no_browser() -> str | None:
    """Why this machine cannot run the browser, in one sentence; None if it can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: run `pip install playwright` (`playwright install` is not needed)."
    if chromium() is None:
        return "Chromium is not installed: on Debian, run `apt install chromium`."
    return None


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


def microphone_wav(path: Path, wave: np.ndarray, rate: int, before_s: float = 0.5, after_s: float = 0.5) -> Path:
    """Write the fake microphone's file: the wave at Chromium's 48 kHz, with silence around it."""
    import soxr

    wave = soxr.resample(wave, rate, 48_000)
    quiet = [np.zeros(round(seconds * 48_000), np.float32) for seconds in (before_s, after_s)]
    soundfile.write(path, np.concatenate([quiet[0], wave, quiet[1]]), 48_000, subtype="PCM_16")
    return path


class Server:
    """JupyterLab, Notebook 7 or Voila; it serves a folder inside a `with` block.

    report: the file of a notebook's REPORTER
    """

    def __init__(self, app: str, folder: Path, nice: int = 0) -> None:
        assert app in APPS, app
        self.app, self.folder, self.nice = app, folder, nice
        self.report = folder / "report.json"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> "Server":
        state = self.folder / "jupyter"
        settings = state / "config" / "labconfig"
        settings.mkdir(parents=True, exist_ok=True)
        news = {"@jupyterlab/apputils-extension:announcements": True}
        (settings / "page_config.json").write_text(json.dumps({"disabledExtensions": news}))
        env = os.environ | {
            "JUPYTER_CONFIG_DIR": str(state / "config"), "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
            "JUPYTER_DATA_DIR": str(state / "data"), "IPYTHONDIR": str(state / "ipython"),
            "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
            "OMNI_REPORT": str(self.report),
        }
        bin_folder = Path(sys.executable).parent
        if self.app == "voila":
            command = [bin_folder / "voila", "--no-browser", f"--port={self.port}", "--Voila.ip=127.0.0.1", "."]
        else:
            command = [bin_folder / f"jupyter-{self.app}", "--no-browser", "--allow-root", f"--port={self.port}",
                       "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
                       f"--{'LabApp' if self.app == 'lab' else 'JupyterNotebookApp'}.expose_app_in_browser=True"]
        self.log = open(self.folder / f"{self.app}.log", "w")
        self.process = subprocess.Popen(["nice", "-n", str(self.nice), *map(str, command)], cwd=self.folder, env=env,
                                        stdout=self.log, stderr=self.log)
        address = f"http://127.0.0.1:{self.port}/" + ("voila/static/voila.js" if self.app == "voila" else "api")
        for _ in range(int(300 * PATIENCE)):
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.app} did not start: see {self.log.name}.")
            try:
                urllib.request.urlopen(address, timeout=5)
                return self
            except urllib.error.HTTPError:   # an error page means that the server runs
                return self
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"{self.app} did not answer within a minute: see {self.log.name}.")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()

    def url(self, name: str) -> str:
        """The address of a notebook of the folder."""
        place = {"lab": f"lab/tree/{name}?reset", "notebook": f"notebooks/{name}", "voila": f"voila/render/{name}"}
        return f"http://127.0.0.1:{self.port}/{place[self.app]}"

    def state(self) -> dict:
        """The last report of the REPORTER."""
        return json.loads(self.report.read_text()) if self.report.exists() else {"turns": []}

    def wait(self, what: str, done: Any, seconds: float = 60) -> Any:
        """Wait until `done(state)` is true for the reported state, and return it."""
        end = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < end:
            state = self.state()
            if done(state):
                return state
            time.sleep(0.05)
        raise TimeoutError(f"{what} did not happen within {seconds * PATIENCE:.0f} s. The last state: {self.state()}")


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    """Write a notebook of code cells."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    path.write_text(nbformat.writes(notebook))
    return path


@contextmanager
def browser(
    microphone: Path | None = None, *, loop: bool = False, allow: bool = True, nice: int = 0
) -> Iterator[Any]:
    """A headless Chromium.

    microphone: its file, played each time the page opens it; None: the machine has none
    allow:      whether the user allows the microphone
    """
    from playwright.sync_api import sync_playwright

    flags = list(QUIET_FLAGS)
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    if microphone is not None:
        end = "" if loop else "%noloop"
        flags += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}{end}"]
        flags += ["--use-fake-ui-for-media-stream"] * allow
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=chromium(), headless=True, args=flags,
                                              timeout=30_000 * PATIENCE)
        try:
            yield window
        finally:
            window.close()


class LivePage:
    """One notebook with a LiveDemo, open in a browser."""

    def __init__(self, window: Any, server: Server, name: str, *, tap: bool = True, size: tuple[int, int] = (1280, 800),
                 script: str = "") -> None:
        self.server = server
        self.page = window.new_page(viewport=dict(width=size[0], height=size[1]))
        self.page.set_default_timeout(30_000 * PATIENCE)
        self.console: list[str] = []
        self.page.on("pageerror", lambda error: self.console.append(f"{error} {error.stack}"))
        self.page.on("console", lambda m: self.console.append(m.text) if m.type == "error" else None)
        if tap:
            self.page.add_init_script(path=str(HERE / "tap.js"))
        if script:
            self.page.add_init_script(script)
        self.page.goto(server.url(name), wait_until="domcontentloaded", timeout=120_000 * PATIENCE)
        if server.app != "voila":
            self.page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=120_000 * PATIENCE)
            self.page.wait_for_function("""() => {
                const session = window.jupyterapp?.shell.currentWidget?.context?.sessionContext;
                const kernel = session?.isReady && session.session?.kernel;
                return kernel && kernel.status === "idle" && kernel.connectionStatus === "connected"; }""",
                timeout=120_000 * PATIENCE)

    def run(self, cell: int, wait: bool = True) -> None:
        """Run a cell as a user does: click into it, then press Shift+Enter."""
        self.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content").click(position={"x": 5, "y": 8})
        self.page.keyboard.press("Shift+Enter")
        if wait:
            self.page.wait_for_function("""i => /\\[\\d+\\]/.test(document.querySelectorAll(".jp-CodeCell")[i]
                .querySelector(".jp-InputPrompt").textContent)""", arg=cell, timeout=120_000 * PATIENCE)

    def ready(self) -> "LivePage":
        """Wait until the recorder and the talker are on the page."""
        self.page.wait_for_selector(".omni-recorder button", timeout=120_000 * PATIENCE)
        self.page.wait_for_selector(".omni-talker button", timeout=120_000 * PATIENCE)
        return self

    def state(self, part: str) -> str:
        """`data-state` of the recorder or the talker."""
        return self.page.locator(f".omni-{part}").get_attribute("data-state")

    def wait_for(self, part: str, *states: str, seconds: float = 30) -> None:
        """Wait until a part is in one of these states."""
        wanted = ", ".join(f'.omni-{part}[data-state="{state}"]' for state in states)
        self.page.wait_for_selector(wanted, timeout=1000 * seconds * PATIENCE)

    def text(self, part: str) -> str:
        """The visible text of the recorder or the talker."""
        return self.page.locator(f".omni-{part}").inner_text()

    def press(self) -> None:
        """Press the talk button and hold it."""
        box = self.page.locator(".omni-talk").bounding_box()
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()

    def speak(self, seconds: float) -> None:
        """Hold the talk button for so many seconds after the microphone opens."""
        self.press()
        self.wait_for("recorder", "recording")
        self.page.wait_for_timeout(1000 * seconds)
        self.page.mouse.up()

    def sounded(self) -> dict | None:
        """The recording of tap.js since the last call, samples as float32; None if it is empty."""
        heard = self.page.evaluate("() => tap.take()")
        if heard:
            heard["samples"] = np.frombuffer(base64.b64decode(heard["samples"]), np.float32)
        return heard

    def heap_mb(self) -> float:
        """Memory of the page's JavaScript after garbage collection, in MB."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("HeapProfiler.collectGarbage")
        session.send("Performance.enable")
        metrics = session.send("Performance.getMetrics")["metrics"]
        session.detach()
        return next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize") / 1e6
