"""The fetcher goes to public addresses only, and to those that it looked at. Nothing leaves this machine."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from embrief import ArgumentError, ArgumentTypeError, Image, ImageFetcher, UnavailableError
from embrief.images.addresses import is_public

from .pictures import file

x509 = pytest.importorskip("cryptography.x509")
NAME, OTHER = "pictures.example", "other.example"
PUBLIC = "93.184.215.14"


def certificate(folder):
    """Write a certificate of `NAME` and `OTHER` that nobody else trusts, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName(OTHER)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


class Site(BaseHTTPRequestHandler):
    """Answers as `pages` say: path to status, headers, body, and how it is sent."""

    protocol_version = "HTTP/1.1"
    pages: ClassVar[dict] = {}
    seen: ClassVar[list] = []

    def do_GET(self):
        self.seen.append((self.path, dict(self.headers)))
        status, headers, body = self.pages.get(self.path.partition("?")[0], (404, {}, b"no"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for piece in body if not isinstance(body, bytes) else [body]:
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def port(trusted):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def pages():
    Site.pages, Site.seen = {"/a.png": (200, {"Content-Type": "image/png"}, file("png"))}, []
    return Site.pages


@pytest.fixture
def asked():
    """Names that were looked up, and addresses that were connected to."""
    return {"names": [], "addresses": []}


@pytest.fixture
def fetcher(port, trusted, pages, asked):
    def make(names=None, **options):
        known = {NAME: [PUBLIC], OTHER: ["151.101.1.1"], **(names or {})}

        def resolver(name, _):
            asked["names"].append(name)
            if name not in known:
                raise socket.gaierror("no such name")
            return known[name]

        def connector(address, wanted, seconds):
            asked["addresses"].append((address, wanted))
            if address.startswith("45."):
                raise ConnectionRefusedError
            return socket.create_connection(("127.0.0.1", port), timeout=seconds)

        context = ssl.create_default_context(cafile=trusted)
        return ImageFetcher(**{"resolver": resolver, "connector": connector, "context": context, **options})

    return make


def test_a_picture_is_fetched(fetcher, asked, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert Image.from_url(f"https://{NAME}/a.png#part", fetch=fetcher()) == Image(file("png"))
    assert asked == {"names": [NAME], "addresses": [(PUBLIC, 443)]}
    [(path, headers)] = Site.seen
    assert path == "/a.png"
    assert headers["Host"] == NAME
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.example/a.png",
        "file:///etc/passwd",
        "ftp://pictures.example/a.png",
        "data:image/png;base64,AAAA",
        "//pictures.example/a.png",
        "https:///a.png",
        "https://user:secret@pictures.example/a.png",
        "https://user@pictures.example/a.png",
        "https://pictures.example:22/a.png",
        "https://pictures.example:x/a.png",
        "https://pictures.example\\@evil.example/a.png",
        "https://pictures.example/a\r\nX-Other: 1",
        "https://pictures.example/ä.png",
        "https://[::1/a.png",
        "https://pictures.example/" + "a" * 4096,
        "",
    ],
)
def test_other_addresses_are_refused_before_anything_is_asked(fetcher, asked, url):
    with pytest.raises(ArgumentError) as caught:
        fetcher()(url)
    assert "secret" not in str(caught.value)
    assert asked == {"names": [], "addresses": []}


def test_an_address_is_a_string(fetcher):
    with pytest.raises(ArgumentTypeError, match="not bytes"):
        fetcher()(b"https://pictures.example/a.png")


PRIVATE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "169.254.1.1", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001:db8::1",
    "2001::1", "3fff::1", "5f00::1", "64:ff9b:1::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::127.0.0.1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:0a00:0001::", "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe", "", "name", "1.2.3",
]  # fmt: skip
EVERYBODYS = [
    PUBLIC, "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "223.255.255.254", "2606:4700::1111",
    "2a00:1450:4001::200e", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:0101:0101::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused_and_never_connected_to(fetcher, asked, address):
    # Also where another address of the same name is public.
    for addresses in ([address], [PUBLIC, address], [address, PUBLIC]):
        with pytest.raises(ArgumentError, match="not public"):
            fetcher({NAME: addresses})(f"https://{NAME}/a.png")
    assert asked["addresses"] == []


@pytest.mark.parametrize("address", EVERYBODYS)
def test_public_addresses_are_taken(address):
    assert is_public(address)


def test_what_python_knows_to_be_private_is_never_public():
    """Python's lists differ between its releases, and none may know more than ours."""
    for first in range(256):
        for rest in ("0.0.1", "18.0.1", "64.0.1", "168.0.1", "254.0.1", "51.100.1", "0.113.1", "88.99.1"):
            address = f"{first}.{rest}"
            if not ipaddress.ip_address(address).is_global:
                assert not is_public(address), address
    for first in range(0, 1 << 16, 16):
        address = f"{first:x}::1"
        if not ipaddress.ip_address(address).is_global:
            assert not is_public(address) or first == 0x2002, address


def test_addresses_in_an_address_are_looked_at_too():
    """By the real resolver, which answers these without asking anybody."""
    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"):
        with pytest.raises(ArgumentError, match="not public"):
            ImageFetcher()(f"https://{host}/a.png")


def test_the_name_is_looked_up_once_and_the_address_is_the_one_that_was_looked_at(fetcher, asked):
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    fetcher(resolver=lambda *_: next(answers))(f"https://{NAME}/a.png")
    assert asked["addresses"] == [(PUBLIC, 443)]
    assert next(answers) == ["127.0.0.1"]


def test_an_address_that_does_not_answer_is_passed_over(fetcher, asked):
    fetcher({NAME: ["45.0.0.1", PUBLIC]})(f"https://{NAME}/a.png")
    assert [address for address, _ in asked["addresses"]] == ["45.0.0.1", PUBLIC]
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        fetcher({NAME: ["45.0.0.1", "45.0.0.2"]})(f"https://{NAME}/a.png")


def test_names_that_are_none_are_errors_of_ours(fetcher):
    for name, kind in (("absent.example", "gaierror"), ("nothing.example", "no address")):
        with pytest.raises(UnavailableError, match=kind):
            fetcher({"nothing.example": []})(f"https://{name}/a.png")
    with pytest.raises(UnavailableError):
        ImageFetcher()(f"https://{'a' * 70}..example/a.png")


def test_a_certificate_of_another_name_or_of_nobody_is_refused(fetcher):
    with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
        fetcher({"third.example": [PUBLIC]})("https://third.example/a.png")
    with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
        fetcher(context=None)(f"https://{NAME}/a.png")


def redirect(location, status=302):
    return status, {"Location": location}, b""


def test_redirects_are_followed_and_looked_at(fetcher, pages, asked):
    pages["/1"] = redirect("2")
    pages["/2"] = redirect(f"https://{OTHER}/3", 308)
    pages["/3"] = redirect("/a.png", 301)
    assert fetcher()(f"https://{NAME}/1") == file("png")
    assert asked["names"] == [NAME, NAME, OTHER, OTHER]
    assert [address for address, _ in asked["addresses"]] == [PUBLIC, PUBLIC, "151.101.1.1", "151.101.1.1"]
    pages["/0"] = redirect("/1")
    with pytest.raises(ArgumentError, match="redirected more than 3 times"):
        fetcher()(f"https://{NAME}/0")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://pictures.example/a.png", "https://... only"),
        ("file:///etc/passwd", "https://... only"),
        ("https://inside.example/latest/meta-data", "not public"),
        ("https://user:secret@other.example/", "user or password"),
        ("https://other.example:8080/", "port 443 only"),
        ("//inside.example/", "not public"),
        ("https://[", "no address"),
        ("/a b", "percent-encode"),
    ],
)
def test_a_redirect_to_where_nobody_may_go_is_refused(fetcher, pages, asked, location, reason):
    pages["/1"] = redirect(location)
    with pytest.raises(ArgumentError, match=reason):
        fetcher({"inside.example": ["169.254.169.254"]})(f"https://{NAME}/1")
    assert [address for address, _ in asked["addresses"]] == [PUBLIC]


