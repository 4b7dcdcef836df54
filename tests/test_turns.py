"""Requests beyond a number wait for their turn; who waits for news gives theirs up. A turn has its connection."""

import threading

import pytest
from django.db import close_old_connections, connection

from extdhcp_site.turns import TURN, InTurn, given_up


class Closing(list[bytes]):
    closed = False

    def close(self) -> None:
        self.closed = True


def in_another_thread(application: InTurn) -> threading.Thread:
    thread = threading.Thread(target=application, args=({}, None), daemon=True)
    thread.start()
    return thread


def is_let_in(application: InTurn) -> bool:
    thread = in_another_thread(application)
    thread.join(0.2)
    return not thread.is_alive()


def test_one_more_waits_until_an_answer_is_closed():
    application = InTurn(lambda environ, start_response: [b"answer"], 2)
    first, _ = application({}, None), application({}, None)
    waiting = in_another_thread(application)
    waiting.join(0.2)
    assert waiting.is_alive()

    assert list(first) == [b"answer"]
    assert waiting.is_alive(), "what is written is still at work"
    first.close()

    waiting.join(5)
    assert not waiting.is_alive()


def test_who_ends_their_turn_makes_room_while_they_stay():
    def application(environ, start_response):
        environ[TURN].end()
        return [b""]

    in_turn = InTurn(application, 1)
    in_turn({}, None)
    assert is_let_in(in_turn)


def test_a_turn_is_given_back_once():
    in_turn = InTurn(lambda environ, start_response: [environ[TURN]], 1)
    answer = in_turn({}, None)
    [turn] = answer
    turn.end()
    answer.close()
    in_turn({}, None)
    assert not is_let_in(in_turn)


def break_down(*args):
    raise OSError("broken")


def test_what_fails_gives_its_turn_back():
    in_turn = InTurn(break_down, 1)
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            in_turn({}, None)


def test_a_turn_for_which_there_is_no_connection_is_given_back(monkeypatch):
    in_turn = InTurn(lambda environ, start_response: [b""], 1)
    with monkeypatch.context() as without_database:
        without_database.setattr(in_turn._stock, "lend", break_down)
        with pytest.raises(OSError, match="broken"):
            in_turn({}, None)
    assert is_let_in(in_turn)


class TestGivenUpForASleep:
    def test_another_has_it_meanwhile(self):
        let_in = []

        def application(environ, start_response):
            if "sleeps" in environ:
                with given_up():
                    let_in.append(is_let_in(in_turn))
            else:
                environ[TURN].end()
            return [b""]

        in_turn = InTurn(application, 1)
        in_turn({"sleeps": True}, None)
        assert let_in == [True]

    def test_and_then_it_is_taken_anew(self):
        def application(environ, start_response):
            with given_up():
                pass
            return [b""]

        in_turn = InTurn(application, 1)
        in_turn({}, None)
        assert not is_let_in(in_turn)

    def test_one_that_has_ended_stays_so(self):
        def application(environ, start_response):
            environ[TURN].end()
            with given_up():
                pass
            return [b""]

        in_turn = InTurn(application, 1)
        in_turn({}, None)
        assert is_let_in(in_turn)

    def test_without_a_turn_it_is_nothing(self):
        thread_without = threading.Thread(target=given_up().__enter__)
        thread_without.start()
        thread_without.join(1)
        assert not thread_without.is_alive()


def test_the_applications_own_answer_is_closed():
    content = Closing()
    InTurn(lambda environ, start_response: content, 1)({}, None).close()
    assert content.closed


class TestConnections:
    """The connections are the stock's own: no test's transaction sees what they see."""

    pytestmark = pytest.mark.django_db

    @pytest.fixture
    def used(self):
        return []

    @pytest.fixture
    def application(self, used):
        """Asks the database, and notes with which connection."""

        def ask(environ, start_response):
            connection.ensure_connection()
            used.append(connection.connection)
            return [environ[TURN]]

        application = InTurn(ask)
        yield application
        for kept in application._stock._free:
            kept.close()

    def test_a_request_has_that_of_the_one_before_in_whatever_thread(self, application, used):
        application({}, None).close()
        other = threading.Thread(target=lambda: application({}, None).close())
        other.start()
        other.join()
        assert used[0] is used[1]

    def test_two_at_a_time_have_two(self, application, used):
        first, second = application({}, None), application({}, None)
        second.close()
        first.close()
        assert used[0] is not used[1]

    def test_who_ends_their_turn_leaves_it_to_the_next(self, application, used):
        waiting = application({}, None)
        [turn] = waiting
        turn.end()
        application({}, None).close()
        waiting.close()
        assert used[0] is used[1]

    def test_the_thread_has_its_own_again_afterwards(self, application, used):
        connection.ensure_connection()
        own = connection.connection
        application({}, None).close()
        assert connection.connection is own is not used[0]

    def test_one_that_is_not_needed_any_more_is_closed_when_it_is_old(self, application, used):
        first, second = application({}, None), application({}, None)
        second.close()
        first.close()
        application._stock._free[0].close_at = 0

        application({}, None).close()

        assert [kept.connection for kept in application._stock._free] == [used[0]]

    def test_it_is_kept_between_requests(self, application, used):
        answer = application({}, None)
        close_old_connections()
        kept = connection.connection
        answer.close()
        assert kept is used[0]
