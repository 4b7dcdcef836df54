"""Log-in and the second factor: of allauth's pages those that this product has, under the names that it knows."""

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as recovery_codes
from allauth.mfa.totp import views as totp
from django.contrib.auth.decorators import login_required
from django.urls import path
from django.views.decorators.http import require_POST
from django.views.generic import RedirectView

log_in = account.LoginView.as_view(template_name="console/login.html")
log_out = require_POST(account.logout)

# Those who are not logged in are sent away before allauth makes them a session to remember where they wanted to go.
urlpatterns = [
    path("login/", log_in, name="login"),
    path("login/", log_in, name="account_login"),
    path("login/code/", mfa.authenticate, name="mfa_authenticate"),
    path("logout/", log_out, name="logout"),
    path("logout/", log_out, name="account_logout"),
    path("account/confirm/", login_required(account.reauthenticate), name="account_reauthenticate"),
    path("account/confirm/code/", login_required(mfa.reauthenticate), name="mfa_reauthenticate"),
    path("account/second-factor/", RedirectView.as_view(pattern_name="my-account"), name="mfa_index"),
    path("account/second-factor/set-up/", login_required(totp.activate_totp), name="mfa_activate_totp"),
    path("account/second-factor/remove/", login_required(totp.deactivate_totp), name="mfa_deactivate_totp"),
    path("account/recovery-codes/", login_required(recovery_codes.view_recovery_codes), name="mfa_view_recovery_codes"),
    path(
        "account/recovery-codes/new/",
        login_required(recovery_codes.generate_recovery_codes),
        name="mfa_generate_recovery_codes",
    ),
    path(
        "account/recovery-codes/download/",
        login_required(recovery_codes.download_recovery_codes),
        name="mfa_download_recovery_codes",
    ),
]
