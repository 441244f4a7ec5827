"""Claims about the client beside a server of a few lines; the real one is in the example."""

import gzip
import json
import threading
import time
import unittest
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

from freshet_client import Client, Event, HistoryEvent, ProblemError, TransportError, new_event_id
from freshet_client import _client, _transport

DONE = {"accepted": 1, "duplicates": 0, "rejected": [], "offset": 7}


class Stub(BaseHTTPRequestHandler):
    """Answers from a list and keeps what it was sent."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.seen.append((self.command, self.path, self.headers, body))
        status, headers, document = self.server.answers.pop(0)
        text = json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_args) -> None:
        pass


class ClientTest(unittest.TestCase):
    def setUp(self) -> None:
        self.server = HTTPServer(("127.0.0.1", 0), Stub)
        self.server.answers, self.server.seen = [], []
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.client = Client(url, ingest_key="in", read_key="re", admin_url=url, admin_token="ad")

    def test_ids_are_of_version_7_and_in_the_order_of_time(self) -> None:
        first = new_event_id()
        time.sleep(0.002)
        later = uuid.UUID(new_event_id())
        self.assertEqual((later.version, later.variant), (7, uuid.RFC_4122))
        self.assertLess(first, str(later))

    def test_what_is_overloaded_is_asked_again_with_the_same_ids_after_the_time_it_names(self) -> None:
        self.server.answers = [(503, {"Retry-After": "1"}, {}), (200, {}, DONE)]
        started = time.monotonic()
        receipt = self.client.send_events([Event("click", "u", "i")])
        self.assertGreaterEqual(time.monotonic() - started, 1.0)
        self.assertEqual((receipt.accepted, receipt.offset), (1, 7))
        first, second = (json.loads(body) for *_, body in self.server.seen)
        self.assertEqual(first, second)
        self.assertEqual(self.server.seen[0][2]["Authorization"], "Bearer in")

    def test_batches_are_packed_and_rejections_have_the_index_of_the_whole(self) -> None:
        rejection = {"index": 2, "code": "unknown_item", "pointer": "/events/2/item_id", "detail": "no item"}
        self.server.answers = [(200, {}, DONE), (200, {}, DONE | {"rejected": [rejection]})]
        receipt = self.client.send_events(Event("click", "u", "i") for _ in range(_client.BATCH_LEN_MAX + 3))
        self.assertEqual([(one.index, one.code) for one in receipt.rejected], [(502, "unknown_item")])
        sizes = [len(json.loads(body)["events"]) for *_, body in self.server.seen]
        self.assertEqual(sizes, [500, 3])
        self.assertEqual(self.server.seen[0][2]["Content-Encoding"], "gzip")

    def test_a_refusal_is_not_repeated_and_names_the_field(self) -> None:
        errors = [{"pointer": "/k", "code": "malformed", "detail": "0 is too small"}]
        problem = {"type": "about:blank", "title": "Unprocessable", "detail": "no", "errors": errors}
        self.server.answers = [(422, {}, problem)]
        with self.assertRaises(ProblemError) as raised:
            self.client.recommend(history=[HistoryEvent("i", "click", 1)], k=0)
        self.assertEqual((raised.exception.status, raised.exception.errors[0].pointer), (422, "/k"))
        self.assertIn("/k: 0 is too small", str(raised.exception))
        self.assertEqual(len(self.server.seen), 1)

    def test_an_order_is_not_given_twice_where_no_answer_came(self) -> None:
        self.server.answers = [(502, {}, {}), (200, {}, {})]
        with self.assertRaises(ProblemError):
            self.client.rollback(3)
        self.assertEqual(len(self.server.seen), 1)
        self.assertEqual(self.server.seen[0][2]["Authorization"], "Bearer ad")

    def test_a_server_that_is_not_there_is_an_error_with_its_address(self) -> None:
        client = Client("http://127.0.0.1:9", tries_max=1)
        with self.assertRaisesRegex(TransportError, "127.0.0.1:9/v1/status"):
            client.status()

    def test_users_of_any_name_are_asked_for_page_by_page(self) -> None:
        page = {"events": [{}], "next_from": 5}
        self.server.answers = [(200, {}, page), (200, {}, page | {"next_from": None})]
        self.assertEqual(len(list(self.client.export_user("a/b c"))), 2)
        paths = [path for _, path, *_ in self.server.seen]
        self.assertEqual(paths, ["/v1/users/a%2Fb%20c?from=0", "/v1/users/a%2Fb%20c?from=5"])

    def test_waits_double_up_to_a_limit_and_dates_are_understood(self) -> None:
        self.assertLessEqual(_transport.backoff_secs(1), 0.25)
        self.assertLessEqual(_transport.backoff_secs(99), 30.0)
        self.assertGreaterEqual(_transport.backoff_secs(99), 15.0)
        self.assertEqual(_transport.retry_after_secs("Thu, 01 Jan 1970 00:00:05 GMT"), 0.0)
        self.assertEqual(_transport.retry_after_secs("soon"), 0.0)
        self.assertEqual(_transport.retry_after_secs("999999"), 30.0)


if __name__ == "__main__":
    unittest.main()
