#!/usr/bin/env python3
"""A small hub on loopback that misbehaves on request; Python's standard library only.

    hub.py --root DIR --state DIR [--cdn] [--tls CERT KEY] [--fault NAME[=TIMES]]...

DIR/ORG/NAME/... are repositories with one commit each. The port that the kernel chose appears in STATE/port (and
STATE/cdn-port) once the server listens; every request is a line of STATE/log: server, method, path, Range,
Authorization, status. A fault happens TIMES times (for ever without TIMES), on GETs of files over 10000 bytes unless
it says otherwise.
"""
import argparse
import hashlib
import http.server
import json
import os
import pathlib
import ssl
import threading
import time
import urllib.parse

BIG = 10000
lock = threading.Lock()


class Faults:
    def __init__(self, words):
        self.left = {}
        for word in words:
            name, _, times = word.partition("=")
            self.left[name] = int(times) if times else -1

    def hit(self, name):
        """True when the fault is to happen now; counts it."""
        with lock:
            n = self.left.get(name, 0)
            if n > 0:
                self.left[name] = n - 1
            return n != 0


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name, args, faults, log):
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.args, self.faults, self.log, self.cdn = name, args, faults, log, None
        if args.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*args.tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request, client_address):
        pass  # clients of these tests go away on purpose

    def url(self):
        return f"{'https' if self.args.tls else 'http'}://127.0.0.1:{self.server_address[1]}"


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def commit_of(repo):
    h = hashlib.sha1()
    for path in sorted(p for p in repo.rglob("*") if p.is_file()):
        h.update(str(path.relative_to(repo)).encode() + b"\0" + path.read_bytes())
    return h.hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, headers=(), body=b""):
        with lock:
            self.server.log.write("\t".join([
                self.server.name, self.command, self.path, self.headers.get("Range", "-"),
                self.headers.get("Authorization", "-"), str(status)]) + "\n")
            self.server.log.flush()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if body is not None and not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.serve()

    def do_GET(self):
        self.serve()

    def serve(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hit = self.server.faults.hit
        root = pathlib.Path(self.server.args.root)
        if hit("down"):
            self.close_connection = True
            return
        for status in (429, 500, 503):
            if hit(str(status)):
                self.answer(status, [("Retry-After", "1")] if status == 429 else [])
                return
        if hit("late"):  # a wait that nobody would sit through
            self.answer(429, [("Retry-After", "86400")])
            return
        for name, status, code in (("gated", 403, "GatedRepo"), ("private", 401, "")):
            if hit(name):
                self.answer(status, [("X-Error-Code", code)])
                return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.api(root, parts[2:])
        elif parts[0] in ("file", "blob"):
            self.content(root.joinpath(*parts[1:]), parts[0] == "blob")
        elif len(parts) > 4 and parts[2] == "resolve":
            self.resolve(root / parts[0] / parts[1], parts[3], "/".join(parts[4:]))
        else:
            self.answer(404)

    def api(self, root, parts):
        repo = root.joinpath(*parts[:2])
        revision = "/".join(parts[3:])
        if len(parts) < 4 or parts[2] != "revision" or not repo.is_dir():
            self.answer(401, [("X-Error-Code", "RepoNotFound")])
            return
        commit = commit_of(repo)
        if revision not in ("main", "v1", "refs/pr/1", commit):
            self.answer(404, [("X-Error-Code", "RevisionNotFound")])
            return
        names = sorted(str(p.relative_to(repo)) for p in repo.rglob("*") if p.is_file())
        extra = os.environ.get("HUB_EXTRA_NAME")
        if extra:
            names.append(extra)
        text = json.dumps({"sha": commit, "siblings": [{"rfilename": n} for n in names]})
        if self.server.faults.hit("api-html"):
            text = "<html>welcome</html>"
        self.answer(200, [("Content-Type", "application/json")], text.encode())

    def resolve(self, repo, revision, name):
        path = repo / name
        commit = commit_of(repo) if repo.is_dir() else ""
        if not path.is_file() or revision not in ("main", commit):
            self.answer(404, [("X-Error-Code", "EntryNotFound")])
            return
        if self.server.faults.hit("loop"):
            self.answer(302, [("Location", self.path)])
            return
        data = path.read_bytes()
        if len(data) <= BIG:
            self.content(path, False)
            return
        linked = [("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"'), ("X-Linked-Size", str(len(data))),
                  ("X-Repo-Commit", commit)]
        where = os.environ.get("HUB_REDIRECT")
        if self.server.cdn or where:
            target = where or f"{self.server.cdn.url()}/blob/{path.relative_to(self.server.args.root)}"
            self.answer(302, linked + [("Location", target)])
            return
        self.content(path, False, linked)

    def content(self, path, is_cdn, extra=()):
        if not path.is_file():
            self.answer(404)
            return
        data = path.read_bytes()
        hit = self.server.faults.hit if len(data) > BIG and self.command == "GET" else lambda name: False
        etag = f'"{hashlib.md5(data).hexdigest()}"' if is_cdn else f'"{git_sha1(data)}"'
        if self.command == "GET" and self.server.faults.hit("changed"):
            data = data[::-1]
            etag = '"changed"'
        headers = [("ETag", etag), ("Accept-Ranges", "bytes"), *extra]
        if self.headers.get("If-None-Match") == etag:
            self.answer(304, headers, None)
            return
        status, start = 200, 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and self.headers.get("If-Range", etag) == etag and not hit("no-range"):
            start = int(asked[6:].split("-")[0])
            if start >= len(data):
                self.answer(416, [("Content-Range", f"bytes */{len(data)}")])
                return
            status = 206
            headers.append(("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
        if hit("wrong-hash"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if hit("html"):
            data, headers = b"<!DOCTYPE html><html>Sign in</html>" + b" " * (len(data) - 35), headers + [
                ("Content-Type", "text/html")]
        if hit("short"):
            data = data[:-1]
        body = data[start:]
        if hit("endless"):
            self.endless(headers)
            return
        self.send(status, headers, body, hit)

    def endless(self, headers):
        self.answer(200, headers + [("Transfer-Encoding", "chunked")], None)
        piece = b"x" * 65536
        while True:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def send(self, status, headers, body, hit):
        cut, stall, slow = hit("cut"), hit("stall"), hit("slow")
        self.answer(status, headers + [("Content-Length", str(len(body)))], None)
        if self.command == "HEAD":
            return
        if cut or stall:
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            if stall:
                time.sleep(60)
            self.close_connection = True
            self.connection.close()
            return
        step = max(1, len(body) // 50) if slow else len(body) or 1
        for i in range(0, len(body), step):
            self.wfile.write(body[i:i + step])
            self.wfile.flush()
            if slow:
                time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--cdn", action="store_true")
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--fault", action="append", default=[])
    args = parser.parse_args()
    state = pathlib.Path(args.state)
    state.mkdir(parents=True, exist_ok=True)
    log = open(state / "log", "a", encoding="utf-8")
    faults = Faults(args.fault)
    hub = Hub("hub", args, faults, log)
    if args.cdn:
        hub.cdn = Hub("cdn", args, faults, log)
        threading.Thread(target=hub.cdn.serve_forever, daemon=True).start()
        (state / "cdn-port").write_text(str(hub.cdn.server_address[1]))
    ready = state / "port.tmp"
    ready.write_text(str(hub.server_address[1]))
    ready.rename(state / "port")
    hub.serve_forever()


if __name__ == "__main__":
    main()
