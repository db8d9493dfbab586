# SPDX-License-Identifier: MIT
"""The web page of the admin port in headless Chromium: with answers made up by admin_mock.py, and with a real gateway."""

import json
import os
import re
import time
import urllib.parse

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from admin_mock import HOSTILE, PAGE, ROOT, ApiError, MockAdmin
from proc import PATIENCE, free_port, wait_for

pytestmark = pytest.mark.tgg_only

VIEWS = ("overview", "node", "workers", "clients", "names", "top", "trace", "closes", "pools", "control")
# What Chromium itself says of an answer that is an error, or of none: only tests that cause these expect them.
HTTP_ERROR = r"Failed to load resource: the server responded with a status of %s"
NO_ANSWER = r"Failed to load resource: net::ERR_(CONNECTION_REFUSED|EMPTY_RESPONSE|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    profile = tmp_path_factory.mktemp("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-first-run", "disable-component-update",
                     "disable-background-networking", "window-size=1300,900", "user-data-dir=%s" % profile):
        options.add_argument("--" + argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def running_mock():
    mock_ = MockAdmin().start()
    yield mock_
    if mock_.server:
        mock_.stop()


class Page:
    """The page in the browser. Elements are read by scripts: they come and go while a test looks."""

    def __init__(self, browser, url):
        self.browser = browser
        self.url = url
        self.expected = []  # patterns of what the console may say

    def open(self, view=""):
        self.browser.get(self.url + ("#" + view if view else ""))

    def go(self, view):
        self.js("location.hash = arguments[0]", "#" + view)

    def js(self, script, *args):
        return self.browser.execute_script(script, *args)

    def wait(self, condition, what):
        return wait_for(condition, 3 * PATIENCE, what)

    def text(self, css):
        """Text of what is shown there, '' when there is nothing."""
        return self.js("const e = document.querySelector(arguments[0]); return e && e.checkVisibility() ? e.innerText : ''", css)

    def wait_text(self, css, text):
        try:
            self.wait(lambda: text in self.text(css), "%r in %s" % (text, css))
        except TimeoutError:
            raise TimeoutError("%r in %s: there is %r" % (text, css, self.text(css))) from None

    def rows(self, table):
        """[{column: text}] of a table, as it is sorted."""
        return self.js(
            "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map((tr) =>"
            " Object.fromEntries([...tr.cells].map((td) => [td.dataset.column, td.textContent])))",
            table,
        )

    def wait_rows(self, table, count):
        self.wait(lambda: len(self.rows(table)) == count, "%d rows in %s" % (count, table))
        return self.rows(table)

    def press(self, text, inside="main"):
        """The button with that text that is shown."""

        def found():
            return self.js(
                "const all = [...document.querySelectorAll(`${arguments[0]} button, ${arguments[0]} a`)];"
                "const one = all.find((b) => b.textContent === arguments[1] && b.checkVisibility() && !b.disabled);"
                "if (one) { one.focus(); one.click(); } return Boolean(one)",
                inside,
                text,
            )

        self.wait(found, "a button %r in %s" % (text, inside))

    def fill(self, form, **values):
        self.js(
            "const form = document.querySelector(arguments[0]);"
            "for (const [name, value] of Object.entries(arguments[1])) form.elements[name].value = value",
            form,
            values,
        )

    def submit(self, form, **values):
        self.fill(form, **values)
        self.js("document.querySelector(arguments[0]).requestSubmit()", form)

    def size(self, width, height=900):
        how = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", how)

    def prefer(self, **features):
        media = [{"name": "prefers-" + name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def dialog(self):
        return self.text("dialog.confirm")

    def confirm(self):
        self.wait(lambda: self.js("return document.querySelector('dialog.confirm .danger')?.disabled === false"), "the dialog")
        self.browser.find_element(By.CSS_SELECTOR, "dialog.confirm .danger").click()
        self.wait(lambda: not self.dialog(), "the end of the dialog")

    def cancel(self):
        self.browser.find_element(By.XPATH, "//dialog[contains(@class, 'confirm')]//button[text()='Cancel']").click()
        self.wait(lambda: not self.dialog(), "the end of the dialog")

    def check(self):
        """Nothing in the console that was not expected, and no request to anybody else."""
        for entry in self.browser.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING"):
                assert any(re.search(pattern, entry["message"]) for pattern in self.expected), entry["message"]
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                assert url.startswith((self.url, "chrome:", "about:")), url


@pytest.fixture
def mock(browser, running_mock):
    """As if it had just started: nothing of the test before is left in it, nor in the browser."""
    if running_mock.server is None:
        running_mock.start()
    browser.get(running_mock.url + "icon.svg")  # of the same origin, with no script in it
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.get_log("browser"), browser.get_log("performance")
    running_mock.reset()
    return running_mock


@pytest.fixture
def page(browser, mock):
    page_ = Page(browser, mock.url)
    page_.size(1300)
    page_.prefer(color_scheme="light")
    yield page_
    page_.check()


# -- the files


def page_files():
    for name in sorted(os.listdir(PAGE)):
        with open(os.path.join(PAGE, name)) as f:
            yield name, f.read()


def test_nothing_but_its_own_files():
    """No build step, no other hosts, nothing inline, and no way to make markup out of text."""
    for name, text in page_files():
        urls = set(re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[\w./-]*""", re.sub(r"(?m)^\s*//.*$", "", text)))
        assert urls <= {"http://www.w3.org/2000/svg"}, name
        for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "srcdoc"):
            assert banned not in text, (name, banned)
        if name.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", text), name


def test_every_path_that_it_asks_for_is_documented():
    with open(os.path.join(ROOT, "docs", "ADMIN-API.md")) as f:
        documented = set(re.findall(r"`/(api/\w+)", f.read()))
    asked = set()
    for name, text in page_files():
        asked |= set(re.findall(r"""["`](api/\w+)""", text))
    asked |= {"api/uids", "api/groups"}  # names.js puts these together
    assert len(asked) > 20 and asked <= documented


# -- the token


def test_no_token_is_asked_for_when_none_is_needed(page):
    page.open()
    page.wait_text("#banner", "Ready")
    assert page.text("#login") == "" and page.text("#forget") == ""


def test_the_token_is_asked_for_once(page, mock):
    mock.token = "open sesame"
    page.expected.append(HTTP_ERROR % 401)
    page.open("workers")
    page.wait_text("#login", "Token")
    assert page.text("main") == "" and page.text("nav") == ""
    token = page.browser.find_element(By.ID, "token")
    token.send_keys("wrong", Keys.ENTER)
    page.wait_text("#login-error", "not taken")
    token.send_keys("open sesame", Keys.ENTER)
    page.wait_rows("workers", 6)
    assert page.text("#login") == ""
    assert page.js("return sessionStorage.getItem('tgg-admin-token')") == "open sesame"
    assert page.js("return localStorage.length") == 0 and page.js("return document.cookie") == ""
    page.browser.refresh()
    page.wait_rows("workers", 6)
    # Another one from now on: it asks again, and goes on where it was.
    mock.token = "other"
    page.wait_text("#login-error", "not taken")
    page.browser.find_element(By.ID, "token").send_keys("other", Keys.ENTER)
    page.wait_text("#workers", "BusinessWorker")
    page.press("Sign out", "header")
    page.wait_text("#login", "Token")
    assert page.js("return sessionStorage.length") == 0


# -- the overview

COLOURED = """
const canvas = arguments[0], g = canvas.getContext("2d"), css = getComputedStyle(canvas), wanted = arguments[1];
g.save(); g.setTransform(1, 0, 0, 1, 0, 0);
const probe = new OffscreenCanvas(1, 1).getContext("2d");
probe.fillStyle = css.getPropertyValue(wanted); probe.fillRect(0, 0, 1, 1); g.restore();
const [r, gr, b] = probe.getImageData(0, 0, 1, 1).data, all = g.getImageData(0, 0, canvas.width, canvas.height).data;
let n = 0;
for (let i = 0; i < all.length; i += 4) if (all[i + 3] > 200 && Math.abs(all[i] - r) + Math.abs(all[i + 1] - gr) + Math.abs(all[i + 2] - b) < 40) n++;
return n;
"""


def coloured(page, canvas, colour):
    return page.js(COLOURED, canvas, colour)


def test_the_overview(page, mock):
    page.open()
    page.wait_text("#tile-clients", "250")
    page.wait_text("#tile-workers", "6")
    for name in ("client_messages_in", "link_packets_in", "client_messages_out", "client_message_bytes_in", "client_message_bytes_out"):
        page.wait(lambda: re.match(r"[\d,.]+( [kMKGiB]+)?$", page.text("#tile-" + name)), "a rate of " + name)
    for name in ("client_refused", "drops", "closes"):
        page.wait(lambda: page.text("#tile-" + name) not in ("", "–"), "a rate of " + name)
    rows = page.wait_rows("histograms", 7)
    assert [row["title"] for row in rows[:4]] == ["Turn of the loop", "Wait in a worker's queue", "Fan-out", "Handshake"]
    page.wait(lambda: "µs" in page.rows("histograms")[0]["p50_now"], "quantiles of the last minute")


def test_the_charts_are_drawn_in_both_themes(page):
    page.expected.append("willReadFrequently")  # looked at by this test only
    page.open()
    charts = lambda: page.browser.find_elements(By.CSS_SELECTOR, ".chart canvas")
    page.wait(lambda: len(charts()) == 6, "charts")
    lines = {"Connections": 2, "Messages per second": 2, "Deliveries per second": 1, "CPU per shard": 4, "Queues": 2, "Drops, refusals, closes per second": 1}
    for scheme in ("light", "dark"):
        page.prefer(color_scheme=scheme)
        for canvas, (title, n) in zip(charts(), lines.items()):
            page.wait(lambda: canvas.get_attribute("aria-label").startswith(title + ":"), title)
            for i in range(n):
                page.wait(lambda: coloured(page, canvas, "--s%d" % i) >= 2, "line %d of %s, %s" % (i, title, scheme))


def test_a_chart_is_read_with_the_keyboard(page):
    page.open()
    canvas = "document.querySelector('.chart canvas')"
    page.wait_text(".chart .legend", "250")
    page.js(canvas + ".focus()")
    time.sleep(1)  # so that there is an earlier value
    assert page.text(".chart .when") == ""
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    page.wait(lambda: re.match(r"\d\d:\d\d:\d\d$", page.text(".chart .when")), "the time of a value")


def test_it_pauses_while_it_is_hidden(page, mock):
    hide = (
        "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    asked = lambda: sum(path == "/api/status" for _, path in mock.requests)
    page.open()
    page.wait_text("#banner", "Ready")
    page.wait(lambda: asked() >= 2, "polls")
    page.js(hide, True)
    time.sleep(0.3)  # one may be under way
    before = asked()
    time.sleep(1.3)
    assert asked() == before
    page.js(hide, False)
    page.wait(lambda: asked() > before, "polls again")


# -- how it looks


def test_light_and_dark(page):
    page.open()
    dark = lambda: page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 26)"
    page.wait_text("#banner", "Ready")
    assert not dark()
    page.prefer(color_scheme="dark")
    page.wait(dark, "dark as the system wants it")
    page.prefer(color_scheme="light")
    page.wait(lambda: not dark(), "light as the system wants it")
    page.press("◐ auto", "header")
    page.wait(dark, "dark by the button")
    page.browser.refresh()
    page.wait(dark, "dark after a reload")
    page.prefer(color_scheme="dark")
    page.press("◐ dark", "header")
    page.wait(lambda: not dark(), "light by the button")
    page.press("◐ light", "header")
    page.wait(dark, "as the system wants it again")


def test_every_view_fits_a_phone(page):
    page.size(360, 740)
    page.open()
    page.wait_text("#banner", "Ready")
    for view in VIEWS:
        page.go(view)
        page.wait_text("#view-" + view, "")
        page.wait(lambda: page.js("return document.querySelector('nav [aria-current]').hash") == "#" + view, view)
        if view in ("workers", "clients", "names", "top", "closes", "pools"):
            page.wait(lambda: page.rows(view), "rows of " + view)
        # A hostile uid without a blank is among them.
        assert page.js("return document.documentElement.scrollWidth") <= 360, view
        assert page.js("return Math.max(...[...document.querySelectorAll('main :is(button, input, select)')].filter((e) => e.checkVisibility())"
                       ".map((e) => e.getBoundingClientRect().right), 0)") <= 360, view


def test_everything_has_a_name_for_those_who_do_not_see(page):
    page.open()
    page.wait_text("#banner", "Ready")
    for view in VIEWS:
        page.go(view)
        page.wait(lambda: page.js("return document.querySelector('nav [aria-current]').hash") == "#" + view, view)
    nameless = page.js(
        "return [...document.querySelectorAll('button, input, select, canvas[role]')].filter((e) => e.id !== 'token' && !e.ariaLabel"
        " && !e.textContent.trim() && !e.closest('label')?.textContent.trim() && !e.closest('tr')).map((e) => e.outerHTML)"
    )
    assert nameless == []


# -- tables


def test_the_node_s_tables(page):
    page.open("node")
    shards = page.wait_rows("shards", 4)
    assert [row["shard"] for row in shards] == ["0", "1", "2", "3"]
    assert shards[2]["pid"] == "4102" and shards[2]["restarts"] == "1" and shards[2]["turn_longest_ns"] == "3.40 ms"
    assert shards[0]["roles"] == "clients, workers" and shards[3]["roles"] == "clients"
    page.wait(lambda: all(row["cpu_percent"].endswith(" %") for row in page.rows("shards")), "CPU per shard")
    listeners = page.wait_rows("listeners", 3)
    assert listeners[1]["name"] == "secure" and listeners[1]["tls"] == "yes" and listeners[1]["clients"] == "83"
    assert [row["connected"] for row in page.wait_rows("registers", 2)] == ["connected", "not connected"]
    assert len(page.rows("processes")) == 7


def test_the_workers(page):
    page.open("workers")
    rows = page.wait_rows("workers", 6)
    assert sorted(row["health"] for row in rows) == ["full", "ok", "ok", "ok", "slow", "stuck"]
    page.wait(lambda: all(re.match(r"[\d,]+$", row["out_rate"]) for row in page.rows("workers")), "rates")
    page.js("[...document.querySelectorAll('#workers th button')].find((b) => b.textContent === 'Queue').click()")
    assert page.rows("workers")[0]["health"] == "full"
    page.press(rows[0]["key"])
    page.wait(lambda: {row["worker"] for row in page.rows("clients")} == {rows[0]["key"]}, "only its clients")


def test_rows_stay_the_same_elements(page):
    """Who has the focus in a row keeps it while figures change."""
    page.open("workers")
    page.wait_rows("workers", 6)
    page.js("window.row = document.querySelector('#workers tbody tr'); row.querySelector('button').focus()")
    before = page.rows("workers")[0]["messages_in"]
    page.wait(lambda: page.rows("workers")[0]["messages_in"] != before, "new figures")
    assert page.js("return row === document.querySelector('#workers tbody tr') && row.contains(document.activeElement)")


def test_closes_and_drops(page):
    page.open("closes")
    page.wait(lambda: len(page.rows("closes")) > 20 and len(page.rows("drops")) > 5, "reasons")
    assert page.rows("closes")[0]["reason"] == "peer" and page.rows("drops")[0]["reason"] == "slow_reader_newest"
    page.wait(lambda: float(page.rows("closes")[0]["rate"].replace("–", "0")) > 1, "a rate")


def test_tables_and_counters(page):
    page.open("pools")
    page.wait_rows("pools", 16)
    page.wait(lambda: len(page.rows("counters")) > 100, "counters")
    page.wait(lambda: page.rows("counters")[0]["help"].startswith("client connections"), "what it is")
    page.browser.find_element(By.NAME, "counter").send_keys("dropped_slow")
    assert [row["name"] for row in page.wait_rows("counters", 2)] == ["dropped_slow_reader_newest", "dropped_slow_reader_oldest"]
    page.browser.find_element(By.NAME, "pool").send_keys("uids")
    page.wait_rows("pools", 4)


# -- search


def test_search_for_clients(page, mock):
    page.open("clients")
    page.wait_rows("clients", 100)
    page.press("Next page")
    page.wait_text("#view-clients .pager", "page 2")
    page.press("Next page")
    page.wait_rows("clients", 50)
    page.press("Page before")
    page.wait_rows("clients", 100)
    page.submit("#client-search", uid="user1")
    rows = page.wait_rows("clients", 2)
    assert {row["uid"] for row in rows} == {"user1"} and page.js("return location.hash") == "#clients?uid=user1"
    page.browser.back()
    page.wait_rows("clients", 100)
    for filters, wanted in (
        ({"group": "room3"}, None),
        ({"address": "192.0.2.0/24"}, 200),
        ({"listener": "secure", "shard": "1"}, 21),
        ({"age_min": "1000", "age_max": "1100", "idle_min": "2"}, None),
        ({"queue_min": "100000"}, 1),
    ):
        mock.requests.clear()
        page.go("clients?" + urllib.parse.urlencode({**filters, "limit": 200}))
        asked = "/api/clients?%s&limit=200" % urllib.parse.urlencode(filters)
        page.wait(lambda: ("GET", asked) in mock.requests, asked)
        wanted = wanted if wanted is not None else len(mock.model.matching(filters))
        page.wait_rows("clients", wanted)


def test_one_client_in_full(page):
    page.expected.append(HTTP_ERROR % 404)
    page.open("clients")
    page.wait_rows("clients", 100)
    page.submit("#client-search", id="67109865")
    page.wait_text("#panel-title", "Client 67109865")
    page.wait_text("dialog.panel", "TLS_AES_128_GCM_SHA256")
    for text in ("user0", "secure", "192.0.2.2:40001", "10.0.0.2:BusinessWorker-1", "1.21 KiB", "7f0000010fa1040003e9"):
        assert text in page.text("dialog.panel"), text
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.wait(lambda: page.text("dialog.panel") == "", "the end of the panel")
    page.submit("#client-search", id="7f0000010fa1040003e9")  # the client_id of the same one
    page.wait_text("dialog.panel", "TLS_AES_128_GCM_SHA256")
    page.submit("#client-search", id="4711")
    page.wait_text("dialog.panel", "There is no such client")
    page.press("×", "dialog.panel")


def test_uids_and_groups(page):
    page.open("names")
    page.wait_rows("names", 100)
    page.submit("#name-search", prefix="user1")
    page.wait(lambda: page.rows("names") and all(row["name"].startswith("user1") for row in page.rows("names")), "names with that beginning")
    page.submit("#name-search", prefix="", name="user1")
    assert page.wait_rows("names", 1)[0]["clients"] == "2"
    page.submit("#name-search", kind="groups", name="", prefix="room1")
    page.wait(lambda: {row["name"] for row in page.rows("names")} == {"room1"}, "groups")


def test_top(page, mock):
    page.open("top")
    assert page.wait_rows("top", 20)[0]["value"] == "900"
    page.submit("#top-search", by="queue", limit="5")
    page.wait(lambda: [row["connection_id"] for row in page.rows("top")][:1] == [str((1 << 26) + 1009)], "the slowest reader")
    assert len(page.rows("top")) == 5 and ("GET", "/api/top?by=queue&limit=5") in mock.requests
    page.submit("#top-search", by="groups")
    page.wait(lambda: page.rows("top") and page.rows("top")[0]["name"].startswith("room"), "groups")
    page.submit("#top-search", by="bytes_in", seconds="3")
    page.wait(lambda: ("GET", "/api/top?by=bytes_in&seconds=3&limit=5") in mock.requests, "the question")


def test_foreign_text_stays_text(page, mock):
    page.open("clients?" + urllib.parse.urlencode({"uid": HOSTILE}, quote_via=urllib.parse.quote))
    rows = page.wait_rows("clients", 1)
    assert rows[0]["uid"] == HOSTILE
    page.press(rows[0]["connection_id"])
    page.wait_text("dialog.panel", HOSTILE)
    page.press("Kick its uid…", "dialog.panel")
    page.wait_text("dialog.confirm", HOSTILE)
    page.confirm()
    page.wait_text("#results", "1 client closed")
    assert mock.posts == ["/api/kick?uid=%s&code=1000" % urllib.parse.quote(HOSTILE, safe="!()*")]
    page.press("×", "dialog.panel")
    page.expected.append(HTTP_ERROR % 404)  # the panel asked for the client that was kicked
    page.go("trace?" + urllib.parse.urlencode({"uid": HOSTILE}, quote_via=urllib.parse.quote))
    page.submit("#trace-form")
    page.wait_text("#trace-lines", "onerror")
    assert page.js("return document.querySelectorAll('img, main script').length") == 0
    assert page.browser.title == "tgg: Trace"


def test_a_trace(page, mock):
    page.open("trace?client=1000")
    page.wait_text("#banner", "Ready")
    assert page.js("return document.querySelector('#trace-form [name=value]').value") == "1000"
    page.submit("#trace-form", seconds="30")
    page.wait_text("#trace-lines", "SEND_TO_GROUP")
    assert ("GET", "/api/trace?client=1000&seconds=30") in mock.requests
    page.press("Stop")
    page.wait_text("#view-trace .note", "Stopped")
    page.wait(lambda: mock.traces == 0, "the end of the trace at the gateway")
    mock.trace_burst = 400
    page.submit("#trace-form")
    page.wait_text("#trace-count", "the last 1,000 are shown")
    assert page.js("return document.querySelectorAll('#trace-lines li').length") == 1000
    page.go("overview")  # none goes on unseen
    page.wait(lambda: mock.traces == 0, "the end of the trace at the gateway")


def test_a_trace_that_is_over(page):
    page.open("trace?uid=user1")
    page.wait_text("#banner", "Ready")
    page.submit("#trace-form", seconds="1")
    page.wait_text("#view-trace .note", "The trace is over")
    assert "trace_end" in page.text("#trace-lines")


# -- actions

WORKER = "10.0.0.1:BusinessWorker-0"
IN_ROW = "#%s tr[data-key=\"%s\"]"
# view, button, inside which element, what the dialog says, the POST, what came of it
ACTIONS = {
    "close a client": (
        "clients",
        "Close…",
        IN_ROW % ("clients", 67109865),
        "This concerns 1 client now",
        "close?client=67109865&code=1000",
        "1 client closed",
    ),
    "close by filter": (
        "clients?listener=text&age_min=100",
        "Close all that match…",
        "main",
        "This concerns 79 clients now",
        "close?listener=text&age_min=100&code=1000&seconds=0&jitter=0",
        "79 clients closed",
    ),
    "close all": (
        "control",
        "Close all clients…",
        "main",
        "This concerns 250 clients now",
        "close?all=yes&code=1000&seconds=0&jitter=0",
        "250 clients closed",
    ),
    "close those of a listener": (
        "node",
        "Close its clients…",
        IN_ROW % ("listeners", "web"),
        "This concerns 84 clients now",
        "close?listener=web&code=1000&seconds=0&jitter=0",
        "84 clients closed",
    ),
    "close those of a worker": (
        "workers",
        "Close its clients…",
        IN_ROW % ("workers", "0 " + WORKER),
        "This concerns 42 clients now",
        "close?worker=10.0.0.1%3ABusinessWorker-0&code=1000&seconds=0&jitter=0",
        "42 clients closed",
    ),
    "kick a uid": (
        "names",
        "Kick…",
        IN_ROW % ("names", "1 uids user0"),
        "This concerns 1 client now",
        "kick?uid=user0&code=1000",
        "1 client closed",
    ),
    "drain a worker": (
        "workers",
        "Drain…",
        IN_ROW % ("workers", "0 " + WORKER),
        "This concerns 42 clients now",
        "drain?worker=10.0.0.1%3ABusinessWorker-0&seconds=30",
        "is being drained",
    ),
    "drain a shard": (
        "node",
        "Drain…",
        IN_ROW % ("shards", 2),
        "This concerns 62 clients now",
        "drain?shard=2&seconds=30&code=1001&jitter=20",
        "Shard 2 is being drained",
    ),
    "drain the node": (
        "control",
        "Drain the node…",
        "main",
        "This concerns 250 clients now",
        "drain?node=yes&seconds=30&code=1001&jitter=20",
        "The node is being drained",
    ),
    "undrain the node": (
        "control",
        "Undrain the node…",
        "main",
        "takes new clients again",
        "undrain?node=yes",
        "takes new clients again",
    ),
    "evacuate a shard": (
        "node",
        "Evacuate…",
        IN_ROW % ("shards", 2),
        "This concerns 62 clients now",
        "evacuate?shard=2",
        "62 clients and 4 internal connections moved, pause 3 ms",
    ),
    "rebalance": (
        "control",
        "Rebalance…",
        "main",
        "6 workers; about 1 client will move",
        "rebalance?seconds=10",
        "17 clients moved",
    ),
    "log level": (
        "control",
        "Change…",
        "main",
        "The level is notice now",
        "log?level=notice",
        "The log level is notice",
    ),
    "reload": (
        "control",
        "Reload…",
        "main",
        "7 processes",
        "reload",
        "ping_interval: holds now",
    ),
    "unban": (
        "control",
        "Unban…",
        IN_ROW % ("bans", "203.0.113.0/24"),
        "are let in again",
        "unban?address=203.0.113.0%2F24",
        "not banned any more",
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_asks_before_it_is_done(page, mock, name):
    view, button, inside, says, post, result = ACTIONS[name]
    page.open(view)
    page.press(button, inside)
    page.wait_text("dialog.confirm", says)
    page.cancel()
    assert mock.posts == []
    page.press(button, inside)
    page.wait_text("dialog.confirm", says)
    assert mock.posts == []
    page.confirm()
    page.wait_text("#results", result)
    assert mock.posts == ["/api/" + post]
    page.go("control")
    page.wait_text("#done", result)


def test_drain_and_undrain_change_places(page, mock):
    row = IN_ROW % ("shards", 1)
    page.open("node")
    page.press("Drain…", row)
    page.confirm()
    page.wait_text(row, "drained")
    page.wait_text("#banner", "drained: shard 1")
    page.press("Undrain…", row)
    page.confirm()
    page.wait(lambda: "drained" not in page.text(row).lower(), "the end of it")
    assert mock.posts == ["/api/drain?shard=1&seconds=30&code=1001&jitter=20", "/api/undrain?shard=1"]


def test_evacuate_and_bring_back_change_places(page, mock):
    row = IN_ROW % ("shards", 1)
    page.open("node")
    page.press("Evacuate…", row)
    page.confirm()
    page.wait_text(row, "evacuated")
    page.press("Bring back…", row)
    page.confirm()
    page.wait(lambda: "evacuated" not in page.text(row).lower(), "the end of it")
    assert mock.posts == ["/api/evacuate?shard=1", "/api/evacuate?shard=1&back=yes"]


def test_what_is_filled_in_is_sent(page, mock):
    page.open("control")
    page.wait_text("#banner", "Ready")
    page.submit("#ban-form", address="192.0.2.0/24")
    page.wait_text("dialog.confirm", "This concerns 200 clients now")
    page.fill("dialog.confirm form", seconds="60")
    page.confirm()
    page.wait(lambda: [row["address"] for row in page.rows("bans")] == ["203.0.113.0/24", "192.0.2.0/24"], "the ban")
    page.press("Close all clients…")
    page.fill("dialog.confirm form", code="4000", reason="see you & good-bye", seconds="20", jitter="50")
    page.confirm()
    page.wait_text("#results", "250 clients closed")
    wanted = "close?all=yes&code=4000&reason=see%20you%20%26%20good-bye&seconds=20&jitter=50"
    assert mock.posts == ["/api/ban?address=192.0.2.0%2F24&seconds=60", "/api/" + wanted]


def test_escape_and_cancel_are_at_hand(page, mock):
    page.open("control")
    page.press("Close all clients…")
    page.wait_text("dialog.confirm", "250 clients")
    assert page.js("return document.activeElement.textContent") == "Cancel"
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.dialog(), "the end of the dialog")
    assert page.js("return document.activeElement.textContent") == "Close all clients…"
    page.press("Close all clients…")
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)  # on Cancel
    page.wait(lambda: not page.dialog(), "the end of the dialog")
    assert mock.posts == []


def test_a_wrong_value_is_not_sent(page, mock):
    page.open("control")
    page.press("Close all clients…")
    page.wait_text("dialog.confirm", "250 clients")
    page.fill("dialog.confirm form", code="70000")
    page.browser.find_element(By.CSS_SELECTOR, "dialog.confirm .danger").click()
    assert page.dialog() and mock.posts == []
    page.cancel()


def test_the_check(page, mock):
    page.open("node")
    page.press("Check the tables…")
    page.wait_text("dialog.confirm", "4 shards with 250 clients")
    assert not any(path.startswith("/api/check") for _, path in mock.requests)
    page.confirm()
    page.wait_text("#results", "All is well: 4,936 entries looked at")
    mock.model.check_problems = ["uid bob: client 12 is not there"]
    page.press("Check the tables…")
    page.confirm()
    page.wait_text("#results", "shard 0: uid bob: client 12 is not there")
    assert mock.posts == []


def test_a_refused_action_says_why(page, mock):
    page.expected += [HTTP_ERROR % 409, HTTP_ERROR % 503]
    mock.model.reload_problems = ["[gateway] shards: 99 is more than 64"]
    mock.model.fail["/api/rebalance"] = ApiError(503, "shard 1 did not answer in time")
    page.open("control")
    page.press("Reload…")
    page.confirm()
    page.wait_text("#results", "Failed: the configuration is wrong, nothing has changed")
    page.wait_text("#results", "[gateway] shards: 99 is more than 64")
    page.press("Rebalance…")
    page.confirm()
    page.wait_text("#results", "Failed: shard 1 did not answer in time")


# -- when something is wrong


def test_a_missing_shard_is_shown(page, mock):
    mock.model.missing = [2]
    mock.model.dead = [2]
    mock.model.not_ready = ["no worker is connected"]
    page.open("node")
    page.wait_text("#banner", "Not ready: no worker is connected")
    page.wait_text("#banner", "no answer of shard 2")
    assert page.wait_rows("shards", 4)[2]["state"] == "dead, no answer"
    page.go("clients")
    page.wait_text("#view-clients .note", "No answer of shard 2")
    mock.model.__init__()
    page.wait_text("#banner-what", "Ready")
    page.go("node")
    page.wait(lambda: page.rows("shards")[2]["state"] == "running", "its return")


def test_the_gateway_goes_and_comes_back(page, mock):
    page.expected.append(NO_ANSWER)
    page.open()
    page.wait_text("#tile-clients", "250")
    mock.stop()
    page.wait_text("#banner", "No answer since")
    assert re.search(r"What you see is of \d\d:\d\d:\d\d", page.text("#banner"))
    page.wait(lambda: page.js("return Number(getComputedStyle(document.querySelector('main')).opacity)") < 0.7, "greyed figures")
    assert page.text("#tile-clients") == "250"
    mock.start()
    page.wait_text("#banner", "Ready")
    page.wait(lambda: page.js("return Number(getComputedStyle(document.querySelector('main')).opacity)") == 1, "figures of now")


def test_something_else_answers(page, mock):
    page.expected.append(HTTP_ERROR % "(404|503)")
    mock.model.fail["/api/status"] = ApiError(503, "the supervisor is gone")
    page.open()
    page.wait_text("#banner", "the supervisor is gone")
    mock.model.fail.clear()
    page.wait_text("#banner", "Ready")


# -- with a real gateway


def test_a_real_gateway(browser, start):
    port = free_port()
    site = start(admin={"port": port, "token": "open-sesame-open-sesame"}, shards=2)
    for _ in range(5):
        site.client()
    chosen = site.client()
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    page = Page(browser, "http://127.0.0.1:%d/" % port)
    page.size(1300)
    page.expected += [HTTP_ERROR % 401, HTTP_ERROR % 404]
    page.open()
    page.wait_text("#login", "Token")
    browser.find_element(By.ID, "token").send_keys("open-sesame-open-sesame", Keys.ENTER)
    page.wait_text("#banner", "Ready")
    page.wait_text("#tile-clients", "6")
    page.wait_text("#tile-workers", "1")
    page.wait(lambda: len(page.rows("histograms")) == 7, "histograms")
    page.go("node")
    assert [row["state"] for row in page.wait_rows("shards", 2)] == ["running", "running"]
    assert len(page.wait_rows("listeners", 4)) == 4
    page.go("workers")
    assert page.wait_rows("workers", 1)[0]["clients"] == "6"
    for view in ("names", "top", "closes", "pools", "control"):
        page.go(view)
        page.wait(lambda: page.js("return document.querySelector('nav [aria-current]').hash") == "#" + view, view)
        time.sleep(0.2)
        assert page.text("#view-%s .note.error" % view) == "", view
    page.wait(lambda: len(page.rows("closes")) > 20 and page.rows("pools"), "reasons and tables")
    page.go("clients")
    page.wait_rows("clients", 6)
    page.press(str(chosen.id), "#clients")
    page.wait_text("dialog.panel", "127.0.0.1:%d" % chosen.port)
    page.press("Close…", "dialog.panel")
    page.wait_text("dialog.confirm", "This concerns 1 client now")
    page.confirm()
    page.wait_text("#results", "1 client closed")
    site.wait_counter("client_closed_ordered", 1)
    page.wait_text("dialog.panel", "There is no such client")
    page.press("×", "dialog.panel")
    chosen.close()  # until now it was a row without an id, in state closing
    site.wait_gauge("clients", 5)
    page.press("Search")
    page.wait_rows("clients", 5)
    page.go("control")
    page.press("Check…")
    page.confirm()
    page.wait_text("#results", "All is well")
    page.check()
    browser.get("about:blank")
