"""Clients over REST."""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from fastapi import HTTPException, Request

from mailing import gate
from mailing.api import client_import
from tests.builders import audited, some_clients
from tests.web import problem

NUMBER = "79001234567"
OTHER = "79001234568"
WHOLE = {"phone_number": NUMBER, "tags": ["art"], "timezone": "Asia/Omsk"}
HEADER = "phone_number,tags,timezone\n"


@pytest.fixture
def made(operator):
    """A client that is there."""
    return operator.post("/api/clients/", WHOLE).json()


def path_of(client):
    return f"/api/clients/{client['id']}/"


def all_of(viewer, **query):
    """The phone numbers and tags of all clients."""
    items = viewer.get("/api/clients/", params=query).json()["items"]
    return {item["phone_number"]: item["tags"][1:] for item in items}


class TestClients:
    def test_a_client_is_created_read_replaced_edited_and_deleted(self, operator, admin):
        answer = operator.post("/api/clients/", {"phone_number": "+7 (900) 123-45-67", "tags": ["sport", "900", "art"]})
        made = answer.json()
        assert answer.status_code == 201
        assert made | {"id": 0, "created": ""} == {
            "id": 0, "phone_number": NUMBER, "mobile_operator_code": "900", "tags": ["900", "art", "sport"],
            "timezone": "UTC", "created": "",
        }  # fmt: skip
        assert operator.get(path_of(made)).json() == made
        replaced = operator.put(path_of(made), WHOLE).json()
        assert replaced == made | {"tags": ["900", "art"], "timezone": "Asia/Omsk"}
        edited = operator.patch(path_of(made), {"phone_number": "8 901 123-45-67", "timezone": None}).json()
        assert edited == replaced | {
            "phone_number": "79011234567", "mobile_operator_code": "901", "tags": ["901", "art"],
        }  # fmt: skip
        assert operator.patch(path_of(made), {}).json() == edited
        assert admin.delete(path_of(made)).status_code == 204
        problem(operator.get(path_of(made)), 404, f"client {made['id']}: there is no such client")

    def test_whoever_is_not_logged_in_gets_401(self, nobody):
        for method, path in (
            ("GET", ""), ("POST", ""), ("GET", "1/"), ("PUT", "1/"), ("PATCH", "1/"), ("DELETE", "1/"),
            ("POST", "lookup"), ("POST", "bulk"), ("POST", "import"),
        ):  # fmt: skip
            problem(nobody(method, f"/api/clients/{path}", WHOLE), 401)

    def test_a_viewer_reads_an_operator_writes_and_an_admin_deletes(self, viewer, operator, made):
        assert viewer.get(path_of(made)).json() == made
        assert viewer.get("/api/clients/").json()["items"] == [made]
        assert viewer.post("/api/clients/lookup", {"phone_number": NUMBER}).json() == made
        problem(viewer.post("/api/clients/", WHOLE), 403, "start runs")
        problem(viewer.put(path_of(made), WHOLE), 403)
        problem(viewer.patch(path_of(made), {}), 403)
        problem(viewer.post("/api/clients/bulk", {"clients": [WHOLE]}), 403)
        problem(viewer.post("/api/clients/import", headers={"Content-Type": "text/csv"}), 403)
        problem(operator.delete(path_of(made)), 403, "admin")

    def test_a_client_that_is_not_there_is_404(self, admin):
        for method, body in (("GET", None), ("PUT", WHOLE), ("PATCH", {"tags": []}), ("DELETE", None)):
            problem(admin(method, "/api/clients/7/", body), 404, "client 7: there is no such client")

    def test_a_taken_number_is_409_and_is_not_told(self, operator, made):
        other = operator.post("/api/clients/", {"phone_number": OTHER}).json()
        for answer in (
            operator.post("/api/clients/", {"phone_number": "8 900 123-45-67"}),
            operator.put(path_of(other), WHOLE),
            operator.patch(path_of(other), {"phone_number": NUMBER}),
        ):
            problem(answer, 409, "phone_number: there is a client with this number already")
            assert NUMBER not in answer.text

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"phone_number": "123"}, "phone_number"),
            ({"phone_number": ""}, "phone_number"),
            ({"phone_number": None}, "body"),
            ({"phone_number": 79001234567}, "body.phone_number"),
            ({"phone_number": f"{NUMBER}\0"}, "body.phone_number"),
            ({"phone_number": NUMBER * 10}, "body.phone_number"),
            ({"tags": ["901"]}, "tags"),
            ({"tags": ["a b"]}, "tags"),
            ({"tags": [""]}, "body.tags.0"),
            ({"tags": ["a", "b\0"]}, "body.tags.1"),
            ({"tags": ["x" * 201]}, "body.tags.0"),
            ({"tags": "art"}, "body.tags"),
            ({"tags": [1]}, "body.tags.0"),
            ({"timezone": "Mars"}, "timezone"),
            ({"timezone": ""}, "timezone"),
            ({"timezone": 3}, "body.timezone"),
            ({"operator": "900"}, "body.operator"),
            ({"id": 5}, "body.id"),
        ],
    )
    def test_a_value_that_breaks_a_rule_is_422_and_names_its_field(self, operator, made, body, field):
        for method, path, whole in (
            ("POST", "/api/clients/", {"phone_number": OTHER} | body),
            ("PUT", path_of(made), WHOLE | body),
            ("PATCH", path_of(made), body),
        ):
            if method == "PATCH" and None in body.values():
                continue  # null: stays
            found = problem(operator(method, path, whole), 422)
            assert found["errors"][0]["field"].startswith(field)
            assert NUMBER not in str(found)
        assert operator.get(path_of(made)).json() == made

    def test_all_that_was_read_may_be_put_back_with_a_number_of_another_operator(self, operator):
        made = operator.post("/api/clients/", {"phone_number": NUMBER, "tags": ["vip"]}).json()
        assert made["tags"] == ["900", "vip"]
        body = {"phone_number": "79011234567", "tags": made["tags"], "timezone": made["timezone"]}
        answer = operator.put(path_of(made), body)
        assert (answer.status_code, answer.json()["tags"]) == (200, ["901", "vip"])
        problem(operator.put(path_of(made), body | {"tags": ["902", "vip"]}), 422, "tag '902' is an operator code")

    def test_a_put_wants_every_field_so_that_none_is_lost_by_leaving_it_out(self, operator, made):
        for name in WHOLE:
            body = {key: value for key, value in WHOLE.items() if key != name}
            found = problem(operator.put(path_of(made), body), 422)
            assert found["errors"][0]["field"] == f"body.{name}"

    def test_lookup_finds_a_number_however_it_is_written_or_is_404(self, viewer, made):
        for written in (NUMBER, "+7 900 123 45 67", "8(900)1234567"):
            assert viewer.post("/api/clients/lookup", {"phone_number": written}).json() == made
        answer = viewer.post("/api/clients/lookup", {"phone_number": OTHER})
        problem(answer, 404, "there is no client with this number")
        assert OTHER not in answer.text
        problem(viewer.post("/api/clients/lookup", {"phone_number": "1"}), 422, "phone_number")
        problem(viewer.post("/api/clients/lookup", {}), 422, "phone_number")

    def test_what_is_written_is_in_the_audit_log_under_the_user_s_name(self, operator, admin, connection):
        made = operator.post("/api/clients/", WHOLE).json()
        operator.patch(path_of(made), {"tags": []})
        admin.delete(path_of(made))
        assert [(actor, action) for actor, action, *_ in audited(connection)] == [
            ("operator", "create_client"), ("operator", "edit_client"), ("admin", "delete_client"),
        ]  # fmt: skip
        assert NUMBER not in str(audited(connection))


