"""Routes of the playground, inside the admin site's name space."""

from django.contrib import admin
from django.urls import path

from portal.site.playground.views import playground, playground_key

urlpatterns = [
    path("playground/", admin.site.admin_view(playground), name="playground"),
    path("playground/key", admin.site.admin_view(playground_key), name="playground_key"),
]
