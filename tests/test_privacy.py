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
