"""A TaskBridge worker: computes the SHA-256 of files.

The server posts a task to /tasks. The worker writes it down before it says that
it has it, does the work in a thread of its own, and reports over the worker API.
Killed and started again, it goes on with whatever it had accepted.

    python3 worker.py --secret-file secret --root .
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import logging
import os
import pathlib
import queue
import signal
import sys
import threading
import time
import uuid

import bridge

log = logging.getLogger("worker")

MAX_BODY = 4 << 20
MAX_AGE = 300  # seconds that a message may be old


class Invalid(Exception):
    """The input is none of this task's, and never will be."""


def check_input(task_input):
    """Return the names of the files and the bytes a second that are asked for."""
    names, pace = task_input.get("files"), task_input.get("bytesPerSecond", 0)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise Invalid("files must be a list of names")
    if isinstance(pace, bool) or not isinstance(pace, (int, float)) or pace < 0:
        raise Invalid("bytesPerSecond must be a number, 0 or more")
    return names, pace


def sum_files(run, root):
    """The work: the SHA-256 of each file below root that the input names."""
    names, pace = check_input(run.task["input"])
    paths = []
    for name in names:
        path = (root / name).resolve()
        if root not in path.parents:
            return run.fail("INVALID_INPUT", f"{name} is not below the worker's folder")
        paths.append(path)
    try:
        total = sum(path.stat().st_size for path in paths)
        done, sums = 0, []
        for name, path in zip(names, paths):
            digest, size = hashlib.sha256(), 0
            with path.open("rb") as file:
                while chunk := file.read(min(1 << 20, max(1, int(pace / 20))) if pace else 1 << 20):
                    digest.update(chunk)
                    size += len(chunk)
                    done += len(chunk)
                    run.progress(min(100, 100 * done / total), stage=name)
                    # A cancellation ends the wait.
                    if run.cancelled.wait(len(chunk) / pace) if pace else run.cancelled.is_set():
                        return run.cancel(f"after {done} of {total} bytes")
            sums.append({"name": name, "bytes": size, "sha256": digest.hexdigest()})
            run.message(f"{digest.hexdigest()}  {name}")
    except OSError as error:
        return run.fail("UNREADABLE", f"{error.strerror}: {name}" if error.strerror else str(error))
    return run.complete({"files": sums})


class Journal:
    """The tasks that were accepted and have not ended, a file each."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _path(self, task_id):
        # A task id may be as long as a file's name.
        return self.folder / (hashlib.sha256(task_id.encode()).hexdigest() + ".json")

    def add(self, task):
        """Write the task down, so that it is there after a power cut."""
        path = self._path(task["taskId"])
        temporary = path.with_suffix(".tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(task, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def remove(self, task_id):
        self._path(task_id).unlink(missing_ok=True)

    def tasks(self):
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


class Worker:
    """Takes tasks and works on a few at a time."""

    def __init__(self, root, journal, threads):
        self.root, self.journal, self.stopping = root, journal, threading.Event()
        self.lock = threading.Lock()
        self.waiting, self.running = {}, set()  # by task id
        self.queue = queue.SimpleQueue()
        for task in journal.tasks():
            log.info("going on with %s, which was accepted before", task["taskId"])
            self.waiting[task["taskId"]] = task
            self.queue.put(task["taskId"])
        for _ in range(threads):
            threading.Thread(target=self._serve, daemon=True).start()

    def submit(self, task):
        """Take a task. One that is known already is not taken twice."""
        check_input(task["input"])
        with self.lock:
            if task["taskId"] in self.waiting or task["taskId"] in self.running:
                return
            self.journal.add(task)
            self.waiting[task["taskId"]] = task
        self.queue.put(task["taskId"])

    def cancel(self, task_id):
        """Pass a cancellation on; false for a task that is not here.

        A task that runs learns by its run. One that waits is started at once: the
        server does not let it run, and ends it by that.
        """
        with self.lock:
            if task_id in self.waiting:
                threading.Thread(target=self._work, args=(task_id,), daemon=True).start()
                return True
            return task_id in self.running

    def _serve(self):
        while not self.stopping.is_set():
            self._work(self.queue.get())

    def _work(self, task_id):
        with self.lock:
            task = self.waiting.pop(task_id, None)
            if task is None:
                return
            self.running.add(task_id)
        # A new claim each time: this process's work is not that of the one before.
        run = bridge.Run(task["url"], task_id, task["token"], f"python-{uuid.uuid4()}", self.stopping)
        try:
            run.start()
            log.info("%s has begun", task_id)
            try:
                sum_files(run, self.root)
            except (bridge.Over, bridge.Stopped):
                raise
            except Exception as error:  # whatever else the work comes to
                log.exception("%s failed", task_id)
                run.fail("WORKER_ERROR", str(error) or type(error).__name__, retryable=True)
            log.info("%s has ended", task_id)
        except bridge.Over as over:
            log.info("%s is not worked on any more: %s", task_id, over)
        except bridge.Stopped:
            return  # it stays in the journal
        except bridge.Refused as refusal:
            log.error("the end of %s was refused: %s", task_id, refusal)
        self.journal.remove(task_id)
        with self.lock:
            self.running.discard(task_id)


def verify(secret, headers, body, now):
    """Whether the message comes from the server: Standard Webhooks, version 1."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(now - int(timestamp)) > MAX_AGE:
        return False
    content = f"{message_id}.{timestamp}.".encode() + body
    want = "v1," + base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(want.encode(), signature.encode()) for signature in given)


class Address(http.server.BaseHTTPRequestHandler):
    """What the server posts to."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    worker = secret = None  # set by main

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if self.path != "/tasks" or not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True  # the body is not read
            return self.answer(404 if self.path != "/tasks" else 413)
        body = self.rfile.read(int(length))
        if not verify(self.secret, self.headers, body, time.time()):
            return self.answer(401, "the signature is not the server's")
        message = json.loads(body)
        task = message["data"]
        if message["type"] == "task.cancel":
            return self.answer(202 if self.worker.cancel(task["taskId"]) else 404)
        if message["type"] != "task.submitted" or task["taskType"] != "sha256":
            return self.answer(422, "this worker does not know what that is")
        try:
            self.worker.submit(task)
        except Invalid as invalid:
            return self.answer(422, str(invalid))
        self.answer(202)

    def answer(self, status, message=""):
        content = json.dumps({"message": message} if message else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):
        log.debug(format, *args)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--listen", default="127.0.0.1:9000", metavar="HOST:PORT")
    parser.add_argument("--secret-file", required=True, help="what the server signs its messages with")
    parser.add_argument("--root", default=".", help="files outside of this folder are not read")
    parser.add_argument("--state", default="worker-state", help="where accepted tasks are written down")
    parser.add_argument("--threads", type=int, default=4)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    Address.secret = pathlib.Path(args.secret_file).read_text().strip().encode()
    if len(Address.secret) < 32:
        sys.exit(f"{args.secret_file} must have a secret of 32 bytes or more")
    # Bound before the journal is gone on with: of two workers one stays out.
    host, _, port = args.listen.rpartition(":")
    server = http.server.ThreadingHTTPServer((host, int(port)), Address)
    worker = Address.worker = Worker(pathlib.Path(args.root).resolve(), Journal(pathlib.Path(args.state)), args.threads)

    def stop(*_):
        worker.stopping.set()
        threading.Thread(target=server.shutdown).start()  # which waits for serve_forever

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("listening on http://%s:%d/tasks", *server.server_address[:2])
    server.serve_forever()


if __name__ == "__main__":
    main()
