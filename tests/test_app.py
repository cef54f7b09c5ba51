import io
import json
import re
import shutil
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import disc_image
from page_server import ROOT, free_port, served
from PIL import Image

from emfm import EMError, EMForSemanticSegmentation
from emfm import EMFoundationConfig as Config

pytest.importorskip("gradio")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb() -> bytes:
    """A small PNG that says it is 60,000 pixels square."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(10**6))) + png_chunk(b"IEND", b"")


def tiff_bomb() -> bytes:
    """A small TIFF whose only strip says it is 10 GB."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint8), compression=None)
    content = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = tiff.pages.first.tags[name]
            struct.pack_into("<H" if tag.dtype == 3 else "<I", content, tag.valueoffset, 65_500)
    return bytes(content)


def broken_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(disc_image(64, 0)[0]).save(file, "PNG")
    return file.getvalue()[:300]


def pickled_npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


HOSTILE = {
    "cut.png": broken_png,
    "bomb.png": png_bomb,
    "bomb.tif": tiff_bomb,
    "letter.png": lambda: b"Dear Sir or Madam,\n" * 100,
    "setup.exe": lambda: b"MZ" + bytes(4000),
    "pickle.npy": pickled_npy,
    "nothing.tif": lambda: b"",
    "nan.npy": lambda: _npy(np.full((40, 40), np.nan, dtype=np.float32)),
    "colour.png": lambda: _png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)),
    "<img src=x onerror=alert(1)>.png": lambda: b"no image",
}


# one of each kind: damage, a bomb, another type, a hostile name; the rest takes longer than a quick
# run should
QUICK = ("cut.png", "bomb.tif", "setup.exe", "<img src=x onerror=alert(1)>.png")


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app") / "discs"
    labels = {0: "background", 1: "disc"}
    EMForSemanticSegmentation(Config.from_name("unet2-rf44", id2label=labels)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def page(model_folder):
    port = free_port()
    command = [sys.executable, "-m", "emfm.cli", "app", "--model", str(model_folder), "--port", str(port)]
    with served([*command, "--upload-mb", "2"], port, model_folder.parent / "app.log") as address:
        yield address


@pytest.fixture(scope="module")
def client(page, model_folder):
    from gradio_client import Client

    return Client(page, verbose=False, download_files=model_folder.parent / "downloads")


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("micrographs") / "gold 1.tif"
    image = 40 * disc_image(96, 3)[0].astype(np.uint16)
    tifffile.imwrite(path, image, resolution=(1e7 / 0.5, 1e7 / 0.5), resolutionunit="CENTIMETER")
    return path


def test_an_upload_comes_back_as_pictures_tables_and_a_result_that_keeps_the_pixel_size(
    client, micrograph, model_folder
):
    from gradio_client import handle_file

    pictures, files, message = client.predict(handle_file(micrograph), "discs", None, api_name="/predict")
    names = [Path(file).name for file in files]
    stem = Path(names[0]).stem
    tables = [f"{stem}_measurements.csv", f"{stem}_summary.json"]
    assert names == [f"{stem}.tif", f"{stem}_overlay.png", f"{stem}_compare.png", *tables]
    with tifffile.TiffFile(files[0]) as tiff:
        assert tiff.pages.first.asarray().shape == (96, 96)
        assert tiff.pages.first.asarray().dtype == np.uint8
        assert 1e7 / tiff.pages.first.tags["XResolution"].value[0] * tiff.pages.first.tags["XResolution"].value[1] == (
            pytest.approx(0.5, rel=1e-6)
        )
    assert [Image.open(picture).size for picture in pictures] == [(96, 96), (96, 96)]
    assert "**96 x 96** pixels, uint16, 0.5 nm per pixel" in message
    assert "mean diameter (nm)" in message
    assert str(model_folder.parent) not in message


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE]
)
def test_a_hostile_upload_gets_a_message_and_the_page_goes_on(client, tmp_path, name):
    from gradio_client import handle_file

    path = tmp_path / name
    path.write_bytes(HOSTILE[name]())
    pictures, files, message = client.predict(handle_file(path), "discs", None, api_name="/predict")
    assert (pictures, files) == (None, [])
    assert message.startswith("### This did not work")
    assert "Traceback" not in message
    assert "/tmp" not in message
    assert "<img" not in message


def test_the_page_takes_no_file_that_was_not_uploaded_and_no_model_that_it_does_not_offer(client, page, micrograph):
    from gradio_client import handle_file

    secret = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    call = f"{page}/gradio_api/call/predict"
    body, kind = json.dumps({"data": [secret, "discs", None]}).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(call, body, kind)) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as answer:
        assert answer.read().startswith(b"event: error")
    with pytest.raises(Exception, match=r"(?i)not in the list of choices"):
        client.predict(handle_file(micrograph), "somebody/elses-model", None, api_name="/predict")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{page}/gradio_api/file=/etc/hostname")