class TestList:
    @pytest.mark.parametrize("sort", ["id", "-id", "phone_number", "-phone_number"])
    def test_its_pages_hold_all_of_them_and_no_cursor_a_number(self, viewer, connection, sort):
        ids = some_clients(connection, 7, tags=("art",))
        found, cursor = [], None
        while True:
            query = {"sort": sort, "limit": 3, "tag": "art"} | ({"cursor": cursor} if cursor else {})
            answer = viewer.get("/api/clients/", params=query).json()
            found += [item["id"] for item in answer["items"]]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        assert found == (ids[::-1] if sort.startswith("-") else ids)

    def test_filters_choose(self, operator):
        operator.post("/api/clients/", WHOLE)
        operator.post("/api/clients/", {"phone_number": "79011234567", "tags": ["art", "sport"]})
        first, second = NUMBER, "79011234567"
        for query, expected in (
            ({}, {first, second}),
            ({"tag": "art"}, {first, second}),
            ({"tag": "sport"}, {second}),
            ({"tag": "900"}, {first}),
            ({"tag": "nobody"}, set()),
            ({"operator_code": "901"}, {second}),
            ({"timezone": "Asia/Omsk"}, {first}),
            ({"timezone": "Asia/Omsk", "tag": "sport"}, set()),
            ({"phone_prefix": "7901123"}, {second}),
        ):
            assert set(all_of(operator, **query)) == expected, query

    def test_fields_choose_what_is_said(self, viewer, made):
        items = viewer.get("/api/clients/", params={"fields": "tags,id"}).json()["items"]
        assert items == [{"id": made["id"], "tags": ["900", "art"]}]

    @pytest.mark.parametrize(
        "query",
        [
            {"phone_prefix": NUMBER}, {"phone_prefix": "8"}, {"phone_prefix": ""}, {"phone_prefix": "7\n"},
            {"operator_code": "90"}, {"operator_code": "9000"}, {"operator_code": "٩٠٠"}, {"tag": ""}, {"tag": "a\0"},
            {"timezone": "\0"}, {"cursor": "x"}, {"cursor": "é\0"}, {"cursor": "x", "sort": "phone_number"},
            {"cursor": "W10"}, {"limit": 0}, {"limit": 10**30}, {"sort": "timezone"}, {"fields": "secret"},
            {"phone_number": NUMBER}, {"cursor": "phone_number.7900123.1.1", "sort": "-phone_number"},
        ],
    )  # fmt: skip
    def test_a_query_that_breaks_a_rule_is_422(self, viewer, query):
        problem(viewer.get("/api/clients/", params=query), 422)


