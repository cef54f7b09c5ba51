"""What is private in a text or in an image's metadata, and what only looks so."""

import pytest

from emfm.hub.privacy import holds_private_metadata, private_content


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"acquired on /home/ada/scans/1.dm3", ["an absolute path"]),
        (rb"file=C:\Users\ada\x.tif", ["an absolute path"]),
        (b'{"file": "D:\\\\scans\\\\x.tif"}', ["an absolute path"]),
        (b"\x01/tmp/x", ["an absolute path"]),
        (b"token hf_abcdefghijk", ["an access token"]),
        (b"https://zenodo.org/data/1.zip", []),
        (b"see images/home/1.png", []),
        (b"C:/Users/ada/x.tif", ["an absolute path"]),
        (rb"\\microscope\scans\x.tif", ["an absolute path"]),
        (rb'{"file": "\\\\microscope\\scans"}', ["an absolute path"]),
        (b"from file:///srv0/x.tif", ["an absolute path"]),
        (b"at /Volumes/STICK/x.tif", ["an absolute path"]),
        (b"at /run/media/ada/STICK", ["an absolute path"]),
        (b"made with /usr/bin/python", []),
        (rb'{"cite": "Schr{\\\"o}dinger, $\\alpha\\beta$"}', []),
        (b"see doi:10/abc and http://a.b/c", []),
        (b"200 kV, 10:30, 1:\\2", []),
    ],
)
def test_paths_and_tokens_are_private_and_addresses_are_not(content, found):
    assert private_content(content.decode()) == found
    assert holds_private_metadata(content) == bool(found)


def test_the_users_name_and_token_are_private_in_metadata_too(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    monkeypatch.setattr("getpass.getuser", lambda: "lovelace")
    assert private_content("by lovelace with secret-token") == [
        "the access token of HF_TOKEN",
        "the user name lovelace",
    ]
    for content in (
        b"operator=lovelace",
        b"x secret-token",
        "lovelace".encode("utf-16"),
        "/home/x".encode("utf-16-le"),
    ):
        assert holds_private_metadata(content)
    assert not holds_private_metadata(b"lovelaces")


def test_the_users_own_folder_is_private_wherever_it_is(monkeypatch, tmp_path):
    home = tmp_path / "x1" / "alovelace"
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setattr("emfm.hub.privacy.PRIVATE", {})
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert private_content(f"from {home}/scans") == ["an absolute path", "the user name alovelace"]
    assert holds_private_metadata(f"x{home}".encode())
    assert private_content(f"from {home}s") == []


def test_a_machine_that_knows_no_users_can_push(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setattr("pathlib.Path.home", unknown)
    assert private_content("nothing") == [] and not holds_private_metadata(b"nothing")


def test_a_name_that_many_machines_give_says_nothing(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ubuntu")
    assert private_content("trained on Ubuntu, ubuntu 24.04") == []
