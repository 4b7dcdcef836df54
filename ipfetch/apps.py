from django.apps import AppConfig


class IpFetchConfig(AppConfig):
    name = "ipfetch"
    verbose_name = "Address discovery"

    def ready(self) -> None:
        from extdhcp_site.alerts import watches as alerts
        from extdhcp_site.console import panels as console
        from extdhcp_site.jobs import tasks
        from ipfetch import element, panels, planner, timeline, troubleshooting, watches
        from ipfetch.console import network, nic, nics, words  # noqa: F401 - pages declare themselves
        from networks import checks, elements
        from networks import timeline as timelines
        from networks.console import sections

        elements.register(element.IpFetchElement())
        checks.troubleshoots_nics(troubleshooting.address_checks)
        timelines.tells(timeline.of_the_search)
        sections.explains_addresses(words.words_for)
        tasks.every(1, planner.run_pass)
        for watch in watches.WATCHES:
            alerts.register(watch)
        for panel in panels.PANELS:
            console.register(panel)