def test_a_file_above_the_limit_is_refused(page):
    boundary = "x" * 20
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.tif"\r\n\r\n'.encode()
    body = part + bytes(3 * 10**6) + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(urllib.request.Request(f"{page}/gradio_api/upload", body, headers))


def test_a_taken_port_is_one_line_that_says_what_to_do(page):
    from emfm.app.page import serve

    port = int(page.rsplit(":", 1)[1])
    with pytest.raises(EMError, match=rf"cannot listen at 127.0.0.1:{port} \(.*\): choose another --port"):
        serve(None, port=port)


def test_without_gradio_the_app_says_what_to_install(monkeypatch):
    from emfm.app.page import build_page

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(EMError, match=r"pip install 'emfm\[app\]'"):
        build_page({"unet4-rf200": "unet4-rf200"})


def test_the_page_shows_a_folders_name_and_not_its_place(model_folder, tmp_path):
    from emfm.app.page import named

    assert named([str(model_folder), "owner/name"]) == {"discs": str(model_folder), "owner/name": "owner/name"}
    shutil.copytree(model_folder, tmp_path / "discs")
    with pytest.raises(EMError, match="would both be called 'discs'"):
        named([str(model_folder), str(tmp_path / "discs")])
    with pytest.raises(EMError, match="there is no model 'unet4-rf20'"):
        named(["unet4-rf20"])


@pytest.fixture
def browser(tmp_path):
    selenium = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1300,1000"):
        options.add_argument(f"--{argument}")
    # a page must work offline
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait_for(condition, seconds=90):
    deadline = time.time() + seconds
    while time.time() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("the page did not come to show what was expected")


def text_of(driver, selector):
    return " ".join(part.text for part in driver.find_elements("css selector", selector))


def test_a_browser_without_a_network_shows_the_slider_and_the_files(browser, page, micrograph, tmp_path):
    browser.get(page)
    upload = wait_for(lambda: browser.find_elements("css selector", "input[type=file]"))[0]
    upload.send_keys(str(micrograph))
    wait_for(lambda: "gold" in text_of(browser, "body"))
    browser.find_element("css selector", "#run").click()
    wait_for(lambda: "0.5 nm per pixel" in text_of(browser, "#message"))
    pictures = wait_for(
        lambda: [
            image
            for image in browser.find_elements("css selector", "#slider img")
            if browser.execute_script("return arguments[0].naturalWidth", image) == 96
        ]
    )
    assert len(pictures) == 2
    links = [link.get_attribute("href") for link in browser.find_elements("css selector", "#files a")]
    assert any(link.endswith("_measurements.csv") for link in links)
    assert all(link.startswith(page) for link in links)
    letter = tmp_path / "letter.png"
    letter.write_text("Dear Sir or Madam")
    browser.get(page)
    wait_for(lambda: browser.find_elements("css selector", "input[type=file]"))[0].send_keys(str(letter))
    wait_for(lambda: "letter" in text_of(browser, "body"))
    browser.find_element("css selector", "#run").click()
    wait_for(lambda: "This did not work" in text_of(browser, "#message"))
    assert "letter.png: the file is damaged or not a PNG image" in text_of(browser, "#message")
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [e["params"]["request"]["url"] for e in asked if e["method"] == "Network.requestWillBeSent"]
    assert len(addresses) > 10
    outside = {address for address in addresses if not re.match(rf"{page}|data:|blob:", address)}
    assert outside == set()


SPACE = ROOT / "hub_scripts" / "space"


def test_the_space_has_the_header_that_the_hub_needs():
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(SPACE / "README.md")
    assert (card.data.sdk, card.data.app_file, card.data.license) == ("gradio", "app.py", "apache-2.0")
    assert re.fullmatch(r"6\.\d+\.\d+", str(card.data.sdk_version))
    assert card.data.title
    assert (SPACE / card.data.app_file).is_file()
    assert len((SPACE / "app.py").read_text().splitlines()) < 80
    assert "emfm[app]" in (SPACE / "requirements.txt").read_text()


@pytest.mark.slow
def test_the_space_serves_the_model_that_its_variable_names(model_folder, micrograph, tmp_path):
    from gradio_client import Client, handle_file

    port = free_port()
    variables = {"EMFM_MODEL": str(model_folder), "GRADIO_SERVER_PORT": str(port)}
    with served([sys.executable, str(SPACE / "app.py")], port, tmp_path / "space.log", **variables) as address:
        space = Client(address, verbose=False, download_files=tmp_path)
        _, files, message = space.predict(handle_file(micrograph), "discs", None, api_name="/predict")
    assert len(files) == 5
    assert "disc" in message
