"""The stock admin under our stylesheet: every list and every form, with hostile words in them."""

import pytest
from django.contrib import admin
from django.urls import reverse

from tests.browser.views import TWO_VIEWS, visit

MODELS = sorted((model._meta.app_label, model._meta.model_name) for model in admin.site._registry)


def test_the_index_looks_right(signed_in, looks_right):
    page = signed_in("admin")
    visit(page, reverse("admin:index"))

    looks_right(page, "admin-index")


@pytest.mark.parametrize(("app", "model"), MODELS, ids=[model for _, model in MODELS])
def test_the_pages_of_a_model_look_right(signed_in, looks_right, site, app, model):
    page = signed_in("admin")
    visit(page, reverse(f"admin:{app}_{model}_changelist"))
    looks_right(page, f"admin-{model}-list", TWO_VIEWS)
    may_add = page.locator("a.addlink").count()

    visit(page, reverse(f"admin:{app}_{model}_change", args=[site.rows[model]["pk"]]))
    looks_right(page, f"admin-{model}-form", TWO_VIEWS)

    if may_add:
        visit(page, reverse(f"admin:{app}_{model}_add"))
        looks_right(page, f"admin-{model}-add", TWO_VIEWS)
