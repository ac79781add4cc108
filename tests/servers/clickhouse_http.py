"""ClickHouse's engine (chdb, which runs it in this process) behind its HTTP interface: as much of
it as a client needs that does not compress.

    clickhouse_http.py HOST PORT FOLDER
"""

import os
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

HOST, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ENGINE = session.Session(os.path.join(FOLDER, "engine"))
TURN = threading.Lock()  # one statement at a time
INSERT = re.compile(r"INSERT INTO (?P<table>\S+) \((?P<columns>.*)\) FORMAT RowBinary\s*$", re.S)


def insert(statement, rows):
    """The engine takes rows in from a file alone; their types are the table's."""
    found = INSERT.match(statement)
    table, columns = found["table"], [name.strip(" `") for name in found["columns"].split(",")]
    described = ENGINE.query(f"DESCRIBE TABLE {table}", "TabSeparatedRaw").bytes().decode()
    types = dict(line.split("\t")[:2] for line in described.splitlines())
    structure = ", ".join(f"`{name}` {types[name]}" for name in columns)
    with tempfile.NamedTemporaryFile(dir=FOLDER) as file:
        file.write(rows)
        file.flush()
        structure = structure.replace("\\", "\\\\").replace("'", "\\'")
        source = f"file('{file.name}', 'RowBinary', '{structure}')"
        ENGINE.query(f"INSERT INTO {table} ({found['columns']}) SELECT * FROM {source}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def answer(self, status, body, fault=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if fault:
            self.send_header("X-ClickHouse-Exception-Code", fault)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b"Ok.\n")

    def do_POST(self):
        asked = parse_qs(urlsplit(self.path).query)
        body = self.body()
        try:
            with TURN:
                if "query" in asked:
                    insert(asked["query"][0], body)
                    self.answer(200, b"")
                else:
                    form = asked.get("default_format", ["TabSeparated"])[0]
                    self.answer(200, ENGINE.query(body.decode(), form).bytes() or b"")
        except Exception as fault:  # whatever the engine says goes to whoever asked
            text = str(fault)
            code = re.search(r"Code: (\d+)", text)
            self.answer(500, text.encode(), code[1] if code else "1")

    def log_message(self, *args):
        pass


ThreadingHTTPServer((HOST, PORT), Handler).serve_forever()
