import django_q.admin  # noqa: F401 - registers its pages now, so that they can be taken away
from django.contrib import admin
from django_q.models import Failure, OrmQ, Schedule, Success

# django-q's own pages run any importable function that somebody types, and unpickle rows to show them.
for model in (Schedule, Success, Failure, OrmQ):
    admin.site.unregister(model)
