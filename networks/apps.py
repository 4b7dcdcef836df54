from django.apps import AppConfig


class NetworksConfig(AppConfig):
    name = "networks"
    verbose_name = "Networks and VMs"

    def ready(self) -> None:
        from extdhcp_site.alerts import watches as alerts
        from extdhcp_site.console import panels
        from extdhcp_site.jobs import tasks
        from networks import checks, timeline, troubleshooting, watches
        from networks.console import (  # noqa: F401 - they declare their pages
            dashboard,
            deploy,
            endpoints,
            hosts,
            keys,
            networks,
            offerings,
            vm,
            vms,
        )
        from networks.services import adoption, lifecycle

        checks.troubleshoots_nics(troubleshooting.vm_checks)
        timeline.tells(timeline.of_the_vm)
        tasks.every(1, lifecycle.housekeeping)
        tasks.every(5, adoption.find_migrated)
        tasks.every(1, watches.ask_the_idle)
        tasks.every(10, watches.measure_storage)
        for watch in watches.WATCHES:
            alerts.register(watch)
        panels.register(dashboard.PANEL)
