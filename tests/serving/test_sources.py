"""Images by path and by address: only what the operator allows, no escapes."""

import datetime
import http.server
import os
import ssl
import threading

import pytest

from fusar_jax.serving.file_store import FileStore
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.server import make_server
from fusar_jax.serving.sources import Sources

SECRET = b"of another folder"


@pytest.fixture
def folder(tmp_path):
  """A folder with an image, and a secret outside."""
  folder = tmp_path / "images"
  (folder / "more").mkdir(parents=True)
  (folder / "a b%20.png").write_bytes(b"image")
  (folder / "more" / "big.png").write_bytes(b"x" * 101)
  (tmp_path / "images-private").mkdir()
  for name in ("secret.png", "images-private/secret.png"):
    (tmp_path / name).write_bytes(SECRET)
  (folder / "inside.png").symlink_to(folder / "a b%20.png")
  (folder / "link.png").symlink_to(tmp_path / "secret.png")
  (folder / "up").symlink_to(tmp_path)
  (folder / "loop.png").symlink_to(folder / "loop.png")
  os.mkfifo(folder / "pipe.png")
  return folder.resolve()


@pytest.mark.parametrize(
  "name", ["a b%20.png", "{}/a b%20.png", "file://{}/a%20b%2520.png",
           "more/../a b%20.png", "inside.png"]
)  # fmt: skip
def test_a_path_in_an_allowed_folder_is_read(folder, tmp_path, name):
  sources = Sources(folders=[tmp_path / "none", folder], max_bytes=100)
  assert sources.read(name.format(folder), "image_url") == b"image"


@pytest.mark.parametrize(
  "name",
  [
    *("../secret.png", "{}/../secret.png", "/etc/hostname", "/dev/zero"),
    *("link.png", "up/secret.png", "up/images-private/secret.png", "loop.png"),
    *("../images-private/secret.png", "{}-private/secret.png"),
    *("file://{}/%2e%2e/secret.png", "file:///etc/hostname"),
    *("more", ".", "", "pipe.png", "absent.png", "a\0b", "x" * 5000),
    *("file://host/etc/hostname", "~/.bashrc"),
  ],
)
def test_no_way_leads_out_of_the_folder(folder, name):
  """One message, whatever is there."""
  sources = Sources(folders=[folder], max_bytes=100)
  with pytest.raises(RequestError, match="is no file in") as error:
    sources.read(name.format(folder), "image_url")
  assert error.value.status == 400


def test_a_file_that_is_too_large_is_not_read(folder):
  with pytest.raises(RequestError, match="larger than 100") as error:
    Sources(folders=[folder], max_bytes=100).read("more/big.png", "image_url")
  assert error.value.status == 413


@pytest.mark.parametrize(
  "url",
  ["a.png", "/etc/hostname", "file:///etc/hostname", "http://127.0.0.1/a.png",
   "https://127.0.0.1/a.png", "ftp://127.0.0.1/a", "//host/a", ""]
)  # fmt: skip
def test_nothing_is_opened_without_leave(folder, tmp_path, url):
  store = FileStore(tmp_path / "store")
  for sources in (Sources(), Sources(store)):
    with pytest.raises(RequestError, match="opens no addresses") as error:
      sources.read(url, "image_url")
    assert error.value.status == 400


def test_an_allowed_folder_exists(assistant, tmp_path):
  with (
    pytest.raises(NotADirectoryError, match="--allow-folder"),
    make_server(assistant, "a", folders=[str(tmp_path / "none")]),
  ):
    pass


class _Handler(http.server.BaseHTTPRequestHandler):
  """/image, /large, /absent, and /to?URL, which redirects."""

  def do_GET(self):
    if self.path.startswith("/to?"):
      self.send_response(302)
      self.send_header("Location", self.path.removeprefix("/to?"))
      self.end_headers()
    elif self.path == "/absent":
      self.send_error(404)
    else:
      self.send_response(200)
      self.end_headers()
      self.wfile.write(b"x" * (101 if self.path == "/large" else 100))

  def log_message(self, *_):
    pass


@pytest.fixture(scope="module")
def port(tmp_path_factory):
  """Of a server on localhost, whose certificate this process trusts."""
  files = tmp_path_factory.mktemp("certificate")
  _certificate(files / "key.pem", files / "cert.pem")
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.load_cert_chain(files / "cert.pem", files / "key.pem")
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
  server.socket = context.wrap_socket(server.socket, server_side=True)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("SSL_CERT_FILE", str(files / "cert.pem"))
    patch.setenv("no_proxy", "localhost,127.0.0.1")
    yield server.server_address[1]
  server.shutdown()
  thread.join()
  server.server_close()


def _certificate(key_file, certificate_file):
  """Writes a key and its own certificate, of localhost."""
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.hazmat.primitives.asymmetric import ec

  key = ec.generate_private_key(ec.SECP256R1())
  name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
  today = datetime.datetime.now(datetime.UTC)
  day = datetime.timedelta(days=1)
  certificate = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(1)
    .not_valid_before(today - day)
    .not_valid_after(today + day)
    .add_extension(
      x509.SubjectAlternativeName([x509.DNSName("localhost")]), False
    )
    .sign(key, hashes.SHA256())
  )
  pem = serialization.Encoding.PEM
  key_file.write_bytes(
    key.private_bytes(
      pem,
      serialization.PrivateFormat.PKCS8,
      serialization.NoEncryption(),
    )
  )
  certificate_file.write_bytes(certificate.public_bytes(pem))


def test_an_image_of_an_allowed_host_is_fetched(port):
  sources = Sources(hosts=[f"LocalHost:{port}"], max_bytes=100)
  for path in ("image", f"to?https://localhost:{port}/image", "to?/image"):
    content = sources.read(f"https://localhost:{port}/{path}", "image_url")
    assert content == b"x" * 100


@pytest.mark.parametrize(
  ("path", "status", "message"),
  [
    ("large", 413, "larger than 100"),
    ("absent", 400, "answered 404"),
    ("to?https://127.0.0.1:{}/image", 400, "no https address of"),
    ("to?https://localhost/image", 400, "no https address of"),
    ("to?http://localhost:{}/image", 400, "no https address of"),
    ("to?file:///etc/hostname", 400, "was not read|no https address"),
    ("to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/a", 400, "was not read"),
  ],
)
def test_what_an_allowed_host_does_not_get_us_to_do(
  port, path, status, message
):
  sources = Sources(hosts=[f"localhost:{port}"], max_bytes=100)
  url = f"https://localhost:{port}/{path.format(port)}"
  with pytest.raises(RequestError, match=message) as error:
    sources.read(url, "image_url")
  assert error.value.status == status


@pytest.mark.parametrize(
  "url",
  [
    "https://127.0.0.1:{}/image",
    "https://localhost/image",
    "https://localhost:{}@127.0.0.1/image",
    "https://user@localhost:{}/image",
    "https://localhost.example:{}/image",
    "https://localhost:x/image",
    "https://[/image",
  ],
)
def test_another_host_or_port_is_not_asked(port, url):
  sources = Sources(hosts=[f"localhost:{port}"])
  with pytest.raises(RequestError, match="image_url") as error:
    sources.read(url.format(port), "image_url")
  assert error.value.status == 400
  assert "was not read" not in str(error.value)


def test_a_host_that_takes_too_long_is_left(port):
  sources = Sources(hosts=[f"localhost:{port}"], seconds=-1)
  with pytest.raises(RequestError, match="too long"):
    sources.read(f"https://localhost:{port}/image", "image_url")
