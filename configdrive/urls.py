from django.urls import path

from configdrive import views

urlpatterns = [
    path("", views.guest_index, name="guest-index"),
    path("<str:name>", views.guest_script, name="guest-script"),
]