class TestIdempotency:
    def test_the_same_key_gets_the_same_answer_and_one_client(self, operator):
        first = operator.post("/api/clients/", WHOLE, headers={"Idempotency-Key": "k"})
        again = operator.post("/api/clients/", WHOLE, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["Idempotent-Replayed"] == "true"

    def test_with_another_body_it_is_422(self, operator):
        operator.post("/api/clients/", WHOLE, headers={"Idempotency-Key": "k"})
        answer = operator.post("/api/clients/", WHOLE | {"tags": []}, headers={"Idempotency-Key": "k"})
        problem(answer, 422, "another body")

    def test_a_key_of_one_user_or_path_is_none_of_another_s(self, operator, admin):
        headers = {"Idempotency-Key": "k"}
        operator.post("/api/clients/", WHOLE, headers=headers)
        problem(admin.post("/api/clients/", WHOLE, headers=headers), 409)
        assert operator.post("/api/clients/bulk", {"clients": [WHOLE]}, headers=headers).json()["unchanged"] == 1

    def test_twenty_at_once_make_one_client(self, operator, viewer):
        def post(_):
            return operator.post("/api/clients/", WHOLE, headers={"Idempotency-Key": "k"})

        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(post, range(20)))

        assert {answer.status_code for answer in answers} == {201}
        assert all(answer.json() == answers[0].json() for answer in answers)
        assert all_of(viewer) == {NUMBER: ["art"]}

    def test_a_bulk_that_is_repeated_is_answered_as_it_was(self, operator):
        headers = {"Idempotency-Key": "k"}
        body = {"clients": [WHOLE, {"phone_number": "x"}]}
        first = operator.post("/api/clients/bulk", body, headers=headers)
        again = operator.post("/api/clients/bulk", body, headers=headers)
        assert (again.status_code, again.json()) == (200, first.json())
        assert again.json()["inserted"] == 1
        problem(operator.post("/api/clients/bulk", {"clients": [WHOLE]}, headers=headers), 422, "another body")


