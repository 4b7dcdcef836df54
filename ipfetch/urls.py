from django.urls import path

from ipfetch import webhook

urlpatterns = [
    path("leases/", webhook.LeaseReports.as_view(), name="lease-reports"),
]
