"""Python's own HTTP server with a child process: `python -m tests.small_server --host HOST --port PORT`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    HTTPServer((options.host, options.port), SimpleHTTPRequestHandler).serve_forever()