def test_only_the_hosts_that_were_named_are_asked(fetcher, pages, asked):
    only = fetcher(hosts=[NAME.upper() + "."])
    assert only(f"https://{NAME}/a.png") == file("png")
    assert only(f"https://{NAME.upper()}/a.png") == file("png")
    pages["/1"] = redirect(f"https://{OTHER}/a.png")
    for url in (f"https://{OTHER}/a.png", f"https://{NAME}/1", f"https://evil{NAME}/a.png", f"https://{NAME}.evil/a"):
        with pytest.raises(ArgumentError, match="not one of the hosts"):
            only(url)
    assert OTHER not in asked["names"]
    with pytest.raises(ArgumentTypeError, match="list of names"):
        ImageFetcher(hosts=NAME)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ((404, {}, b"secret"), "status 404"),
        ((204, {}, b""), "status 204"),
        ((300, {}, b""), "status 300"),
        ((302, {}, b""), "status 302"),
        ((200, {"Content-Type": "text/html; charset=utf-8"}, file("png")), "sends text/html, not"),
        ((200, {"Content-Type": "secret <b>"}, file("png")), "sends something else"),
        ((200, {"Content-Type": "image/png"}, b"<html>secret"), "a web page"),
        ((200, {"Content-Type": "image/svg+xml"}, b"<svg>secret</svg>"), "an SVG drawing"),
        ((200, {"Content-Type": "image/png"}, b""), "has no bytes"),
        ((200, {"Content-Type": "image/png", "Content-Encoding": "gzip"}, file("png")), "compressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value[0]),
)
def test_what_is_no_picture_is_refused(fetcher, pages, page, reason):
    pages["/page"] = page
    with pytest.raises(ArgumentError, match=reason) as caught:
        fetcher()(f"https://{NAME}/page?token=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["application/octet-stream", "binary/octet-stream", "IMAGE/PNG; x=1"])
def test_types_that_stores_give_are_taken(fetcher, pages, kind):
    pages["/page"] = 200, {"Content-Type": kind}, file("png")
    assert fetcher()(f"https://{NAME}/page") == file("png")


def test_a_server_that_is_busy_is_unavailable(fetcher, pages):
    for status in (429, 500, 503):
        pages["/page"] = status, {}, b"no"
        with pytest.raises(UnavailableError, match=f"status {status}"):
            fetcher()(f"https://{NAME}/page")


def chunked(pieces):
    return (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def test_a_picture_over_the_limit_is_not_read_to_its_end(fetcher, pages):
    data = file("png")
    small = fetcher(max_bytes=len(data))
    assert small(f"https://{NAME}/a.png") == data
    sent = []

    def endless():
        yield data
        while True:
            sent.append(1)
            yield bytes(100_000)

    # Both what a server says, and what it does.
    pages["/said"] = 200, {"Content-Type": "image/png", "Content-Length": str(10**12)}, data
    pages["/chunked"] = 200, {"Content-Type": "image/png", "Transfer-Encoding": "chunked"}, chunked([data, data])
    pages["/endless"] = 200, {"Content-Type": "image/png", "Content-Length": "", "Connection": "close"}, endless()
    for path in ("/said", "/chunked", "/endless"):
        with pytest.raises(ArgumentError, match="more than"):
            small(f"https://{NAME}{path}")
    assert len(sent) < 1000


def test_a_picture_that_is_cut_short_is_unavailable(fetcher, pages):
    data = file("png")
    pages["/short"] = 200, {"Content-Type": "image/png", "Content-Length": str(len(data) + 10)}, data
    pages["/chunked"] = 200, {"Content-Type": "image/png", "Transfer-Encoding": "chunked"}, b"fff\r\n" + data
    for path in ("/short", "/chunked"):
        with pytest.raises(UnavailableError):
            fetcher()(f"https://{NAME}{path}")


def slowly(pieces, sent):
    for piece in pieces:
        time.sleep(0.02)
        sent.append(piece)
        yield piece


BYTEWISE = [bytes(1)] * 150
"""Takes three seconds, and no single wait is long, so that no time-out of a socket would end it."""


@pytest.mark.parametrize("length", ["9999999", ""], ids=["said", "open"])
def test_a_server_that_sends_a_byte_now_and_then_is_left(fetcher, pages, length):
    sent = []
    head = {"Content-Type": "image/png", "Content-Length": length}
    pages["/drip"] = 200, head, slowly([file("png")[:20], *BYTEWISE], sent)
    with pytest.raises(UnavailableError, match=r"took more than 0\.5 seconds"):
        fetcher(timeout=0.5)(f"https://{NAME}/drip")
    assert len(sent) < len(BYTEWISE)


def test_a_handshake_that_comes_byte_by_byte_is_left(fetcher):
    sent = []

    def drip(server):
        connection, _ = server.accept()
        with connection:
            # A record of TLS that says that 8,192 bytes follow.
            for piece in slowly([b"\x16\x03\x03\x20\x00", *BYTEWISE], sent):
                try:
                    connection.sendall(piece)
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        address = server.getsockname()
        slow = fetcher(connector=lambda *_: socket.create_connection(address), timeout=0.5)
        with pytest.raises(UnavailableError, match=r"took more than 0\.5 seconds"):
            slow(f"https://{NAME}/a.png")
    assert len(sent) < len(BYTEWISE)


def test_redirects_share_the_time(fetcher, pages):
    pages["/1"], pages["/2"], pages["/3"] = redirect("/2"), redirect("/3"), redirect("/a.png")

    def slow(*_):
        time.sleep(0.15)
        return [PUBLIC]

    with pytest.raises(UnavailableError, match=r"took more than 0\.4 seconds"):
        fetcher(resolver=slow, timeout=0.4)(f"https://{NAME}/1")


def test_a_resolver_and_a_handshake_that_never_end_are_left(fetcher, asked):
    forever = threading.Event()
    try:
        with pytest.raises(UnavailableError, match="took more than"):
            fetcher(resolver=lambda *_: forever.wait(30) or [], timeout=0.2)(f"https://{NAME}/a.png")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            quiet = fetcher(connector=lambda *_: socket.create_connection(silent.getsockname()), timeout=0.2)
            with pytest.raises(UnavailableError, match="took more than"):
                quiet(f"https://{NAME}/a.png")
    finally:
        forever.set()


def test_the_connection_is_never_made_anew(fetcher, monkeypatch):
    def connect(self):
        raise AssertionError("a connection to an address that nobody looked at")

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    assert fetcher()(f"https://{NAME}/a.png") == file("png")


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"max_bytes": 0}])
def test_limits_are_positive(options):
    with pytest.raises(ArgumentError, match="must be positive"):
        ImageFetcher(**options)


def test_nothing_is_fetched_without_a_fetcher():
    with pytest.raises(TypeError):
        Image.from_url(f"https://{NAME}/a.png")
