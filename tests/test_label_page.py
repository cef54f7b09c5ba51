"""The tab "Label" in a browser, with the pointer and the keys of a person."""

import json
import sys

import numpy as np
import pytest
import tifffile
from conftest import disc_image
from page_server import free_port, served
from test_app import CHROMIUM, DRIVER, browser, wait_for  # noqa: F401  (browser is a fixture)

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
]


def one(driver, selector):
    return driver.find_element("css selector", selector)


def counts(driver):
    script = "return [...document.querySelectorAll('.lt-class small')].map((part) => Number(part.textContent))"
    return driver.execute_script(script)  # at once: the rows are drawn anew when a count changes


def open_tab(driver, address):
    driver.get(address)
    tabs = wait_for(lambda: [tab for tab in driver.find_elements("css selector", "[role=tab]") if tab.text == "Label"])
    tabs[0].click()
    wait_for(lambda: driver.find_elements("css selector", ".lt-class"))


def drag(driver, key, start, moves):
    """Choose a class by its key and drag from a share of the width and height on."""
    from selenium.webdriver.common.action_chains import ActionChains

    layers = one(driver, ".lt-layers")
    width, height = layers.rect["width"], layers.rect["height"]
    chain = ActionChains(driver, duration=40).send_keys(key)
    chain.move_to_element_with_offset(layers, int((start[0] - 0.5) * width), int((start[1] - 0.5) * height))
    chain.click_and_hold()
    for across, down in moves:
        chain.move_by_offset(across, down)
    chain.release().perform()


def test_strokes_are_painted_segmented_and_there_after_a_reload_and_a_restart(browser, tmp_path):  # noqa: F811
    from selenium.webdriver.common.action_chains import ActionChains

    path, session = tmp_path / "gold.tif", tmp_path / "session"
    tifffile.imwrite(path, 40 * disc_image(256, 3)[0].astype(np.uint16))
    port = free_port()
    command = [sys.executable, "-m", "emfm.cli", "app", "--port", str(port), "--session", str(session)]
    with served(command, port, tmp_path / "app.log") as address:
        open_tab(browser, address)
        one(browser, ".lt-files").send_keys(str(path))
        wait_for(lambda: "256 x 256 pixels" in one(browser, ".lt-where").text)
        drag(browser, "1", (0.05, 0.05), [(40, 0)])
        wait_for(lambda: counts(browser)[0] > 0)
        drag(browser, "2", (0.5, 0.5), [(30, 0), (0, 30)])
        wait_for(lambda: counts(browser)[1] > 0)
        before = counts(browser)
        drag(browser, "2", (0.99, 0.5), [(300, 0)])  # it leaves the image
        wait_for(lambda: counts(browser)[1] > before[1])
        ActionChains(browser).send_keys("z").perform()
        wait_for(lambda: counts(browser) == before)
        one(browser, ".lt-segment").click()
        wait_for(lambda: one(browser, ".lt-message").text.endswith(" s"), 300)
        shown = browser.execute_script(
            "const c = arguments[0]; return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)",
            one(browser, ".lt-result"),
        )
        assert shown
        open_tab(browser, address)
        wait_for(lambda: counts(browser) == before)
    with served(command, port, tmp_path / "again.log") as address:
        open_tab(browser, address)
        wait_for(lambda: counts(browser) == before)
    assert json.loads((session / "splits.json").read_text()) == {"train": ["gold.tif"]}


def choose(driver, name):
    from selenium.webdriver.support.ui import Select

    wait_for(lambda: name in one(driver, ".lt-images").text)
    Select(one(driver, ".lt-images")).select_by_value(name)


def command_of(session, port):
    return [sys.executable, "-m", "emfm.cli", "app", "--port", str(port), "--session", str(session)]


def test_two_pages_paint_on_one_session_and_a_large_micrograph_is_shown_by_parts(browser, tmp_path):  # noqa: F811
    large = np.tile(disc_image(256, 3)[0], (32, 32))
    tifffile.imwrite(tmp_path / "large.tif", large, compression="zlib")
    tifffile.imwrite(tmp_path / "gold.tif", 40 * disc_image(256, 3)[0].astype(np.uint16))
    port = free_port()
    with served(command_of(tmp_path / "session", port), port, tmp_path / "app.log") as address:
        open_tab(browser, address)
        one(browser, ".lt-files").send_keys(f"{tmp_path / 'gold.tif'}\n{tmp_path / 'large.tif'}")
        wait_for(lambda: "256 x 256 pixels" in one(browser, ".lt-where").text)
        first = browser.current_window_handle
        browser.switch_to.new_window("window")
        open_tab(browser, address)
        choose(browser, "gold.tif")
        wait_for(lambda: "256 x 256 pixels" in one(browser, ".lt-where").text)
        second = browser.current_window_handle
        browser.switch_to.window(first)
        drag(browser, "2", (0.5, 0.5), [(30, 0)])
        wait_for(lambda: counts(browser)[1] > 0)
        painted = counts(browser)
        browser.switch_to.window(second)
        wait_for(lambda: counts(browser) == painted)
        choose(browser, "large.tif")
        wait_for(lambda: "shown: rows 3584 to 4608" in one(browser, ".lt-where").text)
        drag(browser, "1", (0.3, 0.3), [(30, 0)])
        wait_for(lambda: counts(browser)[0] > painted[0])
    assert tifffile.imread(tmp_path / "session" / "images" / "large.tif").shape == (8192, 8192)


def test_training_goes_on_without_the_page_and_its_model_predicts_a_folder(browser, tmp_path):  # noqa: F811
    from selenium.webdriver.support.ui import Select

    tifffile.imwrite(tmp_path / "gold.tif", 40 * disc_image(128, 3)[0].astype(np.uint16))
    (tmp_path / "unseen").mkdir()
    tifffile.imwrite(tmp_path / "unseen" / "new.tif", 40 * disc_image(128, 5)[0].astype(np.uint16))
    port, session = free_port(), tmp_path / "session"
    with served(command_of(session, port), port, tmp_path / "app.log") as address:
        open_tab(browser, address)
        one(browser, ".lt-files").send_keys(str(tmp_path / "gold.tif"))
        wait_for(lambda: "128 x 128 pixels" in one(browser, ".lt-where").text)
        drag(browser, "1", (0.05, 0.05), [(40, 0)])
        drag(browser, "2", (0.5, 0.5), [(30, 0)])
        wait_for(lambda: all(counts(browser)))
        browser.execute_script("arguments[0].value = 2", one(browser, ".lt-steps"))
        one(browser, ".lt-train").click()
        wait_for(lambda: "training" in one(browser, ".lt-job").text)
        browser.get("about:blank")
        open_tab(browser, address)
        wait_for(lambda: "training done" in one(browser, ".lt-job").text, 600)
        wait_for(lambda: one(browser, ".lt-curve").get_attribute("hidden") is None)
        assert "trained-1: best Dice" in one(browser, ".lt-figure").text
        Select(one(browser, ".lt-models")).select_by_value("trained-1")
        one(browser, ".lt-predict-folder").send_keys(str(tmp_path / "unseen"))
        one(browser, ".lt-predict").click()
        wait_for(lambda: "predicting done" in one(browser, ".lt-job").text, 300)
    assert tifffile.imread(session / "predictions" / "trained-1" / "new.tif").shape == (128, 128)