class TestBulk:
    def test_clients_are_created_changed_or_left_and_the_wrong_ones_named(self, operator, viewer, connection):
        operator.post("/api/clients/", WHOLE)
        operator.post("/api/clients/", {"phone_number": OTHER, "tags": ["art"]})
        rows = [
            WHOLE,
            {"phone_number": "8 900 123-45-68", "tags": ["900", "b", "a", "b"]},
            {"phone_number": "79009999999", "tags": ["lost"]},
            {"phone_number": "79009999999", "tags": []},
            {"phone_number": "7900\n123", "tags": ["x"]},
            {"phone_number": "79000000001", "tags": ["a;b"]},
            {"phone_number": "79000000001", "tags": ["901"]},
            {"phone_number": "79000000001", "tags": [""]},
            {"phone_number": "79000000001", "timezone": "Mars\n"},
            {"phone_number": '"', "tags": ["\r\n" * 200], "timezone": ","},
        ]

        answer = operator.post("/api/clients/bulk", {"clients": rows})

        found = answer.json()
        assert answer.status_code == 200
        assert {name: count for name, count in found.items() if name != "rejects"} == {
            "inserted": 1, "updated": 1, "unchanged": 1, "repeated": 1, "rejected": 6,
        }  # fmt: skip
        assert [(each["index"], each["field"]) for each in found["rejects"]] == [
            (4, "phone_number"), (5, "tags"), (6, "tags"), (7, "tags"), (8, "timezone"), (9, "phone_number"),
        ]  # fmt: skip
        assert found["rejects"][1]["reason"] == "tag 'a;b' has a character other than letters, digits, - and _"
        assert "7900" not in answer.text
        assert all_of(viewer) == {NUMBER: ["art"], OTHER: ["a", "b"], "79009999999": []}
        actor, action, _, _, detail = audited(connection)[-1]
        assert (actor, action, detail["inserted"], detail["rejected"]) == (
            "operator", "import_clients", 1, {"phone_number": 2, "tags": 3, "timezone": 1},
        )  # fmt: skip

    def test_the_same_again_changes_nothing_however_often(self, operator):
        operator.post("/api/clients/bulk", {"clients": [WHOLE]})
        for _ in range(12):  # statements are prepared after a few calls, and the staging table is another each time
            assert operator.post("/api/clients/bulk", {"clients": [WHOLE]}).json()["unchanged"] == 1

    def test_ten_thousand_are_taken_and_one_more_is_not(self, operator):
        rows = [{"phone_number": f"7900{number:07}", "tags": ["art"]} for number in range(10_001)]
        assert operator.post("/api/clients/bulk", {"clients": rows[:-1]}).json()["inserted"] == 10_000
        assert (
            problem(operator.post("/api/clients/bulk", {"clients": rows}), 422)["errors"][0]["field"] == "body.clients"
        )

    @pytest.mark.parametrize(
        "body",
        [
            None, [], {}, {"clients": []}, {"clients": [{}]}, {"clients": [None]}, {"clients": [WHOLE | {"id": 1}]},
            {"clients": [{"phone_number": 5}]}, {"clients": [WHOLE | {"tags": "art"}]}, {"clients": [WHOLE], "more": 1},
            {"clients": [WHOLE | {"timezone": "\0"}]}, {"clients": [WHOLE | {"timezone": None}]},
        ],
    )  # fmt: skip
    def test_a_body_of_another_shape_is_422_and_nothing_is_written(self, operator, viewer, body):
        problem(operator.post("/api/clients/bulk", body), 422)
        assert all_of(viewer) == {}

    def test_a_body_that_is_too_large_is_413(self, operator):
        body = {"clients": [{"phone_number": "7" * gate.MAX_BODY}]}
        problem(operator.post("/api/clients/bulk", body), 413, "wanted at most")


