"""A Hugging Face hub on loopback: repositories, LFS files and commits."""

import base64
import hashlib
import http.server
import json
import re
import threading

LFS = (".safetensors", ".pt")


class FakeHub(http.server.ThreadingHTTPServer):
  """Attributes:

  repos: name -> {"private": bool, branch: {path: bytes}}.
  objects: LFS files by sha256.
  sent: sha256 of the LFS files received, in order.
  calls: (method, path) of all requests.
  reject: pattern of paths -> status to answer with.
  """

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.repos, self.objects = {}, {}
    self.sent, self.calls, self.reject = [], [], {}
    threading.Thread(
      target=self.serve_forever, args=(0.01,), daemon=True
    ).start()

  @property
  def url(self) -> str:
    return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
  server: FakeHub
  protocol_version = "HTTP/1.1"

  def log_message(self, *args):
    pass

  def _answer(self, status, value):
    body = json.dumps(value).encode()
    self.send_response(status)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def _handle(self):
    hub = self.server
    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
    hub.calls.append((self.command, self.path))
    for pattern, status in hub.reject.items():
      if re.search(pattern, self.path):
        return self._answer(status, {"error": f"rejected with {status}"})
    if self.path.startswith("/lfs/"):
      digest = hashlib.sha256(body).hexdigest()
      assert self.path == f"/lfs/{digest}"
      hub.objects[digest] = body
      hub.sent.append(digest)
      return self._answer(200, {})
    # Only the store of LFS files takes signed URLs without the token.
    if self.headers["Authorization"] != "Bearer hf_of_the_test":
      return self._answer(401, {"error": f"no token for {self.path}"})
    return self._answer(*self._result(hub, body))

  do_GET = do_POST = do_PUT = _handle

  def _result(self, hub, body):
    if self.path == "/api/repos/create":
      made = json.loads(body)
      name = f"{made['organization']}/{made['name']}"
      if name in hub.repos:
        return 409, {"error": "exists", "url": f"{hub.url}/{name}"}
      private = made.get("visibility") == "private"
      hub.repos[name] = {"private": private, "main": {}}
      return 200, {"url": f"{hub.url}/{name}"}
    if self.path == "/api/validate-yaml":
      return 200, {"errors": [], "warnings": []}
    if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
      return 200, {
        "objects": [self._lfs(o) for o in json.loads(body)["objects"]]
      }
    found = re.fullmatch(
      r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/?]+))?(?:\?.*)?", self.path
    )
    name, verb, branch = found.groups()
    repo = hub.repos[name]
    if verb is None:
      info = {"id": name, "sha": "0" * 40, "private": repo["private"]}
      return 200, info | {"siblings": [], "tags": [], "downloads": 0}
    if verb == "branch":
      repo.setdefault(branch, {})
      return 200, {}
    if verb == "tree":
      files = {".gitattributes": b""} | repo[branch]
      return 200, [
        {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
        for path, data in files.items()
      ]
    if verb == "preupload":
      files = [
        {
          "path": file["path"],
          "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
          "shouldIgnore": False,
        }
        for file in json.loads(body)["files"]
      ]
      return 200, {"files": files}
    assert verb == "commit"
    for line in body.splitlines():
      item = json.loads(line)
      value = item["value"]
      if item["key"] == "file":
        repo[branch][value["path"]] = base64.b64decode(value["content"])
      elif item["key"] == "lfsFile":
        repo[branch][value["path"]] = hub.objects[value["oid"]]
    return 200, {
      "success": True,
      "commitOid": "1" * 40,
      "commitUrl": f"{hub.url}/{name}/commit/{'1' * 40}",
    }

  def _lfs(self, wanted):
    hub = self.server
    if wanted["oid"] in hub.objects:
      return wanted
    href = f"{hub.url}/lfs/{wanted['oid']}"
    return wanted | {"actions": {"upload": {"href": href}}}
