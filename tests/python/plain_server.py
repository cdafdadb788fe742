"""A bucket that is a folder: ``plain_server.py PORT FOLDER``.

It speaks as much of S3 as a repository asks for and looks at no signature. It neither digests nor copies what passes through, so it is as
fast as the disk's cache, where moto takes minutes for a gibibyte.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

#: Bytes that a thread has in memory.
PIECE = 1 << 20


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    root: Path
    #: Whether an object is there, and creating it, are one step.
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        return urllib.parse.unquote(url.path).strip("/"), dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))

    def _file(self, key: str) -> Path:
        return self.root / "objects" / urllib.parse.quote(key, safe="")

    def _answer(self, status: int, text: str = "", **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")

    def _take_body(self, path: Path) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        with path.open("wb", buffering=0) as file:
            while left:
                piece = self.rfile.read(min(left, PIECE))
                assert piece, "the client hung up"
                file.write(piece)
                left -= len(piece)

    def _part(self, upload: str, number: str) -> Path:
        return self.root / "uploads" / f"{upload}.{int(number)}"

    def do_PUT(self) -> None:
        key, query = self._asked()
        if "uploadId" in query:
            self._take_body(self._part(query["uploadId"], query["partNumber"]))
            return self._answer(200, ETag='"part"')
        new = self.root / "uploads" / secrets.token_hex(16)
        self._take_body(new)
        with self.lock:
            if self.headers.get("If-None-Match") == "*" and self._file(key).exists():
                new.unlink()
                return self._refuse(412, "PreconditionFailed")
            new.rename(self._file(key))
        return self._answer(200, ETag='"whole"')

    def do_POST(self) -> None:
        key, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if "uploads" in query:
            upload = secrets.token_hex(16)
            return self._answer(200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
        if "delete" in query:
            bucket = key.split("/")[0]
            keys = re.findall("<Key>(.*?)</Key>", body)
            for each in keys:
                self._file(f"{bucket}/{each}").unlink(missing_ok=True)
            told = "".join(f"<Deleted><Key>{each}</Key></Deleted>" for each in keys)
            return self._answer(200, f"<DeleteResult>{told}</DeleteResult>")
        upload = query["uploadId"]
        parts = [self._part(upload, number) for number in re.findall("<PartNumber>(\\d+)</PartNumber>", body)]
        with parts[0].open("r+b") as whole:
            whole.seek(0, os.SEEK_END)
            for part in parts[1:]:
                with part.open("rb") as file:
                    while os.sendfile(whole.fileno(), file.fileno(), None, 1 << 30):
                        pass
                part.unlink()
        parts[0].rename(self._file(key))
        return self._answer(
            200, f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>whole</ETag></CompleteMultipartUploadResult>"
        )

    def do_DELETE(self) -> None:
        key, query = self._asked()
        if "uploadId" not in query:
            self._file(key).unlink(missing_ok=True)
        self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query = self._asked()
        if "list-type" in query:
            return self._list(key, query.get("prefix", ""))
        try:
            file = self._file(key).open("rb")
        except FileNotFoundError:
            return self._refuse(404, "NoSuchKey")
        with file:
            byte_len = os.fstat(file.fileno()).st_size
            start, end = 0, byte_len
            asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if asked and asked[1]:
                start, end = int(asked[1]), min(byte_len, int(asked[2]) + 1 if asked[2] else byte_len)
            elif asked:
                start = max(0, byte_len - int(asked[2]))
            if asked and start >= end:
                return self._refuse(416, "InvalidRange")
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{byte_len}")
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", '"whole"')
            self.send_header("Last-Modified", self.date_time_string(os.fstat(file.fileno()).st_mtime))
            self.end_headers()
            while self.command == "GET" and start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, min(end - start, PIECE))
        return None

    def _list(self, bucket: str, prefix: str) -> None:
        found = sorted(urllib.parse.unquote(name) for name in os.listdir(self.root / "objects"))
        rows = []
        for key in (name.removeprefix(f"{bucket}/") for name in found if name.startswith(f"{bucket}/{prefix}")):
            size = self._file(f"{bucket}/{key}").stat().st_size
            rows.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>whole</ETag>"
                "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        listed = f"<KeyCount>{len(rows)}</KeyCount><IsTruncated>false</IsTruncated>{''.join(rows)}"
        self._answer(200, f"<ListBucketResult><Name>{bucket}</Name>{listed}</ListBucketResult>")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main(port: int, folder: str) -> None:
    Handler.root = Path(folder)
    for name in ("objects", "uploads"):
        (Handler.root / name).mkdir()
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
