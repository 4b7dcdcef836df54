"""Into the console and out of it."""

from tests.browser.views import visit


def test_the_log_in_page_looks_right(page, looks_right):
    visit(page, "/login/")

    looks_right(page, "log-in")


def test_a_person_logs_in_and_out(page, site):
    page.goto("/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(site.server.password)
    page.keyboard.press("Enter")
    page.wait_for_url("/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/**")