class TestImport:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        """Where temporary files go: whatever a test does, nothing is left there."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        yield tmp_path
        assert list(tmp_path.iterdir()) == []

    def send(self, caller, content, accept="*/*", content_type="text/csv; charset=utf-8"):
        headers = {"Content-Type": content_type, "Accept": accept}
        return caller("POST", "/api/clients/import", content=content, headers=headers)

    def test_a_file_is_brought_in_and_its_wrong_rows_are_told(self, operator, viewer, connection):
        rows = (
            f"{NUMBER},a;b,Asia/Omsk",
            "8 900 123-45-68,,",
            f"{OTHER},c,",
            "=1+1,,",
            "79000000001,a b,",
            "x",
            "79000000001,,Mars",
        )

        answer = self.send(operator, (HEADER + "\n".join(rows)).encode())

        assert answer.status_code == 200
        assert answer.json() == {
            "rows": 7, "clients": 2, "inserted": 2, "updated": 0, "unchanged": 0, "repeated": 1, "normalised": 1,
            "rejected": {"phone_number": 1, "tags": 1, "row": 1, "timezone": 1}, "rejects_truncated": False,
            "rejects": [
                {"line": 5, "field": "phone_number", "value": "=1+1",
                 "reason": "is not a number of the form 7XXXXXXXXXX"},
                {"line": 6, "field": "tags", "value": "a b",
                 "reason": "tag 'a b' has a character other than letters, digits, - and _"},
                {"line": 7, "field": "row", "value": "x", "reason": "has 1 fields, wanted 3"},
                {"line": 8, "field": "timezone", "value": "Mars",
                 "reason": "is not the name of a time zone in the table timezones"},
            ],
        }  # fmt: skip
        assert all_of(viewer) == {NUMBER: ["a", "b"], OTHER: ["c"]}
        actor, action, _, _, detail = audited(connection)[-1]
        assert (actor, action, detail["inserted"]) == ("operator", "import_clients", 2)

    def test_a_file_without_a_wrong_row_says_so(self, operator):
        found = self.send(operator, f"{HEADER}{NUMBER},,\n".encode()).json()
        assert (found["rejects"], found["rejected"], found["rejects_truncated"]) == ([], {}, False)

    def test_of_many_wrong_rows_the_first_thousand_are_told_and_as_csv_all(self, operator):
        content = (HEADER + "".join(f"=x{number},,\n" for number in range(1_500))).encode()

        found = self.send(operator, content).json()
        answer = self.send(operator, content, accept="text/csv")

        assert found["rejected"] == {"phone_number": 1_500}
        assert found["rejects_truncated"] is True
        assert [each["line"] for each in found["rejects"]] == list(range(2, 1_002))
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [int(row["line_number"]) for row in rows] == list(range(2, 1_502))
        assert rows[0]["value"] == "'=x0"

    def test_as_csv_no_wrong_row_is_a_header(self, operator):
        answer = self.send(operator, HEADER.encode(), accept="application/json;q=0.5, text/csv")
        assert (answer.status_code, answer.text) == (200, "line_number,field,value,reason\r\n")

    def test_a_file_larger_than_other_bodies_is_streamed_and_a_long_value_cut(self, operator):
        line = b"x" * 1_000_000 + b"\n"
        count = gate.MAX_BODY // len(line) + 2
        pieces = (HEADER.encode(), *[line] * count, f"{NUMBER},,\n".encode())

        found = self.send(operator, iter(pieces)).json()

        assert (found["inserted"], found["rejected"]) == (1, {"row": count})
        assert all(len(each["value"]) == 200 for each in found["rejects"])

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "body: is empty; wanted the header phone_number,tags,timezone"),
            (b"a,b,c\n", "body: line 1 is 'a,b,c' (digits hidden); wanted the header"),
            (b"79001234567,,\n", "body: line 1 is '###########,,'"),
            (b"\xff\xfe", "body: line 1: byte 0xff is not UTF-8"),
            (b"\0\0", "body: line 1 is"),
            ((HEADER + "79001234567,,\n").encode() + b"\xed\xa0\x80,,\n", "body: line 3: byte 0xed is not UTF-8"),
            (b"x" * ((1 << 20) + 1), "body: line 1 is longer than"),
        ],
    )
    def test_a_body_that_is_no_client_list_is_422_and_nothing_is_written(self, operator, viewer, content, said):
        found = problem(self.send(operator, content), 422, said)
        assert found["errors"][0]["field"] == "body"
        assert all_of(viewer) == {}

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", "text/csv2"])
    def test_another_kind_of_body_is_415(self, operator, content_type):
        problem(self.send(operator, HEADER.encode(), content_type=content_type), 415, "wanted text/csv")

    def test_a_file_that_is_too_large_is_413(self, operator):
        headers = {"Content-Type": "text/csv", "Content-Length": str(gate.MAX_IMPORT + 1)}
        problem(operator("POST", "/api/clients/import", content=b"", headers=headers), 413, "wanted at most")

    def test_its_temporary_files_are_for_our_eyes_only(self, operator, folder):
        content = (HEADER + "".join(f"x{number},,\n" for number in range(20_000))).encode()
        seen = {}
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(self.send, operator, content)
            while not sending.done():
                with suppress(FileNotFoundError):  # it is removed while this looks
                    for path in folder.rglob("*"):
                        seen[path.name] = path.stat().st_mode & 0o777

        assert sending.result().json()["rejected"] == {"phone_number": 20_000}
        assert set(seen.values()) == {0o700, 0o600}

    def test_a_body_that_breaks_off_is_400_and_leaves_nothing(self, folder):
        pieces = iter([{"type": "http.request", "body": b"phone", "more_body": True}, {"type": "http.disconnect"}])

        async def receive():
            return next(pieces)

        async def read():
            scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"text/csv")]}
            await anext(client_import.uploaded(Request(scope, receive), None))

        with pytest.raises(HTTPException) as refused:
            asyncio.run(read())
        assert refused.value.status_code == 400

    def test_nobody_who_may_not_write_leaves_a_file(self, viewer, nobody):
        problem(self.send(viewer, HEADER.encode()), 403)
        problem(self.send(nobody, HEADER.encode()), 401)
