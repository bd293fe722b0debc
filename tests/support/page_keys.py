"""Uses the page of a collector as a person at a keyboard does, in Chromium, by its DevTools protocol.

page_keys.py CHROMIUM FOLDER URL

Says what it sees as one object of JSON. Needs python3-websockets.
"""
import asyncio
import json
import subprocess
import sys
import time
import urllib.request

import websockets

CHROMIUM, FOLDER, URL = sys.argv[1:4]
PORT = 19_222


class Page:
    def __init__(self, socket):
        self.socket, self.number, self.errors = socket, 0, []

    async def call(self, method, **params):
        self.number += 1
        await self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            answer = json.loads(await self.socket.recv())
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(answer["params"])[:400])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    async def value(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, expression):
        until = time.time() + 20
        while time.time() < until:
            if value := await self.value(expression):
                return value
            await asyncio.sleep(0.1)
        raise AssertionError(f"never: {expression}\n{await self.value('document.body.innerText')}")

    async def press(self, key):
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")


async def use(page):
    seen = {}
    for domain in ("Page", "Runtime", "Log"):
        await page.call(f"{domain}.enable")
    await page.call("Page.navigate", url=URL)
    await page.wait_for("document.querySelectorAll('#map .node').length > 3")
    seen["nodes"] = await page.value("[...document.querySelectorAll('#map .node')].map(n => n.getAttribute('aria-label'))")
    seen["calls"] = await page.value("[...document.querySelectorAll('details tbody tr')].map(r => r.innerText)")
    # A node by Tab, chosen by Enter, left by Escape.
    await page.value("document.querySelector('#now').focus()")
    for _ in range(12):
        await page.press("Tab")
        if await page.value("document.activeElement.classList.contains('node')"):
            break
    else:
        # Without a layout that takes Tab: the node itself.
        await page.value("document.querySelector('#map .node').focus()")
    await page.press("Enter")
    seen["chosen"] = await page.wait_for("document.querySelector('aside h2')?.innerText")
    await page.press("Escape")
    await page.wait_for("!document.querySelector('aside h2')")
    await page.press("2")
    await page.wait_for("document.querySelectorAll('#found tbody tr').length > 0")
    seen["found"] = await page.value("document.querySelectorAll('#found tbody tr').length")
    await page.value("[...document.querySelectorAll('#found tbody tr')].find(r => r.cells[5].innerText === '4').querySelector('a').focus()")
    await page.press("Enter")
    await page.wait_for("document.querySelectorAll('.fall .row').length > 1")
    seen["rows"] = await page.value("[...document.querySelectorAll('.fall .row')].map(r => r.getAttribute('aria-label'))")
    seen["critical"] = await page.value("document.querySelectorAll('.fall .crit').length")
    await page.value("document.querySelector('.fall .row').focus()")
    await page.press("Enter")
    seen["tags"] = await page.wait_for("document.querySelector('.fall .more')?.innerText")
    await page.press("3")
    await page.wait_for("document.querySelectorAll('#operations tbody tr').length > 3")
    await page.value("document.querySelector('#operations tbody a').focus()")
    await page.press("Enter")
    seen["bars"] = await page.wait_for("document.querySelectorAll('svg.hist rect').length")
    await page.press("4")
    seen["sidecars"] = await page.wait_for("document.querySelectorAll('#sidecars tbody tr').length")
    seen["scripts_run"] = await page.value("window.harmed === true")
    light = await page.value("getComputedStyle(document.body).backgroundColor")
    await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    seen["is_dark_another"] = await page.value("getComputedStyle(document.body).backgroundColor") != light
    # What a screen reader is told: everything that takes the focus has a name.
    await page.press("1")
    await page.wait_for("document.querySelectorAll('#map .node').length > 3")
    tree = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    focusable = [node for node in tree if not node.get("ignored") and any(
        one["name"] == "focusable" and one["value"].get("value") for one in node.get("properties", []))]
    own = [node for node in focusable if node["role"]["value"] not in ("RootWebArea", "tabpanel")]
    seen["focusable"] = len(own)
    seen["nameless"] = [node["role"]["value"] for node in own if not node.get("name", {}).get("value")]
    seen["errors"] = page.errors
    return seen


async def main():
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1320,900",
                 f"--remote-debugging-port={PORT}", f"--user-data-dir={FOLDER}", "about:blank"]
    with subprocess.Popen([CHROMIUM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            for _ in range(200):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json/list") as answer:
                        pages = [one for one in json.load(answer) if one["type"] == "page"]
                    if pages:
                        break
                except OSError:
                    pass
                await asyncio.sleep(0.1)
            async with websockets.connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
                print(json.dumps(await use(Page(socket))))
        finally:
            browser.terminate()


asyncio.run(main())
