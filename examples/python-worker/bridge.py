"""A worker's side of TaskBridge's worker API, with the standard library alone.

docs/worker-api.md says what goes over the wire. A Run is one attempt at a task:

    run = Run(url, task_id, submission_token, claim)
    run.start()
    run.progress(40, message="4 of 10")
    run.complete({"answer": 42})
"""

import collections
import json
import logging
import random
import threading
import urllib.error
import urllib.request

log = logging.getLogger("bridge")

BATCH_DELAY = 0.05  # seconds between two requests with reports, if nobody waits
MAX_BATCH = 200  # reports in a request; the server takes 1,000
MAX_WAITING = 1000  # reports that a run keeps before report() blocks
POLL = 50  # seconds that a request for cancellation waits; the server grants 60
TIMEOUT = 30  # seconds for a request beyond what it waits


class Over(Exception):
    """Stop: the work runs elsewhere, or the task has ended or must not run."""


class Refused(Exception):
    """The server did not record a report since it may not be recorded."""


class Stopped(Exception):
    """This process is to end; the task goes on with whoever starts it next."""


class _Answer(Exception):
    """An answer other than 200."""

    def __init__(self, status, code, message, retry_after):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.retry_after = status, code, retry_after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # Tokens go to the server and nowhere else.
    def redirect_request(self, *_):
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _request(method, url, token, body=None, wait=0):
    """Make one request and return the JSON of its answer, or raise."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)
    request.add_header("Authorization", "Bearer " + token)
    request.add_header("Content-Type", "application/json")
    try:
        with _opener.open(request, timeout=wait + TIMEOUT) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        content = error.read()
        try:
            problem = json.loads(content)
            code, message = problem["code"], problem["message"]
        except (ValueError, KeyError, TypeError):
            code, message = "", "no answer of the worker API"
        after = error.headers.get("Retry-After", "")
        raise _Answer(error.code, code, message, int(after) if after.isdigit() else 0) from None


def _passes(error):
    """Whether the request is to be sent again as it was.

    What is no answer of the worker API comes from something on the way.
    """
    return not isinstance(error, _Answer) or error.status in (408, 425, 429) or error.status >= 500 or not error.code


class Run:
    """One attempt. Its methods may be called from any thread.

    report() and what is built on it return once the report is in the run's
    buffer; the ends wait until the server has them. All of them raise Over once
    nothing more can be reported.
    """

    def __init__(self, url, task_id, submission_token, claim, stopping=None):
        self._base = f"{url}/api/v1/worker/tasks/{task_id}/"
        self._submission_token, self._claim = submission_token, claim
        self._stopping = stopping or threading.Event()
        self.cancelled = threading.Event()  # the client wants the work to stop
        self.over = threading.Event()  # nothing more can be reported
        self.cancel_reason, self.task = "", None

        self._changed = threading.Condition()  # guards what follows
        self._token = ""
        self._waiting = collections.deque()
        self._ordinal = 1  # the next report's
        self._ending = False  # an end is among the waiting, or was
        self._done = False  # and the server has it
        self._why = None  # why the run is over
        self._refusal = None  # a Refused that nobody has been told of yet
        self._renewing = threading.Lock()

    def start(self):
        """Begin the attempt. The work may begin when this has returned."""
        self._absorb(self._start())
        for target in (self._send, self._watch):
            threading.Thread(target=target, daemon=True).start()

    def progress(self, percent, stage="", message=""):
        self.report(type="progress", progress=percent, stage=stage, message=message)

    def message(self, text, level="info"):
        self.report(type="message", message=text, level=level)

    def text(self, piece):
        """A piece of text; pieces that follow one another become one message."""
        self.report(type="token", text=piece)

    def complete(self, result, message=""):
        self._end(type="complete", result=result, message=message)

    def fail(self, code, message, retryable=False):
        self._end(type="fail", code=code, message=message, retryable=retryable)

    def cancel(self, message=""):
        self._end(type="cancelled", message=message)

    def report(self, **report):
        with self._changed:
            self._check()
            waiting = self._waiting
            if report["type"] == "progress" and waiting and waiting[-1]["type"] == "progress":
                waiting[-1] = report  # nobody needs the older one
                return
            while len(waiting) >= MAX_WAITING:
                self._changed.wait(1)
                self._check()
            waiting.append(report)
            self._changed.notify_all()

    def _end(self, **report):
        with self._changed:
            self._check()
            self._ending = True
            self._waiting.append(report)
            self._changed.notify_all()
            while not self._done:
                self._changed.wait(1)
                self._check()

    def _check(self):
        if self._stopping.is_set():
            raise Stopped()
        if self._why is not None and not self._done:
            raise Over(self._why)
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal

    def _send(self):
        """Send what waits, in order, one request at a time."""
        while True:
            with self._changed:
                while not self._waiting:
                    if self.over.is_set() or self._stopping.is_set():
                        return
                    self._changed.wait(1)
                size = min(len(self._waiting), MAX_BATCH)
                reports = [self._waiting.popleft() for _ in range(size)]
                body = {"firstOrdinal": self._ordinal, "reports": reports}
                self._ordinal += size
                self._changed.notify_all()
            last = reports[-1]["type"] in ("complete", "fail", "cancelled")
            try:
                # Sent again as it was, until there is an answer.
                answer = self._persist("POST", "reports", body)
            except (Over, Stopped):
                return
            except Refused as refusal:
                # Nothing of it is recorded. The next report tells the work.
                with self._changed:
                    self._refusal, self._ending = refusal, False
                    self._changed.notify_all()
                continue
            for refused in answer.get("refused", []):
                log.warning("report %s was not recorded: %s", refused["ordinal"], refused["message"])
            if last:
                with self._changed:
                    self._done = True
                self._finish("the task has ended")
                return
            with self._changed:
                if not self._ending:
                    self._changed.wait_for(lambda: self._ending, BATCH_DELAY)

    def _watch(self):
        """Learn of a cancellation, and keep the token fresh, by long polls."""
        while not self.over.is_set():
            known = "true" if self.cancelled.is_set() else "false"
            route = f"attempt?waitTimeoutMs={POLL * 1000}&cancellationKnown={known}"
            try:
                self._persist("GET", route, wait=POLL)
            except (Over, Stopped, Refused):
                return

    def _persist(self, method, route, body=None, wait=0):
        """Make a request until it has an answer that counts."""
        for tries, pause in enumerate(_pauses(), 1):
            with self._changed:
                token = self._token
            try:
                answer = _request(method, self._base + route, token, body, wait)
                self._absorb(answer)
                return answer
            except (_Answer, OSError, ValueError, KeyError, TypeError) as error:
                after = 0
                if isinstance(error, _Answer):
                    after = error.retry_after
                    if error.status == 401 and error.code:
                        self._renew(token)
                        continue
                    if error.status in (400, 413, 422) and error.code:
                        raise Refused(str(error)) from None
                    if not _passes(error):
                        self._finish(str(error))
                        raise Over(str(error)) from None
                if self.over.is_set():
                    raise Over(self._why) from None
                log.warning("%s had no answer in try %d: %s", route.partition("?")[0], tries, error)
                self._pause(max(pause, after))

    def _renew(self, token):
        """Go on under an attempt token that has expired.

        The same start goes on, and so do its ordinals: what had no answer can be
        sent again without being doubled.
        """
        with self._renewing:
            with self._changed:
                if self._token != token:
                    return  # the other thread was faster
            self._absorb(self._start(token))
            log.info("an expired token was renewed")

    def _start(self, attempt_token=None):
        body = {"claim": self._claim}
        if attempt_token:
            body["attemptToken"] = attempt_token
        for pause in _pauses():
            try:
                answer = _request("POST", self._base + "start", self._submission_token, body)
                self.task = answer["task"]
                return answer
            except (_Answer, OSError, ValueError, KeyError, TypeError) as error:
                if not _passes(error):
                    self._finish(str(error))
                    raise Over(str(error)) from None
                log.warning("the start had no answer: %s", error)
                self._pause(max(pause, getattr(error, "retry_after", 0)))

    def _absorb(self, answer):
        with self._changed:
            self._token = answer["token"]
            if answer["cancellationRequested"]:
                self.cancel_reason = answer.get("cancelReason", "")
                self.cancelled.set()

    def _finish(self, why):
        with self._changed:
            self._why = self._why or why
            self.over.set()
            self.cancelled.set()  # whoever waits for that stops too
            self._changed.notify_all()

    def _pause(self, seconds):
        if self._stopping.wait(seconds):
            raise Stopped()


def _pauses():
    """Pauses between tries: they grow to ten seconds and are never the same."""
    pause = 0.1
    while True:
        yield pause * random.uniform(0.5, 1)
        pause = min(2 * pause, 10)
