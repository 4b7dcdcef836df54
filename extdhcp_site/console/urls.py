from django.contrib.auth import views as auth
from django.urls import path

from extdhcp_site.accounts.log_in import LogInForm
from extdhcp_site.console import pages, views

urlpatterns = [
    path("do/<str:command>", views.do, name="do"),
    path(
        "login/",
        auth.LoginView.as_view(template_name="console/login.html", authentication_form=LogInForm),
        name="login",
    ),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    *pages.urls(),
]
